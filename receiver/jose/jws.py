"""Signatures: compact JWS by ES384 and nothing else (RFC 7515; RFC 7518 section 3.4)."""

import functools
import hashlib
from collections.abc import Callable
from typing import Protocol, TypeVar

from receiver import strictjson
from receiver.encoding import decode_base64url, encode_base64url
from receiver.jose import p384
from receiver.jose.compact import Rule, TokenFault, is_kid, is_label, one_of, parts_of, read_header

_RULES: dict[str, Rule] = {
    "alg": one_of("ES384"),
    "kid": is_kid,
    "typ": is_label,
    "cty": is_label,
}


class VerifyingKey(Protocol):
    """What a signature is verified with."""

    @property
    def handle(self) -> p384.PublicKey:
        """The public key."""


Key = TypeVar("Key", bound=VerifyingKey)


def verify_jws(token: bytes, find_key: Callable[[str], Key | None]) -> tuple[bytearray, Key]:
    """Return the payload of ``token``, a compact JWS by ES384, and the key whose signature it has.

    ``find_key`` takes the header's ``kid`` and returns the one key that may have signed, or None. An unknown kid costs
    less time than a wrong signature, and so tells which kids are known; they are no secret. Raises TokenFault,
    EncodingFault, and what a library raises. The algorithm is ours to choose, never the token's (RFC 8725 sections 3.1
    and 3.2).
    """
    head, payload, signature = parts_of(token, 3)
    kid = _kid_in(bytes(token[slice(*head)]))
    raw_signature = decode_base64url(token, *signature, size=p384.SIGNATURE_BYTES)
    key = find_key(kid)
    if key is None:
        raise TokenFault("the kid names no key that may sign here")
    with memoryview(token) as view:
        digest = hashlib.sha384(view[: payload[1]]).digest()
    if not p384.verify(key.handle, raw_signature, digest):
        raise TokenFault("the signature does not verify")
    return decode_base64url(token, *payload), key


@functools.lru_cache(256)
def _kid_in(part: bytes) -> str:
    """Return the kid of the header in ``part``; raises TokenFault. All signatures of one key have the same header."""
    return str(read_header(part, _RULES, ("alg", "kid"))["kid"])


@functools.lru_cache(256)
def _own_header(kid: str) -> bytes:
    return encode_base64url(strictjson.dumps({"alg": "ES384", "kid": kid, "typ": "JWT"}))


def sign_jws(payload: bytes, key: p384.PrivateKey, kid: str) -> tuple[bytes, bytes]:
    """Return the compact JWS of ``payload`` by ES384 with ``key``, ``kid`` in its header: what is signed, and the rest.

    It comes in two pieces because what is signed may be large: joining them would copy it.
    """
    body = encode_base64url(payload)
    del payload  # it may be large, and is no longer needed
    signed = b".".join((_own_header(kid), body))
    del body
    return signed, b"." + encode_base64url(p384.sign(key, hashlib.sha384(signed).digest()))
