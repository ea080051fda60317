"""What the doctor found: a verdict on a topic, a message and the fix, printed for people and for programs."""

import os
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click

from receiver import __version__
from receiver.telemetry.logs import escape

OK, WARN, FAIL = "ok", "warn", "fail"
_GRAVITY = {FAIL: 0, WARN: 1, OK: 2}
_SIGNS = {FAIL: ("FAIL", "red"), WARN: ("warn", "yellow"), OK: ("ok", "green")}
_MARGIN = 19  # columns before the message
_FIX = "fix: "
_LEAST, _MOST = 60, 160  # columns of a line that people read


@dataclass(frozen=True)
class Finding:
    """A ``verdict`` ("ok", "warn" or "fail") on a ``topic``, with a ``message`` and the ``fix`` for it.

    ``details`` are more lines for readers who want to know.
    """

    topic: str
    verdict: str
    message: str
    fix: str = ""
    details: tuple[str, ...] = ()


def ok(topic: str, message: str, *details: str) -> Finding:
    """Return a finding that nothing is wrong."""
    return Finding(topic, OK, message, details=details)


def warn(topic: str, message: str, fix: str, *details: str) -> Finding:
    """Return a finding of something to fix at some point."""
    return Finding(topic, WARN, message, fix, details)


def fail(topic: str, message: str, fix: str, *details: str) -> Finding:
    """Return a finding of something to fix now."""
    return Finding(topic, FAIL, message, fix, details)


def worst(findings: Iterable[Finding]) -> str:
    """Return the worst verdict of ``findings``, "ok" if there are none."""
    return min((one.verdict for one in findings), key=_GRAVITY.__getitem__, default=OK)


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Return ``findings`` topic by topic: topics with failures first, and failures first in each topic."""
    topics = list(dict.fromkeys(one.topic for one in findings))
    verdicts = {topic: worst(one for one in findings if one.topic == topic) for topic in topics}
    topics.sort(key=lambda topic: _GRAVITY[verdicts[topic]])
    return sorted(findings, key=lambda one: (topics.index(one.topic), _GRAVITY[one.verdict]))


def as_json(findings: Sequence[Finding]) -> dict[str, object]:
    """Return ``findings`` and their summary for programs; the keys are those that scripts rely on."""
    counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in (OK, WARN, FAIL)}
    summary = {"verdict": worst(findings), "counts": counts, "version": __version__}
    rows = [
        {"subject": one.topic, "verdict": one.verdict, "seen": one.message, "mend": one.fix, "details": one.details}
        for one in in_order(findings)
    ]
    return {"summary": summary, "findings": rows}


def as_text(findings: Sequence[Finding]) -> str:
    """Return ``findings`` and their summary for people, in plain ASCII whatever a server or a file name holds."""
    width = max(_LEAST, min(_MOST, shutil.get_terminal_size((120, 0)).columns))
    lines, topic = [], ""
    for one in in_order(findings):
        lines += _lines(one, one.topic if one.topic != topic else "", width)
        topic = one.topic
    return "\n".join([*lines, "", _summary(findings)])


def _lines(one: Finding, topic: str, width: int) -> list[str]:
    sign, colour = _SIGNS[one.verdict]
    indent = " " * _MARGIN
    first, *more = _wrapped(one.message, width - _MARGIN)
    lines = [f"{click.style(f'{sign:4}', colour)}  {topic:11}  {first}", *(indent + line for line in more)]
    lines += [f"{indent}  {_plain(detail)}" for detail in one.details]
    if one.fix:
        first, *more = _wrapped(one.fix, width - _MARGIN - len(_FIX))
        lines.append(f"{indent}{click.style(_FIX.strip(), bold=True)} {first}")
        lines += [indent + " " * len(_FIX) + line for line in more]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of ``text``, broken between words alone: paths and options stay whole, and can be copied."""
    return textwrap.wrap(_plain(text), width, break_on_hyphens=False, break_long_words=False) or [""]


def _plain(text: str) -> str:
    return escape(text.replace("\u2026", "..."))  # of our own messages


def _summary(findings: Sequence[Finding]) -> str:
    fails, warnings = (sum(one.verdict == verdict for one in findings) for verdict in (FAIL, WARN))
    parts = [_counted(fails, "problem")] * bool(fails) + [_counted(warnings, "warning")] * bool(warnings)
    return f"{', '.join(parts) or 'all is well'} ({_counted(len(findings), 'finding')}, receiver {__version__})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def cause_text(cause: BaseException) -> str:
    """Return what the doctor may print of ``cause``: the text of the system or of TLS, else its class alone.

    Texts of other exceptions may quote a secret.
    """
    if isinstance(cause, OSError):
        reason = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or cause.strerror
        if not reason and cause.errno:
            reason = os.strerror(cause.errno)
        where = f"{cause.filename}: " if isinstance(cause.filename, str) else ""
        return f"{where}{reason or ' '.join(map(str, cause.args)) or type(cause).__name__}"
    return type(cause).__name__
