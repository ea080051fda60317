"""Logging: one line per event, whatever callers put into it, and one event per request; as text or as JSON.

Never logged, at any level: keys, tokens, contents. What callers choose (path, method, tenant) is escaped. Of what goes
wrong only the kind and the place are told, since texts of exceptions and warnings may quote anything.
"""

import contextlib
import json
import logging
import logging.config
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple

from receiver.telemetry import standard_error
from receiver.telemetry.tracing import Trace

log = logging.getLogger("receiver")
# A part of a token or of a key; no id or name is that long. Each run of letters is looked at once, from its start.
_LONG = re.compile(r"(?<![\w-])([\w-]{8})[\w-]{56,}")
_LOST = "a line of the log could not be written"
_ELLIPSIS = "\u2026"
_LONGEST = 300  # characters of a path in the log


class Asked(NamedTuple):
    """A request as the log tells it: the ``client``'s address, ``method`` and raw ``path``, which holds no space."""

    client: str
    method: str
    path: str


class _Formatter(logging.Formatter):
    """What both forms share: the time, and where an exception was raised but not its text, which may quote content."""

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, form: str | None = None):
        self._second = (-1, "")
        super().__init__(form)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time of ``record``, UTC; that of the same second is made once."""
        second, text = self._second
        if int(record.created) != second:
            second, text = int(record.created), time.strftime(self.default_time_format, time.gmtime(record.created))
            self._second = second, text
        return self.default_msec_format % (text, record.msecs)


class LineFormatter(_Formatter):
    """Time, level and message; control characters escaped, so that nobody forges a line.

    The lines of a traceback are kept apart by their bar: a forged one cannot look like the start of an event.
    """

    def __init__(self):
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``, without control characters."""
        request_id = getattr(record, "request", None)
        line = super().formatMessage(record) + (f" request={request_id}" if request_id else "")
        return escape(shortened(line))

    def formatException(self, ei) -> str:
        """Return where ``ei`` was raised and its class."""
        return "\n".join(f"    | {escape(line)}" for line in _places(ei))


class JsonFormatter(_Formatter):
    """An object on a line: time, level, logger, message, perhaps request, then what is known of a request by name."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``: ASCII, whatever it holds."""
        told = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shortened(getattr(record, "short", None) or record.getMessage()),
        }
        if request_id := getattr(record, "request", None):
            told["request"] = request_id
        for name, value in getattr(record, "fields", {}).items():
            told[name] = shortened(value) if isinstance(value, str) else value
        if record.exc_info:
            told["trace"] = _places(record.exc_info)
        return json.dumps(told, separators=(",", ":")).replace("\x7f", "\\u007f")


def _places(ei: tuple) -> list[str]:
    return [*"".join(traceback.format_tb(ei[2])).splitlines(), ei[0].__name__]


def shortened(text: str) -> str:
    """Return ``text`` with all that is as long as a part of a token or key cut short."""
    return _LONG.sub(r"\1...", text)


def escape(text: str) -> str:
    """Return ``text`` with everything that is not printable ASCII written as an escape; but for "…" of our messages."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if (c.isprintable() and c.isascii()) or c == _ELLIPSIS else c.encode("unicode_escape").decode() for c in text
    )


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


def is_json(form: str) -> bool:
    """Tell whether STORAGE_LOG_FORMAT ``form`` means JSON here."""
    return form == "json" or (form == "auto" and not (sys.stderr and sys.stderr.isatty()))


def configure(level: str, form: str = "text") -> None:
    """Log to standard error from ``level`` ("debug", "info", "warning" or "error"); gunicorn's loggers as well.

    ``form`` is "text", "json", or "auto". Libraries are heard from warnings on: at debug theirs tell what they handle.
    What nobody catches is logged too.
    """
    handler = {"()": LineHandler, "stream": sys.stderr, "formatter": "line"}
    others = "ERROR" if level == "error" else "WARNING"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": JsonFormatter if is_json(form) else LineFormatter}},
            "handlers": {"stderr": handler},
            "root": {"level": others, "handlers": ["stderr"]},
            "loggers": {
                "receiver": {"level": level.upper()},
                "gunicorn.error": {"level": gunicorn_level(level).upper(), "handlers": [], "propagate": True},
                "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
            },
        }
    )
    if output := standard_error.installed():
        output.report = _report
    sys.excepthook = _on_uncaught
    sys.unraisablehook = _on_unraisable
    threading.excepthook = _on_thread
    warnings.showwarning = _on_warning


def _report(dropped: int) -> bytes:
    """Return the line that says how many were ``dropped``, in the form of all others."""
    said = "a line was" if dropped == 1 else f"{dropped:,} lines were"
    message = f"{said} dropped here: standard error was not read, full or closed"
    record = logging.LogRecord(log.name, logging.WARNING, "", 0, message, (), None)
    return f"{logging.getLogger().handlers[0].format(record)}\n".encode()


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


def tell_request(asked: Asked, trace: Trace, status: int) -> None:
    """Log the request of ``trace``, answered with ``status``: who, what, how long in which room, why refused."""
    effect = trace.effect
    conflict = effect is not None and effect.jti_was == "conflicting"
    level = logging.WARNING if conflict else logging.INFO
    if not log.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "client": asked.client,
        "method": asked.method[:16],
        "path": asked.path[:_LONGEST],
        "call": trace.call,
        "tenant": trace.tenant,
        "status": status,
        "ms": round(1000 * trace.seconds(), 1),
        "rooms": {room: round(1000 * seconds, 1) for room, seconds in trace.rooms.items()},
    }
    if effect:
        fields |= {"stored": effect.stored, "ignored": effect.ignored, "jti": effect.jti_was}
    if trace.cause:
        fields |= {"reason": trace.reason, "cause": trace.cause}
    # Made by hand: looking for the caller's file and line, which are not shown, takes long.
    record = log.makeRecord(log.name, level, "", 0, _Told(fields), (), None, extra={"request": trace.request_id})
    record.fields, record.short = fields, f"{trace.call} {status}"
    log.handle(record)


class _Told:
    """What is told of a request in one line of text, made when it is asked for; in JSON the fields tell it."""

    def __init__(self, fields: dict):
        self.fields = fields

    def __str__(self) -> str:
        told = self.fields
        line = f"{told['client']} {told['method']} {told['path']} {told['status']} {told['ms']}ms"
        line += "".join(f" {room}={ms}" for room, ms in told["rooms"].items())
        if "jti" in told:
            line += f" stored={told['stored']} ignored={told['ignored']} jti={told['jti']}"
        return line + (f" reason={told['reason']} cause={told['cause']!r}" if "cause" in told else "")
