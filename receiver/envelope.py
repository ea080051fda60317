"""Rooms 2 and 4: open and seal the tokens that states travel in (JWE around JWS). No HTTP, no SQL in here.

PROTOCOL, "A state on its way in" and "A state on its way out"; RFC 7516, RFC 7518 sections 4.6 and 5.2.
"""

import uuid
import zlib
from collections.abc import Mapping, Sequence

from jwcrypto.jwa import JWA
from marshmallow import ValidationError

from receiver import strictjson
from receiver.jose import (
    COORDINATE_BYTES,
    Rule,
    TokenFault,
    as_ascii,
    canonical_uuid,
    decode_base64url,
    encode_base64url,
    is_kid,
    is_label,
    one_of,
    read_header,
    sign_jws,
    verify_jws,
)
from receiver.keyring import Key, Keyring
from receiver.problems import BadRequest, TooLarge
from receiver.schemas import fault_of, state_claims
from receiver.signature import ISSUER, is_for_tenant, time_fault
from receiver.states import State

TOKEN_LIFETIME = 300 * 60  # seconds that a state's token may still be valid for
REPLY_LIFETIME = 10 * 60
REPLY_BACKDATED = 2 * 60
_BLOCK = 16  # bytes of AES
# Bits of the key, bytes of the tag: RFC 7518 sections 5.2.4 and 5.2.5.
_ENCRYPTIONS = {"A192CBC-HS384": (384, 24), "A256CBC-HS512": (512, 32)}
_NOT_OPENED = "the token cannot be opened"


def _is_ephemeral_key(value: object) -> bool:
    """RFC 7518 section 4.6.1.1: the public half and nothing else; jwcrypto checks that it is on the curve."""
    if not isinstance(value, dict) or set(value) != {"kty", "crv", "x", "y"}:
        return False
    if value["kty"] != "EC" or value["crv"] != "P-384":
        return False
    return all(decode_base64url(as_ascii(value[name]), COORDINATE_BYTES) for name in ("x", "y"))


def _is_party_info(value: object) -> bool:
    return len(decode_base64url(as_ascii(value))) <= 128


_JWE_RULES: dict[str, Rule] = {
    "alg": one_of("ECDH-ES+A192KW", "ECDH-ES+A256KW"),
    "enc": one_of(*_ENCRYPTIONS),
    "kid": is_kid,
    "cty": lambda value: isinstance(value, str) and value.upper() == "JWT",
    "typ": is_label,
    "zip": one_of("DEF"),
    "epk": _is_ephemeral_key,
    "apu": _is_party_info,
    "apv": _is_party_info,
}


def open_states(
    tokens: Sequence[str], tenant: str, keyring: Keyring, now: float, skew: float, max_inflated: int
) -> list[State]:
    """Return the states in ``tokens`` for ``tenant`` (as the path spells it), all of them or none.

    ``now`` and ``skew`` are in seconds; ``max_inflated`` bounds, in bytes, what all compressed tokens together
    may inflate to. Raises BadRequest, naming the item, with one text for every fault before a token's
    signature holds, so that it tells nothing about the cryptography; raises TooLarge.
    """
    states, left = [], max_inflated
    for index, token in enumerate(tokens):
        try:
            jws, inflated = _decrypt(token, tenant, keyring, left)
            left -= inflated
            claims = strictjson.loads(verify_jws(jws, keyring.finder("platform", tenant)))
        except (TokenFault, strictjson.NotJson) as fault:
            raise BadRequest(f"item {index}: {fault}", f"item {index}: {_NOT_OPENED}") from None
        states.append(_state_of(claims, f"item {index}", tenant, now, skew))
    return states


