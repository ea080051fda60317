"""Compact tokens, read strictly: what may stand in one, before any library sees it.

RFC 7515 (JWS), RFC 7516 (JWE) and RFC 7518 (algorithms) leave room for what this contract never needs:
other algorithms, keys inside tokens, critical extensions, several spellings of one token. All of it is
refused here by exact lists. The cryptography itself is jwcrypto's, one pinned algorithm at a time.
"""

import base64
import re
from collections.abc import Callable, Mapping

from jwcrypto.jwa import JWA
from jwcrypto.jwk import JWK

from receiver import strictjson

SIGNATURE_BYTES = 96  # ES384: r and s of 48 bytes each, RFC 7518 section 3.4
COORDINATE_BYTES = 48  # P-384, RFC 7518 section 6.2.1.2
MAX_HEADER = 2048  # characters of base64url; the platform's own are under 600

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Rule = Callable[[object], bool]


class TokenFault(ValueError):
    """A token is not what this contract allows. The text names the fault for the log, and no value."""


def canonical_uuid(value: object) -> str | None:
    """Return ``value`` in lower case if it is a UUID spelled 8-4-4-4-12, else None."""
    if isinstance(value, str) and len(value) == 36 and value.isascii():
        lower = value.lower()
        return lower if _UUID.fullmatch(lower) else None
    return None


def as_ascii(token: object) -> bytes:
    """Return ``token``, a text of ASCII, as bytes; raises TokenFault for anything else."""
    if not isinstance(token, str) or not token.isascii():
        raise TokenFault("not a compact token")
    return token.encode("ascii")


def decode_base64url(text: bytes, size: int | None = None) -> bytes:
    """Return the bytes of ``text``, base64url without padding and in its one canonical spelling.

    With ``size``, exactly that many bytes are expected. Raises TokenFault (RFC 4648 section 3.5: several
    spellings of the same bytes would make several tokens of one).
    """
    if b"+" in text or b"/" in text or b"=" in text:
        raise TokenFault("not base64url")
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise TokenFault("not base64url") from None
    tail = len(text) % 4
    if tail and encode_base64url(data[-(tail - 1) :]).encode() != text[-tail:]:
        raise TokenFault("base64url is not canonical")
    if size is not None and len(data) != size:
        raise TokenFault("a part has another size")
    return data


def encode_base64url(data: bytes) -> str:
    """Return ``data`` as base64url without padding (RFC 7515 appendix C)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def one_of(*allowed: str) -> Rule:
    """Return a rule that holds for exactly the ``allowed`` texts."""
    return lambda value: isinstance(value, str) and value in allowed


def is_kid(value: object) -> bool:
    """Tell whether ``value`` is a key id: PROTOCOL, "Who holds what", a UUID."""
    return canonical_uuid(value) is not None


def is_label(value: object) -> bool:
    """Tell whether ``value`` is a short printable text, as ``typ`` and ``cty`` are."""
    return isinstance(value, str) and len(value) <= 32 and value.isascii() and value.isprintable()


def read_header(part: bytes, rules: Mapping[str, Rule], required: tuple[str, ...]) -> dict:
    """Return the JOSE header in ``part``, a dict that holds only members of ``rules`` which satisfy them.

    Raises TokenFault when it is too large, not an object, lacks one of ``required``, or holds anything else.
    """
    if len(part) > MAX_HEADER:
        raise TokenFault("the header is too large")
    try:
        header = strictjson.loads(decode_base64url(part))
    except strictjson.NotJson:
        raise TokenFault("the header is not JSON") from None
    if not isinstance(header, dict):
        raise TokenFault("the header is not an object")
    for name in required:
        if name not in header:
            raise TokenFault(f"the header lacks {name}")
    for name, value in header.items():
        rule = rules.get(name)
        if rule is None:
            raise TokenFault("the header holds a member that is not allowed")
        if not rule(value):
            raise TokenFault(f"the header's {name} is not allowed")
    return header


_JWS_RULES: dict[str, Rule] = {
    "alg": one_of("ES384"),
    "kid": is_kid,
    "typ": is_label,
    "cty": is_label,
}


def verify_jws(token: bytes, find_key: Callable[[str], JWK | None]) -> bytes:
    """Return the payload of ``token``, a compact JWS by ES384, once its signature holds.

    ``find_key`` takes the header's ``kid`` and returns the one key that may have signed, or None. Raises
    TokenFault. RFC 8725 sections 3.1 and 3.2: the algorithm is ours to choose, never the token's.
    """
    signed, _, signature = token.rpartition(b".")  # what was signed may be large: it is cut out once
    head, dot, payload = signed.partition(b".")
    if not dot or b"." in payload:
        raise TokenFault("not a compact token of that kind")
    header = read_header(head, _JWS_RULES, ("alg", "kid"))
    raw_signature = decode_base64url(signature, SIGNATURE_BYTES)
    key = find_key(header["kid"])
    if key is None:
        raise TokenFault("the kid names no key that may sign here")
    try:
        JWA.signing_alg("ES384").verify(key, signed, raw_signature)
    except MemoryError:
        raise
    except Exception as cause:  # any library error means the same: not verified
        raise TokenFault(f"the signature does not verify ({type(cause).__name__})") from None
    return decode_base64url(payload)


def sign_jws(payload: bytes, key: JWK, kid: str) -> str:
    """Return ``payload`` as a compact JWS by ES384 with ``key`` (private, P-384), ``kid`` in its header."""
    head = encode_base64url(strictjson.dumps({"alg": "ES384", "kid": kid, "typ": "JWT"}))
    signed = f"{head}.{encode_base64url(payload)}"
    signature = JWA.signing_alg("ES384").sign(key, signed.encode("ascii"))
    return f"{signed}.{encode_base64url(signature)}"
