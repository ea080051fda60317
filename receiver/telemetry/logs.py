"""Logging: one line per event, whatever callers put into it, and one event per request; as text or as JSON.

No level logs keys, tokens or contents. What callers choose (path, method, tenant) is escaped. Of an exception or a
warning only the class and the place are logged, because its text may quote anything.
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
from typing import Any, NamedTuple, TextIO

from receiver.telemetry import standard_error
from receiver.telemetry.tracing import Trace

log = logging.getLogger("receiver")
# A part of a token or of a key: no id or name is that long. Looks at each run of letters once, from its start.
_LONG = re.compile(r"(?<![\w-])([\w-]{8})[\w-]{56,}")
_LOST = "a line of the log could not be written"
_ELLIPSIS = "\u2026"
_LONGEST = 300  # characters of a path in the log


class RequestLine(NamedTuple):
    """What the log says of a request itself: the ``client``'s address, ``method`` and raw ``path``, without spaces."""

    client: str
    method: str
    path: str


class _Formatter(logging.Formatter):
    """What both forms share: the time, and where an exception was raised, but not its text, which may quote content."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, form: str | None = None) -> None:
        self._second = (-1, "")
        super().__init__(form)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time of ``record`` in UTC; formats each second only once."""
        second, text = self._second
        if int(record.created) != second:
            second, text = int(record.created), time.strftime(self.default_time_format, time.gmtime(record.created))
            self._second = second, text
        return self.default_msec_format % (text, record.msecs)


class LineFormatter(_Formatter):
    """Time, level and message; escapes control characters, so that nobody can forge a line.

    A bar marks the lines of a traceback, so that none of them can look like the start of an event.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``, without control characters."""
        request_id = getattr(record, "request", None)
        line = super().formatMessage(record) + (f" request={request_id}" if request_id else "")
        return escape(shortened(line))

    def formatException(self, ei: "_ExcInfo") -> str:
        """Return where the exception ``ei`` was raised, and its class."""
        return "\n".join(f"    | {escape(line)}" for line in _places(ei))


class JsonFormatter(_Formatter):
    """One object a line: time, level, logger, message, perhaps request, then the fields of a request by name."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``: ASCII, whatever it holds."""
        line: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shortened(getattr(record, "short", None) or record.getMessage()),
        }
        if request_id := getattr(record, "request", None):
            line["request"] = request_id
        for name, value in getattr(record, "fields", {}).items():
            line[name] = shortened(value) if isinstance(value, str) else value
        if record.exc_info:
            line["trace"] = _places(record.exc_info)
        return json.dumps(line, separators=(",", ":")).replace("\x7f", "\\u007f")


_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def _places(ei: _ExcInfo) -> list[str]:
    kind = ei[0].__name__ if ei[0] else ""
    return [*"".join(traceback.format_tb(ei[2])).splitlines(), kind]


def shortened(text: str) -> str:
    """Return ``text`` with every word cut short that is as long as a part of a token or key."""
    return _LONG.sub(r"\1...", text)


def escape(text: str) -> str:
    """Return ``text`` with all but printable ASCII, and the "…" of our messages, written as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if (c.isprintable() and c.isascii()) or c == _ELLIPSIS else c.encode("unicode_escape").decode() for c in text
    )


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines. Of a line that cannot be formatted it logs the place: logging itself would print its parts."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Log that ``record`` could not be written, if that is possible at all."""
        kind = sys.exc_info()[0]
        place = f"{record.filename}:{record.lineno}: {kind.__name__ if kind else ''}"
        report = logging.LogRecord(record.name, logging.ERROR, "", 0, f"{_LOST} at {place}", (), None)
        with contextlib.suppress(Exception):  # the disk under standard error may be full
            self.stream.write(self.format(report) + self.terminator)
            self.flush()


def is_json(form: str) -> bool:
    """Tell whether STORAGE_LOG_FORMAT ``form`` means JSON for this process."""
    return form == "json" or (form == "auto" and not (sys.stderr and sys.stderr.isatty()))  # it may be None


def configure(level: str, form: str = "text") -> None:
    """Log to standard error from ``level`` ("debug", "info", "warning" or "error"), with gunicorn's loggers.

    ``form`` is "text", "json", or "auto". Libraries log from warnings on, because at debug some log what they handle.
    Uncaught exceptions are logged too.
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
                # It logs a trace of each connection that breaks in use, although the call that had it says so.
                "sqlalchemy.pool": {"level": "CRITICAL"},
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
    count = "a line was" if dropped == 1 else f"{dropped:,} lines were"
    message = f"{count} dropped here: standard error was not read, full or closed"
    record = logging.LogRecord(log.name, logging.WARNING, "", 0, message, (), None)
    return f"{logging.getLogger().handlers[0].format(record)}\n".encode()


def _on_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("ended by an exception", exc_info=(kind, error, trace))


def _on_unraisable(args: "sys.UnraisableHookArgs") -> None:
    _log_failure("an exception that nobody could handle", args.exc_type, args.exc_value, args.exc_traceback)


def _on_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        _log_failure("a thread ended", args.exc_type, args.exc_value, args.exc_traceback)


def _log_failure(
    message: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    log.error(message, exc_info=(kind, error, trace))  # type: ignore[arg-type]  # our formatters need no error


def _on_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del message, file, line  # its text and its source may quote anything
    log.warning("%s at %s:%d", category.__name__, filename, lineno)


def warn(lines: Iterable[str]) -> None:
    """Log each of ``lines``: what was found at the start and does not stop it."""
    for line in lines:
        log.warning("%s", line)


def gunicorn_level(level: str) -> str:
    """Return the level at which gunicorn may log: at debug it would log what it received, with all headers."""
    return "info" if level == "debug" else level


def log_request(line: RequestLine, trace: Trace, status: int) -> None:
    """Log the request of ``trace``, answered with ``status``: who, what, seconds in each stage, why refused."""
    effect = trace.effect
    conflict = effect is not None and effect.jti_was == "conflicting"
    level = logging.WARNING if conflict else logging.INFO
    if not log.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "client": line.client,
        "method": line.method[:16],
        "path": line.path[:_LONGEST],
        "call": trace.call,
        "tenant": trace.tenant,
        "status": status,
        "ms": round(1000 * trace.seconds(), 1),
        "rooms": {stage: round(1000 * seconds, 1) for stage, seconds in trace.stages.items()},
    }
    if effect:
        fields |= {"stored": effect.stored, "ignored": effect.ignored, "jti": effect.jti_was}
    if trace.cause:
        fields |= {"reason": trace.reason, "cause": trace.cause}
    # Made by hand: logging would look for the caller's file and line, which takes long, and nobody sees them.
    extra = {"request": trace.request_id, "fields": fields, "short": f"{trace.call} {status}"}
    log.handle(log.makeRecord(log.name, level, "", 0, _RequestText(fields), (), None, extra=extra))


class _RequestText:
    """The ``fields`` of a request in one line of text, made only if a formatter asks for it; JSON has the fields."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def __str__(self) -> str:
        fields = self.fields
        line = f"{fields['client']} {fields['method']} {fields['path']} {fields['status']} {fields['ms']}ms"
        line += "".join(f" {stage}={ms}" for stage, ms in fields["rooms"].items())
        if "jti" in fields:
            line += f" stored={fields['stored']} ignored={fields['ignored']} jti={fields['jti']}"
        return line + (f" reason={fields['reason']} cause={fields['cause']!r}" if "cause" in fields else "")
