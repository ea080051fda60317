"""Compact tokens, read strictly: what may stand in one, before any cryptography sees it (protocol, section 4).

RFC 7515 (JWS), RFC 7516 (JWE) and RFC 7518 (algorithms) leave room for what this contract never needs: other
algorithms, keys inside tokens, critical extensions, several spellings of one token. Exact lists refuse all of that
here. Unknown header members are ignored, as the RFCs want, and never used. ``jws.py`` and ``jwe.py`` do the rest.
"""

from collections.abc import Callable, Mapping

from receiver import strictjson
from receiver.encoding import EncodingFault, as_ascii, canonical_uuid, decode_base64url

MAX_HEADER = 2048  # characters of base64url; the platform's own headers have fewer than 600

_LABEL = 255  # characters of typ and cty
# Extensions that a reader must understand (RFC 7515 section 4.1.11, RFC 7797), and members with a key or its address.
_FORBIDDEN = frozenset({"crit", "b64", "jwk", "jku", "x5u", "x5c"})

Rule = Callable[[object], bool]


class TokenFault(ValueError):
    """A token is not what this contract allows. The message names the fault for the log and repeats no value."""


def cause_of(error: Exception) -> str:
    """Return what the log says of ``error``, where callers get the same refusal for every error.

    Of a library's error that is only its class: its text may quote what it was given. Raises MemoryError again, which
    is no fault of a token.
    """
    if isinstance(error, MemoryError):
        raise error
    is_ours = isinstance(error, TokenFault | EncodingFault | strictjson.NotJson)
    return str(error) if is_ours else type(error).__name__


def parts_of(token: bytes, count: int) -> list[tuple[int, int]]:
    """Return where each of the ``count`` parts of ``token``, a compact token, begins and ends; copies none of them.

    Raises TokenFault if there are more or fewer. Refuses a header of over MAX_HEADER without looking at the rest.
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


def decode_number(text: object, size: int) -> bytes:
    """Return the number of ``size`` bytes in ``text``, base64url, as elliptic-curve keys hold it.

    RFC 7518 section 6.2.1.2 wants exactly ``size`` bytes. Some encoders write an integer instead: without leading
    zeros, which are put back, or with a zero in front for its sign, which is taken off (protocol, section 4.3). Raises
    TokenFault for any other length, EncodingFault for what is no base64url.
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
    """Tell whether ``value`` is a key id, a UUID (protocol, section 1.1)."""
    return canonical_uuid(value) is not None


def is_label(value: object) -> bool:
    """Tell whether ``value`` is a printable text of a media type's length, as ``typ`` and ``cty`` are."""
    return isinstance(value, str) and len(value) <= _LABEL and value.isascii() and value.isprintable()


def read_header(part: bytes, rules: Mapping[str, Rule], required: tuple[str, ...]) -> dict[str, object]:
    """Return the members of the JOSE header in ``part`` that ``rules`` know; each of them satisfies its rule.

    Leaves out other members (RFC 7515 section 4, RFC 7516 section 4). Raises TokenFault if the header is no object,
    lacks one of ``required``, or holds what is forbidden: a critical extension, or a key.
    """
    header = _object_in(part)
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


def _object_in(part: bytes) -> dict[str, object]:
    try:
        header = strictjson.loads(decode_base64url(part))
    except strictjson.MemberTwice:
        raise TokenFault("the header holds a member twice") from None
    except strictjson.NotJson:
        raise TokenFault("the header is not JSON") from None
    if not isinstance(header, dict):
        raise TokenFault("the header is not an object")
    return header
