"""Signatures: compact JWS by ES384 and nothing else (RFC 7515; RFC 7518 section 3.4)."""

import functools
import hashlib
from collections.abc import Callable

from receiver import strictjson
from receiver.jose import p384
from receiver.jose.compact import (
    Rule,
    TokenFault,
    decode_base64url,
    encode_base64url,
    is_kid,
    is_label,
    one_of,
    parts_of,
    read_header,
)

_RULES: dict[str, Rule] = {
    "alg": one_of("ES384"),
    "kid": is_kid,
    "typ": is_label,
    "cty": is_label,
}


def verify_jws(token: bytes, find_key: Callable[[str], p384.PublicKey | None]) -> bytearray:
    """Return the payload of ``token``, a compact JWS by ES384, once its signature holds.

    ``find_key`` takes the header's ``kid`` and returns the one key that may have signed, or None: that refusal costs
    less than a signature that does not verify, and so tells which kids are known, which are no secret. Raises
    TokenFault, and what a library raises. RFC 8725 sections 3.1 and 3.2: the algorithm is ours to choose, never the
    token's.
    """
    head, payload, signature = parts_of(token, 3)
    header = _header(bytes(token[slice(*head)]))
    raw_signature = decode_base64url(token, *signature, size=p384.SIGNATURE_BYTES)
    key = find_key(header["kid"])
    if key is None:
        raise TokenFault("the kid names no key that may sign here")
    with memoryview(token) as view:
        digest = hashlib.sha384(view[: payload[1]]).digest()
    if not p384.verify(key, raw_signature, digest):
        raise TokenFault("the signature does not verify")
    return decode_base64url(token, *payload)


@functools.lru_cache(256)
def _header(part: bytes) -> dict:
    """Return the header in ``part``; raises TokenFault. All that one key signs have the very same."""
    return read_header(part, _RULES, ("alg", "kid"))


@functools.lru_cache(256)
def _own_header(kid: str) -> bytes:
    return encode_base64url(strictjson.dumps({"alg": "ES384", "kid": kid, "typ": "JWT"}))


def sign_jws(payload: bytes, key: p384.PrivateKey, kid: str) -> tuple[bytes, bytes]:
    """Return the compact JWS of ``payload`` by ES384 with ``key``, ``kid`` in its header: what is signed, and the rest.

    In two pieces, since what is signed may be large: joining them would copy it.
    """
    body = encode_base64url(payload)
    del payload  # large as it may be, nobody needs it any more
    signed = b".".join((_own_header(kid), body))
    del body
    return signed, b"." + encode_base64url(p384.sign(key, hashlib.sha384(signed).digest()))
