"""Compact tokens, read strictly: what may stand in one, before any cryptography sees it.

RFC 7515 (JWS), RFC 7516 (JWE) and RFC 7518 (algorithms) leave room for what this contract never needs:
other algorithms, keys inside tokens, critical extensions, several spellings of one token. All of it is
refused here by exact lists. Header members that nobody knows are ignored, as the RFCs want, and never used.
``jws.py`` and ``jwe.py`` do what is left.
"""

import re
from collections.abc import Callable, Mapping

import pybase64

from receiver import strictjson

MAX_HEADER = 2048  # characters of base64url; the platform's own are under 600

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_URL_SAFE = b"-_"
_LABEL = 255  # characters of typ and cty
# Extensions that must be understood (RFC 7515 section 4.1.11, RFC 7797), and what carries or points to a key.
_FORBIDDEN = frozenset({"crit", "b64", "jwk", "jku", "x5u", "x5c"})

Rule = Callable[[object], bool]


class TokenFault(ValueError):
    """A token is not what this contract allows. The text names the fault for the log, and no value."""


def told(cause: Exception) -> str:
    """Return what the log says of ``cause``, an error in a room where every error is the one refusal.

    Of a library's only the kind is told: its text might hold what it was given. MemoryError is no fault of a token,
    and raised again.
    """
    if isinstance(cause, MemoryError):
        raise cause
    return str(cause) if isinstance(cause, TokenFault | strictjson.NotJson) else type(cause).__name__


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


def parts_of(token: bytes, count: int) -> list[tuple[int, int]]:
    """Return where each of the ``count`` parts of ``token``, a compact token, begins and ends: none is copied.

    Raises TokenFault when it has more or fewer, or a header of over MAX_HEADER: then the rest is not even looked at.
    """
    if token.find(b".", 0, MAX_HEADER + 1) < 0:
        raise TokenFault("not a compact token, or the header is too large")
    if token.count(b".") != count - 1:
        raise TokenFault("not a compact token of that kind")
    found, start = [], 0
    for _ in range(count - 1):
        end = token.index(b".", start)
        found.append((start, end))
        start = end + 1
    return [*found, (start, len(token))]


def decode_base64url(text: bytes, start: int = 0, end: int | None = None, size: int | None = None) -> bytearray:
    """Return the bytes of ``text[start:end]``, base64url without padding and in its one canonical spelling.

    With ``size``, exactly that many bytes are expected. Raises TokenFault (RFC 4648 section 3.5: several
    spellings of the same bytes would make several tokens of one).
    """
    end = len(text) if end is None else end
    if text.find(b"+", start, end) >= 0 or text.find(b"/", start, end) >= 0 or text.find(b"=", start, end) >= 0:
        raise TokenFault("not base64url")
    whole = end - (end - start) % 4
    try:
        with memoryview(text) as view:  # a slice of it is no copy
            data = pybase64.b64decode_as_bytearray(view[start:whole], _URL_SAFE, validate=True)
        if tail := bytes(text[whole:end]):
            last = pybase64.b64decode(tail + b"=" * (-len(tail) % 4), _URL_SAFE, validate=True)
            if encode_base64url(last) != tail:
                raise TokenFault("base64url is not canonical")
            data += last
    except TokenFault:
        raise
    except ValueError:
        raise TokenFault("not base64url") from None
    if size is not None and len(data) != size:
        raise TokenFault("a part has another size")
    return data


def encode_base64url(data: bytes) -> bytes:
    """Return ``data`` as base64url without padding (RFC 7515 appendix C)."""
    return pybase64.urlsafe_b64encode(data).rstrip(b"=")


def decode_number(text: object, size: int) -> bytes:
    """Return the number of ``size`` bytes in ``text``, base64url, as elliptic-curve keys hold it.

    RFC 7518 section 6.2.1.2 wants exactly ``size`` bytes. Some encoders write an integer: without leading zeros, which
    are put back, or with a zero for its sign in front, which is taken off. Raises TokenFault for any other length.
    """
    data = bytes(decode_base64url(as_ascii(text)))
    if len(data) == size:
        return data
    if len(data) == size + 1 and data[0] == 0:
        return data[1:]
    if not 0 < len(data) < size:
        raise TokenFault("a number has another size")
    return data.rjust(size, b"\0")


def one_of(*allowed: str) -> Rule:
    """Return a rule that holds for exactly the ``allowed`` texts."""
    return lambda value: isinstance(value, str) and value in allowed


def is_kid(value: object) -> bool:
    """Tell whether ``value`` is a key id: protocol, section 1.1, a UUID."""
    return canonical_uuid(value) is not None


def is_label(value: object) -> bool:
    """Tell whether ``value`` is a printable text of a media type's length, as ``typ`` and ``cty`` are."""
    return isinstance(value, str) and len(value) <= _LABEL and value.isascii() and value.isprintable()


def read_header(part: bytes, rules: Mapping[str, Rule], required: tuple[str, ...]) -> dict:
    """Return the members of the JOSE header in ``part`` that ``rules`` know, each of which satisfies its rule.

    Other members are ignored and left out (RFC 7515 section 4, RFC 7516 section 4). Raises TokenFault when it is not an
    object, lacks one of ``required``, or holds what is forbidden: an extension that must be understood, or a key.
    """
    try:
        header = strictjson.loads(decode_base64url(part))
    except strictjson.MemberTwice:
        raise TokenFault("the header holds a member twice") from None
    except strictjson.NotJson:
        raise TokenFault("the header is not JSON") from None
    if not isinstance(header, dict):
        raise TokenFault("the header is not an object")
    for name in required:
        if name not in header:
            raise TokenFault(f"the header lacks {name}")
    if not _FORBIDDEN.isdisjoint(header):
        raise TokenFault("the header holds an extension or a key, which is not allowed")
    known = {}
    for name, value in header.items():
        rule = rules.get(name)
        if rule is None:
            continue
        if not rule(value):
            raise TokenFault(f"the header's {name} is not allowed")
        known[name] = value
    return known
