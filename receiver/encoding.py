"""Base64url and UUIDs, each value in its one spelling (RFC 4648 section 5; protocol, section 1.1)."""

import re

import pybase64

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_URL_SAFE = b"-_"


class EncodingFault(ValueError):
    """A text is not in the expected encoding. The message names the fault for the log and repeats no value."""


def canonical_uuid(value: object) -> str | None:
    """Return ``value`` in lower case if it is a UUID spelled 8-4-4-4-12, else None."""
    if isinstance(value, str) and len(value) == 36 and value.isascii():
        lower = value.lower()
        return lower if _UUID.fullmatch(lower) else None
    return None


def as_ascii(text: object) -> bytes:
    """Return ``text``, a str of ASCII, as bytes; raises EncodingFault for anything else."""
    if not isinstance(text, str) or not text.isascii():
        raise EncodingFault("not a text of ASCII")
    return text.encode("ascii")


def encode_base64url(data: bytes) -> bytes:
    """Return ``data`` as base64url without padding (RFC 7515 appendix C)."""
    return pybase64.urlsafe_b64encode(data).rstrip(b"=")


def decode_base64url(text: bytes, start: int = 0, end: int | None = None, size: int | None = None) -> bytearray:
    """Return the bytes of ``text[start:end]``, base64url without padding and in its one canonical spelling.

    With ``size``, expects exactly that many bytes. Raises EncodingFault: if the same bytes had several spellings, one
    token would be several (RFC 4648 section 3.5).
    """
    end = len(text) if end is None else end
    if text.find(b"+", start, end) >= 0 or text.find(b"/", start, end) >= 0 or text.find(b"=", start, end) >= 0:
        raise EncodingFault("not base64url")
    whole = end - (end - start) % 4
    try:
        with memoryview(text) as view:  # slicing it copies nothing
            data = pybase64.b64decode_as_bytearray(view[start:whole], _URL_SAFE, validate=True)
        if tail := bytes(text[whole:end]):
            last = pybase64.b64decode(tail + b"=" * (-len(tail) % 4), _URL_SAFE, validate=True)
            if encode_base64url(last) != tail:
                raise EncodingFault("base64url is not canonical")
            data += last
    except EncodingFault:
        raise
    except ValueError:
        raise EncodingFault("not base64url") from None
    if size is not None and len(data) != size:
        raise EncodingFault("a part has another size")
    return data
