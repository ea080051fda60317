"""Reading a request's body: only once its signature holds, whole or not at all, and never over the limit."""

import codecs

from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_content_length

from receiver import strictjson, wsgi
from receiver.problems import BadRequest, Busy, TooLarge, UnknownCoding, UnsupportedMedia

_VALUES_OF_AN_ITEM = 16  # the protocol has one; the rest is for members that the platform may add
_MOST_VALUES = 1_000_000  # of any body; 32 MiB hold 860,000 ids


def read(environ: wsgi.Environ, limit: int) -> bytes:
    """Return the body of the request in ``environ`` as it was sent, at most ``limit`` bytes.

    Raises UnsupportedMedia or UnknownCoding unless it is plain JSON in UTF-8, TooLarge beyond the limit (declared:
    unread; chunked: as soon as it is passed), BadRequest if it is empty or ends early, Busy if the worker has no space
    for it.
    """
    declared = get_content_length(environ)
    chunked = declared is None and "HTTP_TRANSFER_ENCODING" in environ
    if not declared and not chunked:
        raise BadRequest(message="The body is empty.")
    _check_type(environ)
    if declared is not None and declared > limit:
        raise TooLarge("Content-Length is over STORAGE_MAX_BODY")
    try:
        wsgi.ask_for_body(environ)
        body: bytes = environ["wsgi.input"].read(limit + 1 if declared is None else declared)
    except (MemoryError, Busy):
        raise
    except Exception as cause:  # noqa: BLE001 - each server raises its own; the sender causes them
        raise BadRequest(f"body: {type(cause).__name__}", "The body ended early or is malformed.") from None
    if len(body) > limit:
        raise TooLarge("the chunked body is over STORAGE_MAX_BODY")
    if declared is not None and len(body) < declared:
        raise BadRequest("body: shorter than declared", "The body ended early or is malformed.")
    wsgi.admit_body(environ, len(body))
    return body


def _check_type(environ: wsgi.Environ) -> None:
    kind, parameters = parse_options_header(environ.get("CONTENT_TYPE", ""))
    charset = parameters.get("charset", "utf-8").lower()
    if kind.lower() != "application/json" or charset not in ("utf-8", "utf8"):
        raise UnsupportedMedia("Content-Type")
    if environ.get("HTTP_TRANSFER_ENCODING", "chunked").strip().lower() != "chunked":
        raise UnknownCoding("Transfer-Encoding")
    if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise UnsupportedMedia("Content-Encoding")


def parse(body: bytes, most: int) -> list[object]:
    """Return the items of ``body``, a JSON array of at most ``most`` of them; skips a byte order mark before it.

    Raises BadRequest (RFC 8259, and no member twice), TooLarge.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    over = f"The body holds more than STORAGE_MAX_ITEMS allows: {most} items."
    # Neither tokens nor ids hold a comma, so this bounds how many values parsing makes.
    if body.count(b",") > min(_VALUES_OF_AN_ITEM * most, _MOST_VALUES):
        raise TooLarge("body: too many values", over)
    try:
        value = strictjson.loads(body)
    except strictjson.MemberTwice as fault:
        raise BadRequest(f"body: {fault}", "The body holds a member twice: which one is meant is not known.") from None
    except strictjson.NotJson as fault:
        raise BadRequest(f"body: {fault}", "The body is not JSON in UTF-8.") from None
    if not isinstance(value, list):
        raise BadRequest(message="The body must be a JSON array.")
    if len(value) > most:
        raise TooLarge("body: too many items", over)
    return value
