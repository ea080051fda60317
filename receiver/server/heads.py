"""Explains why the head of a request is refused: the header at fault, or the protocol that it is instead of HTTP.

The texts go to the log. They may name a header, never its value.
"""

from gunicorn.http import errors

_TLS_HANDSHAKE = b"\x16\x03"  # RFC 8446 section 5.1: a record of type handshake, of any version
_PROXY_LINE = b"PROXY "  # the PROXY protocol, version 1, section 2.1
_PROXY_BINARY = b"\r\n\r\n\x00\r\nQUIT\n"  # version 2, section 2.2
_TLS = "it speaks TLS, and this port does not: set STORAGE_TLS_CERT, or call http"
_PROXY = "it sends the PROXY protocol, version {}, which is not supported: turn it off (send-proxy, proxy_protocol)"
_FOREIGN = {
    _TLS_HANDSHAKE: _TLS,
    _PROXY_LINE: _PROXY.format(1),
    _PROXY_BINARY: _PROXY.format(2),
}
_BEGINNINGS = tuple(_FOREIGN)
MOST_PEEKED = max(map(len, _BEGINNINGS))  # bytes that identify the protocol
MOST_HEADERS = 100  # of a request
_LONGEST_NAME = 64  # characters of a header's name in the log


class HeadRefused(Exception):
    """The bytes that arrived cannot become a head. The text says why; ``status`` is that of the reply.

    ``kind``, one of a few texts, is the same for all refusals of the same reason.
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status
        self.kind = text if status == 400 else "endless"


def foreign(head: bytes | bytearray) -> str | None:
    """Return what a connection that begins with ``head`` speaks, for people; None where it may be HTTP."""
    if not head.startswith(_BEGINNINGS):
        return None
    return next(text for beginning, text in _FOREIGN.items() if head.startswith(beginning))


def proxy_line(head: bytes) -> str | None:
    """Return the same for the PROXY protocol alone, before TLS."""
    return foreign(head) if head.startswith((_PROXY_LINE, _PROXY_BINARY)) else None


def fault_of(exc: Exception, head: bytes, most: int) -> str:
    """Return why gunicorn's parser refused ``head`` with ``exc``, naming the header at fault.

    ``most`` is the largest header allowed, in bytes with name and line end.
    """
    kind = type(exc).__name__
    head = head.partition(b"\r\n\r\n")[0]  # without the body that may follow
    if isinstance(exc, errors.UnsupportedTransferCoding):  # its hdr is the header's value
        return f"{kind}: the header Transfer-Encoding"
    if isinstance(exc, errors.ExpectationFailed):
        return f"{kind}: the header Expect"
    if isinstance(exc, errors.LimitRequestHeaders):
        return f"{kind}: {_too_large(head, most) or _too_many(head)}"
    name = getattr(exc, "hdr", None)
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    if not isinstance(name, str):
        return kind
    name, colon, _ = name.partition(":")
    if isinstance(exc, errors.InvalidHeader) and not colon and not _is_named(head, name):
        return f"{kind}: a line without a colon"  # the whole line may be a value
    return f"{kind}: the header {_shown(name)}"


def endless(head: bytes | bytearray, most: int) -> HeadRefused:
    """Return the refusal of ``head``, which is larger than the limit; ``most`` as in ``fault_of``."""
    return HeadRefused(f"its headers do not end: {_too_large(head, most) or 'they are too many'}", 431)


def _too_large(head: bytes | bytearray, most: int) -> str | None:
    for line in head.split(b"\r\n")[1:]:
        if len(line) + 2 > most:
            name = line.partition(b":")[0].decode("latin-1")
            return f"the header {_shown(name)} has {len(line) + 2} bytes, STORAGE_MAX_HEADER allows {most}"
    return None


def _too_many(head: bytes | bytearray) -> str:
    names = [line.partition(b":")[0].decode("latin-1") for line in head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    beyond = f", the first beyond them is {_shown(names[MOST_HEADERS])}" if len(names) > MOST_HEADERS else ""
    return f"there are too many headers, {MOST_HEADERS} are allowed{beyond}"


def _is_named(head: bytes, name: str) -> bool:
    return f"\n{name}:".lower().encode("latin-1", "replace") in head.lower()


def _shown(name: str) -> str:
    """Return ``name`` for the log, up to a blank: the rest may be a value whose colon is missing."""
    first = name.split(maxsplit=1)[0] if name.strip() else ""
    shown = first if len(first) <= _LONGEST_NAME else f"{first[:_LONGEST_NAME]}..."
    return f"{shown} and a blank" if first != name else shown
