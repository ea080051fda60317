"""Logging: one line per event, whatever callers put into it, and one event per request.

Never logged, at any level: keys, tokens, contents. What callers choose (path, method, tenant) is escaped. Of what goes
wrong only the kind and the place are told, since texts of exceptions and warnings may quote anything.
"""

import contextlib
import logging
import logging.config
import re
import secrets
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterable
from types import TracebackType

from flask import Response, g, request

log = logging.getLogger("receiver")
# A part of a token or of a key; no id or name is that long. Each run of letters is looked at once, from its start.
_LONG = re.compile(r"(?<![\w-])([\w-]{8})[\w-]{56,}")
_LOST = "a line of the log could not be written"
_LONGEST = 300  # characters of a path in the log


class LineFormatter(logging.Formatter):
    """Time, level and message; control characters escaped, so that nobody forges a line.

    The lines of a traceback are kept apart by their bar: a forged one cannot look like the start of an event.
    """

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self):
        self._second = (-1, "")
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time of ``record``, UTC; that of the same second is made once."""
        second, text = self._second
        if int(record.created) != second:
            second, text = int(record.created), time.strftime(self.default_time_format, time.gmtime(record.created))
            self._second = second, text
        return self.default_msec_format % (text, record.msecs)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``, without control characters."""
        request_id = getattr(record, "request", None)
        line = super().formatMessage(record) + (f" request={request_id}" if request_id else "")
        return escape(_LONG.sub(r"\1...", line))

    def formatException(self, ei) -> str:
        """Return where ``ei`` was raised and its class, but not its text, which may quote content."""
        lines = [*"".join(traceback.format_tb(ei[2])).splitlines(), ei[0].__name__]
        return "\n".join(f"    | {escape(line)}" for line in lines)


def escape(text: str) -> str:
    """Return ``text`` with everything that is not printable ASCII written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() and c.isascii() else c.encode("unicode_escape").decode() for c in text)


class LineHandler(logging.StreamHandler):
    """Writes lines. One that cannot be made is told by its place: logging itself would print what it was made of."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that ``record`` could not be written, where that is possible at all."""
        kind = sys.exc_info()[0]
        place = f"{record.filename}:{record.lineno}: {kind.__name__ if kind else ''}"
        said = logging.LogRecord(record.name, logging.ERROR, "", 0, f"{_LOST} at {place}", (), None)
        with contextlib.suppress(Exception):  # the disk under standard error may be full
            self.stream.write(self.format(said) + self.terminator)
            self.flush()


def configure(level: str) -> None:
    """Log to standard error from ``level`` ("debug", "info", "warning" or "error"); gunicorn's loggers as well.

    Libraries are heard from warnings on: at debug theirs tell what they handle. What nobody catches is logged too.
    """
    handler = {"()": LineHandler, "stream": sys.stderr, "formatter": "line"}
    others = "ERROR" if level == "error" else "WARNING"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": LineFormatter}},
            "handlers": {"stderr": handler},
            "root": {"level": others, "handlers": ["stderr"]},
            "loggers": {
                "receiver": {"level": level.upper()},
                "gunicorn.error": {"level": gunicorn_level(level).upper(), "handlers": [], "propagate": True},
                "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
            },
        }
    )
    sys.excepthook = _on_uncaught
    sys.unraisablehook = _on_unraisable
    threading.excepthook = _on_thread
    warnings.showwarning = _on_warning


def _on_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("ended by an exception", exc_info=(kind, error, trace))


def _on_unraisable(failed) -> None:
    log.error(
        "an exception that nobody could handle", exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback)
    )


def _on_thread(failed) -> None:
    if failed.exc_type is not SystemExit:
        log.error("a thread ended", exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))


def _on_warning(_message, category: type[Warning], filename: str, lineno: int, *_more) -> None:
    log.warning("%s at %s:%d", category.__name__, filename, lineno)


def warn(lines: Iterable[str]) -> None:
    """Log each of ``lines``, what was found at the start and does not stop it."""
    for line in lines:
        log.warning("%s", line)


def gunicorn_level(level: str) -> str:
    """Return the level at which gunicorn may log: at debug it would log what it received, headers included."""
    return "info" if level == "debug" else level


def start_request() -> None:
    """Give the request its id and note when it began."""
    g.request_id = secrets.token_hex(16)
    g.began = time.perf_counter()


def finish_request(response: Response, path: str, client: str) -> Response:
    """Log the request in one line: who, what, status, time, and why it was refused; returns ``response``.

    ``path`` is the raw one, which holds no space; ``client`` is an address.
    """
    noted = g._get_current_object()
    response.headers["X-Request-ID"] = noted.request_id
    effect, cause = noted.get("effect"), noted.get("cause")
    told = [
        client,
        request.environ["REQUEST_METHOD"][:16],
        path[:_LONGEST],
        str(response.status_code),
        f"{1000 * (time.perf_counter() - noted.began):.1f}ms",
    ]
    if effect:
        told.append(f"stored={effect.stored} ignored={effect.ignored} jti={effect.jti_was}")
    if cause:
        told.append(f"cause={cause!r}")
    conflict = effect is not None and effect.jti_was == "conflicting"
    level = logging.WARNING if conflict else logging.INFO
    if log.isEnabledFor(level):  # by hand: looking for the caller's file and line, which are not shown, takes long
        extra = {"request": noted.request_id}
        log.handle(log.makeRecord(log.name, level, "", 0, " ".join(told), (), None, extra=extra))
    return response
