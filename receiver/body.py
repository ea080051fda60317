"""Reading a request's body: only once its signature holds, whole or not at all, and never over the limit."""

import codecs
from collections.abc import Mapping, MutableMapping

from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_content_length

from receiver import strictjson
from receiver.problems import BadRequest, Busy, TooLarge, UnknownCoding, UnsupportedMedia

# In the WSGI environ: set once the body was read to its end; a function that asks a waiting client for it; one that
# waits until a body of so many bytes may be worked on, and raises Busy; whose request it is, once the signature holds.
BODY_READ = "receiver.body_read"
CONTINUE = "receiver.continue"
ADMIT = "receiver.admit"
TENANT = "receiver.tenant"
_VALUES_OF_AN_ITEM = 16  # one is known; the rest is for members that the platform may add
_MOST_VALUES = 1_000_000  # of any body; 32 MiB have room for 860,000 ids


def read(environ: MutableMapping, limit: int) -> bytes:
    """Return the body of the request in the WSGI ``environ``, at most ``limit`` bytes, as they were sent.

    Raises UnsupportedMedia or UnknownCoding unless it is plain JSON in UTF-8, TooLarge beyond the limit (declared:
    unread; chunked: as soon as it is passed), BadRequest when it is empty or ends early, Busy when the server has no
    room for it.
    """
    declared = get_content_length(environ)
    chunked = declared is None and "HTTP_TRANSFER_ENCODING" in environ
    if not declared and not chunked:
        raise BadRequest(message="The body is empty.")
    _check_type(environ)
    if declared is not None and declared > limit:
        raise TooLarge("Content-Length is over STORAGE_MAX_BODY")
    try:
        environ.get(CONTINUE, lambda: None)()
        body = environ["wsgi.input"].read(limit + 1 if declared is None else declared)
    except (MemoryError, Busy):
        raise
    except Exception as cause:  # what a server raises here is its own; it always is the sender's doing
        raise BadRequest(f"body: {type(cause).__name__}", "The body ended early or is malformed.") from None
    if len(body) > limit:
        raise TooLarge("the chunked body is over STORAGE_MAX_BODY")
    if declared is not None and len(body) < declared:
        raise BadRequest("body: shorter than declared", "The body ended early or is malformed.")
    environ[BODY_READ] = True
    environ.get(ADMIT, _at_once)(len(body))
    return body


def _at_once(_size: int) -> None:
    """Let a body be worked on, under a server that does not count them."""


def _check_type(environ: Mapping) -> None:
    kind, parameters = parse_options_header(environ.get("CONTENT_TYPE", ""))
    charset = parameters.get("charset", "utf-8").lower()
    if kind.lower() != "application/json" or charset not in ("utf-8", "utf8"):
        raise UnsupportedMedia("Content-Type")
    if environ.get("HTTP_TRANSFER_ENCODING", "chunked").strip().lower() != "chunked":
        raise UnknownCoding("Transfer-Encoding")
    if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise UnsupportedMedia("Content-Encoding")


def parse(body: bytes, most: int) -> list:
    """Return the items of ``body``, a JSON array of at most ``most`` of them.

    A byte order mark before it is skipped. Raises BadRequest (RFC 8259, and no member twice), TooLarge.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    over = f"The body holds more than STORAGE_MAX_ITEMS allows: {most} items."
    # Neither tokens nor ids hold a comma, so this bounds what parsing makes of them.
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
