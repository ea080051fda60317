"""The family of errors, and the one place that makes an error reply (protocol, section 8).

| class               | status | when                                                        |
|---------------------|--------|-------------------------------------------------------------|
| BadRequest          | 400    | a key-id header, the body, a token or one of its claims      |
| SignatureRefused    | 401    | any fault of the request signature, also a reused ``jti``     |
| AddressRefused      | 403    | a client that STORAGE_ALLOW_FROM does not list              |
| NotFound            | 404    | no such state, no such address                              |
| TooLarge            | 413    | the body, its items, or what its tokens inflate to          |
| UnsupportedMedia    | 415    | not JSON in UTF-8                                           |
| UnknownCoding       | 501    | a transfer coding other than chunked                        |
| StoreDamaged        | 500    | the stored data cannot be read back whole                   |
| StoreUnavailable    | 503    | the store is unreachable, or locked for too long            |
| StoreHangs          | 503    | the store is known to hang: it is not used                  |
| StoreFull           | 507    | the store's disk is full                                    |
| Busy                | 503    | no space for a body: too many wait, or arrive too slowly    |

A problem has a public ``message`` for callers, and a private ``cause`` for the log alone. Its ``reason`` is a word of
REASONS, for metrics and the log.
"""

from http import HTTPStatus
from typing import ClassVar

HEADERS = {"X-ManyWho-Service-Problem-Kind": "service"}

# fmt: off
REASONS = (
    "missing", "malformed", "unverified", "expired", "too_far_ahead", "not_yet", "issuer", "audience", "path", "tenant",
    "jti", "replay", "address", "key_id", "body", "token", "claim", "too_large", "media_type", "coding", "not_found",
    "method", "http", "damaged", "store_unavailable", "store_full", "busy", "defect",
)
# fmt: on
_MESSAGES = {
    400: "The request could not be understood.",
    401: "The request signature is missing or not valid.",
    403: "This store does not answer to this address.",
    404: "There is nothing at this address.",
    405: "This address does not answer to this method.",
    413: "The request is larger than this store accepts.",
    414: "The address is too long.",
    415: "The body must be JSON in UTF-8, sent as application/json without an encoding.",
    417: "This expectation cannot be met.",
    431: "The headers are larger than this store accepts.",
    500: "The store could not answer; the cause is in its log.",
    501: "This transfer coding is not supported.",
    503: "The store is not available at the moment; send the same request again.",
    507: "The store is full; nothing was changed.",
}


class Problem(Exception):
    """A request that ends with an error reply.

    Takes ``cause``, a private text for the log (never a key, a token or content); ``message``, a public text in place
    of the fixed one of its status; and ``reason``, one of REASONS in place of that of its class.
    """

    status: ClassVar[int] = 500
    headers: ClassVar[dict[str, str]] = {}
    has_own_line: ClassVar[bool] = False  # logged once where it is found, so no request logs it
    reason: str = "defect"

    def __init__(self, cause: str = "", message: str = "", reason: str = "") -> None:
        self.reason = reason or type(self).reason
        self.message = message or message_of(self.status)
        self.cause = cause or self.message
        super().__init__(self.cause)


class BadRequest(Problem):
    """The request is signed, but something in it is wrong; nothing of it was done."""

    status = 400
    reason = "body"


class SignatureRefused(Problem):
    """The caller is not proven. Every cause has the same text, so that callers learn nothing from it."""

    status = 401
    reason = "malformed"


class ReplayRefused(SignatureRefused):
    """A ``jti`` was used before, for another method or body (protocol, section 3.4)."""

    reason = "replay"


class AddressRefused(Problem):
    """The client that a trusted proxy names is not one of STORAGE_ALLOW_FROM."""

    status = 403
    reason = "address"


class NotFound(Problem):
    """The address, or the state, does not exist for this tenant."""

    status = 404
    reason = "not_found"


class TooLarge(Problem):
    """The body, or what its tokens inflate to, is over the limit."""

    status = 413
    reason = "too_large"


class UnsupportedMedia(Problem):
    """The body is not declared as JSON in UTF-8."""

    status = 415
    reason = "media_type"


class UnknownCoding(Problem):
    """The body comes in a transfer coding other than chunked (RFC 9112 section 6.1)."""

    status = 501
    reason = "coding"


class StoreDamaged(Problem):
    """Stored data is not what was written: the one expected 500."""

    reason = "damaged"


class StoreUnavailable(Problem):
    """The store cannot be reached, or was locked for longer than the store time-out."""

    status = 503
    reason = "store_unavailable"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "2"}


class StoreHangs(StoreUnavailable):
    """The store did not answer other requests in time, so this one does not wait for it."""

    has_own_line = True


class StoreMisplaced(StoreUnavailable):
    """The settings name a place where no store can be, and waiting does not change that."""


class LoginRefused(StoreMisplaced):
    """The database server refused user or password."""

    has_own_line = True


class StoreFull(Problem):
    """The store has no space left; nothing of the request was kept."""

    status = 507
    reason = "store_full"


class Busy(Problem):
    """The receiver has no space for the request at the moment; nothing of it was done."""

    status = 503
    reason = "busy"
    has_own_line = True  # slow clients can cause it all the time
    headers: ClassVar[dict[str, str]] = {"Retry-After": "2"}


def reason_of(status: int) -> str:
    """Return the word of REASONS for an HTTP ``status`` that the framework answered with."""
    return {404: "not_found", 405: "method", 413: "too_large", 415: "media_type"}.get(status, "http")


def message_of(status: int) -> str:
    """Return the fixed public text of an HTTP ``status``."""
    return _MESSAGES.get(status) or f"{phrase_of(status)}."


def phrase_of(status: int) -> str:
    """Return the reason phrase of an HTTP ``status`` (RFC 9110 section 15)."""
    return HTTPStatus(status).phrase


Reply = tuple[dict[str, object], int, dict[str, str]]  # body, status, headers


def reply(status: int, message: str, uri: str, headers: dict[str, str] | None = None) -> Reply:
    """Return body, status and headers of an error reply (protocol, section 8.1: field names are fixed).

    Takes the HTTP ``status``, the public ``message``, the request's path ``uri`` as it was sent, and further response
    ``headers``.
    """
    body: dict[str, object] = {
        "action": None,
        "invokeType": None,
        "kind": "service",
        "message": message,
        "responseBody": None,
        "responseHeaders": None,
        "statusCode": status,
        "uri": uri,
    }
    return body, status, HEADERS | (headers or {})
