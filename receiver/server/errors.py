"""Requests that are refused before the application sees them: status, reply and log line."""

import json
import logging
import time
from typing import ClassVar

from gunicorn.http import errors

from receiver import problems
from receiver.server.capacity import Waiter
from receiver.telemetry import metrics

_QUIET = 10.0  # seconds between two lines of a ThrottledLog

_STATUSES = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.UnsupportedTransferCoding: 501,
    errors.ExpectationFailed: 417,
}
_TLS_FAULTS = {
    "HTTP_REQUEST": "it speaks plain HTTP: its URL must begin with https",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, which STORAGE_TLS_CLIENT_CA requires",
}


class ThrottledLog:
    """Logs events that clients can cause without end: the first one, then at most every ten seconds, with a count."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._count = 0
        self._next = 0.0

    def say(self, text: str, *arguments: object) -> None:
        """Log a warning, ``text`` with its ``arguments``, unless the last one is too recent."""
        self._count += 1
        if time.monotonic() >= self._next:
            self._log.warning(f"{text} (%d times since the last such line)", *arguments, self._count)
            self._count, self._next = 0, time.monotonic() + _QUIET


class Drops:
    """Counts the bodies and replies that are dropped because of slow clients, and logs them."""

    _TEXTS: ClassVar[dict[str, str]] = {
        "reply": "dropped: a reply to tenant %s, the slowest one, because too many wait for their clients",
        "slow_reply": "dropped: a reply to tenant %s, which its client did not take in time",
        "body": "answered 503: a body of tenant %s, because too many wait",
    }

    def __init__(self, log: logging.Logger) -> None:
        self._throttled = {what: ThrottledLog(log) for what in self._TEXTS}

    def __call__(self, what: str, waiter: Waiter) -> None:
        """Record that ``waiter`` was dropped; ``what`` it is, one of metrics.DROPPED."""
        metrics.dropped(what)
        self._throttled[what].say(self._TEXTS[what], waiter.tenant or "-")


def status_of(exc: Exception) -> int:
    """Return the status of the reply to a request that gunicorn's parser refused with ``exc``."""
    return next((status for kind, status in _STATUSES.items() if isinstance(exc, kind)), 400)


def reply(status: int, uri: str) -> bytes:
    """Return the complete error reply (protocol, section 8.1) with ``status`` for the path ``uri``."""
    return render(*problems.reply(status, problems.message_of(status), uri))


def render(body: dict[str, object], status: int, headers: dict[str, str]) -> bytes:
    """Return the bytes of an error reply (problems.reply), after which the connection is closed."""
    payload = json.dumps(body).encode("ascii")
    lines = [f"HTTP/1.1 {status} {problems.phrase_of(status)}", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + payload


def tls_fault(reason: str) -> str:
    """Return why the handshake failed, for people: what OpenSSL's ``reason`` means, or the reason itself."""
    return _TLS_FAULTS.get(reason, reason)


def peer(address: object) -> str:
    """Return the text of a socket's ``address``; empty for a Unix socket."""
    return str(address[0]) if isinstance(address, tuple) else ""