def _decrypt(token: str, tenant: str, keyring: Keyring, max_inflated: int) -> tuple[bytes, int]:
    """Return the JWS inside the JWE ``token``, and how many bytes of it inflating made (0 if not compressed)."""
    head, *parts = as_ascii(token).split(b".", 5)
    if len(parts) != 4:
        raise TokenFault("not a compact token of that kind")
    header = read_header(head, _JWE_RULES, ("alg", "enc", "kid", "cty", "epk"))
    key_bits, tag_bytes = _ENCRYPTIONS[header["enc"]]
    wrapped_bytes = key_bits // 8 + 8  # RFC 3394: a wrapped key is 8 bytes longer
    sizes = (wrapped_bytes, _BLOCK, None, tag_bytes)
    wrapped, iv, ciphertext, tag = map(decode_base64url, parts, sizes)
    if not ciphertext or len(ciphertext) % _BLOCK:
        raise TokenFault("the ciphertext is not whole blocks")
    key = keyring.find("receiver", header["kid"], tenant)
    if key is None:
        raise TokenFault("the kid names no receiver key of this tenant")
    try:
        cek = JWA.keymgmt_alg(header["alg"]).unwrap(key.jwk, key_bits, wrapped, header)
        plain = JWA.encryption_alg(header["enc"]).decrypt(cek, head, iv, ciphertext, tag)
    except MemoryError:
        raise
    except Exception as cause:  # whatever a library makes of it: this token is not for us
        raise TokenFault(f"decryption failed ({type(cause).__name__})") from None
    if "zip" not in header:
        return plain, 0
    inflated = _inflate(plain, max_inflated)
    return inflated, len(inflated)


def _inflate(data: bytes, limit: int) -> bytes:
    """Return ``data`` inflated (RFC 1951); raises TooLarge beyond ``limit`` bytes, TokenFault if it is damaged."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, limit + 1)
    except zlib.error:
        raise TokenFault("the compressed data is damaged") from None
    if len(inflated) > limit:
        raise TooLarge("a token inflates past STORAGE_MAX_INFLATED")
    if not inflater.eof or inflater.unused_data:
        raise TokenFault("the compressed data is damaged")
    return inflated


def _state_of(raw: object, item: str, tenant: str, now: float, skew: float) -> State:
    """Return the State that the verified claims ``raw`` tell; raises BadRequest with ``item`` and the field."""
    try:
        claims = state_claims.load(raw)
    except ValidationError as error:
        raise BadRequest(message=f"{item}: {fault_of(error)}") from None
    fault = _claims_fault(claims, tenant) or time_fault(claims, now, skew, TOKEN_LIFETIME)
    if fault:
        raise BadRequest(message=f"{item}: {fault}")
    return State(**{name: claims[name] for name in State.__dataclass_fields__})


def _claims_fault(claims: Mapping, tenant: str) -> str | None:
    if claims["iss"] != ISSUER:
        return "iss is not manywho"
    if not is_for_tenant(claims["aud"], tenant):
        return "aud does not hold the tenant of the path"
    if claims["tenant"] != canonical_uuid(tenant):
        return "tenant is not the tenant of the path"
    if claims["sub"] != claims["id"]:
        return "sub is not the id of the state"
    return None


def seal_state(state: State, platform_key: Key, receiver_key: Key, now: float) -> str:
    """Return the reply token of ``state``: signed with ``receiver_key``, encrypted to ``platform_key``.

    ``now`` is in seconds since the epoch. Claims: PROTOCOL, "A state on its way out".
    """
    claims = {
        "iss": state.tenant,
        "aud": ISSUER,
        "sub": state.id,
        "exp": int(now) + REPLY_LIFETIME,
        "iat": int(now),
        "nbf": int(now) - REPLY_BACKDATED,
        "jti": str(uuid.uuid4()),
        "content": state.content,
    }
    return _encrypt(sign_jws(strictjson.dumps(claims), receiver_key.jwk, receiver_key.kid), platform_key)


def _encrypt(jws: str, key: Key) -> str:
    header = {
        "alg": "ECDH-ES+A192KW",
        "enc": "A192CBC-HS384",
        "kid": key.kid,
        "cty": "JWT",
        "zip": "DEF",
    }
    wrapped = JWA.keymgmt_alg(header["alg"]).wrap(key.jwk, _ENCRYPTIONS[header["enc"]][0], None, header)
    head = encode_base64url(strictjson.dumps(header | wrapped["header"]))
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    compressed = deflater.compress(jws.encode("ascii")) + deflater.flush()
    encryption = JWA.encryption_alg(header["enc"])
    parts = encryption.encrypt(wrapped["cek"], head.encode("ascii"), compressed)
    return ".".join([head, *map(encode_base64url, [wrapped["ek"], *parts])])
