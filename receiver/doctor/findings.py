"""What the doctor found: a verdict on a subject, what was seen, and what mends it; for people and for programs."""

import os
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import click

from receiver import __version__
from receiver.telemetry.logs import escape

OK, WARN, FAIL = "ok", "warn", "fail"
_GRAVITY = {FAIL: 0, WARN: 1, OK: 2}
_SIGNS = {FAIL: ("FAIL", "red"), WARN: ("warn", "yellow"), OK: ("ok", "green")}
_MARGIN = 19  # columns before what was seen
_LEAST, _MOST = 60, 160  # columns of a line that people read


@dataclass(frozen=True)
class Finding:
    """A ``verdict`` ("ok", "warn" or "fail") on a ``subject``: what was ``seen``, and what would ``mend`` it.

    ``details`` are more lines for who wants to know.
    """

    subject: str
    verdict: str
    seen: str
    mend: str = ""
    details: tuple[str, ...] = ()


def ok(subject: str, seen: str, *details: str) -> Finding:
    """Return that all is well, as ``seen``."""
    return Finding(subject, OK, seen, details=details)


def warn(subject: str, seen: str, mend: str, *details: str) -> Finding:
    """Return what ought to be mended some day."""
    return Finding(subject, WARN, seen, mend, details)


def fail(subject: str, seen: str, mend: str, *details: str) -> Finding:
    """Return what must be mended."""
    return Finding(subject, FAIL, seen, mend, details)


def gravest(findings: Iterable[Finding]) -> str:
    """Return the worst verdict of ``findings``, "ok" when there is none."""
    return min((one.verdict for one in findings), key=_GRAVITY.__getitem__, default=OK)


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Return ``findings`` subject by subject, the subjects with failures first, and the failures first in each."""
    subjects = list(dict.fromkeys(one.subject for one in findings))
    worst = {subject: gravest(one for one in findings if one.subject == subject) for subject in subjects}
    subjects.sort(key=lambda subject: _GRAVITY[worst[subject]])
    return sorted(findings, key=lambda one: (subjects.index(one.subject), _GRAVITY[one.verdict]))


def as_json(findings: Sequence[Finding]) -> dict[str, object]:
    """Return ``findings`` and what they come to, for programs."""
    counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in (OK, WARN, FAIL)}
    summary = {"verdict": gravest(findings), "counts": counts, "version": __version__}
    return {"summary": summary, "findings": [asdict(one) for one in in_order(findings)]}


def as_text(findings: Sequence[Finding]) -> str:
    """Return ``findings`` and what they come to, for people: plain ASCII, whatever a server or a file name said."""
    width = max(_LEAST, min(_MOST, shutil.get_terminal_size((120, 0)).columns))
    lines, said = [], ""
    for one in in_order(findings):
        lines += _lines(one, one.subject if one.subject != said else "", width)
        said = one.subject
    return "\n".join([*lines, "", _summary(findings)])


def _lines(one: Finding, subject: str, width: int) -> list[str]:
    sign, colour = _SIGNS[one.verdict]
    first, *more = textwrap.wrap(_plain(one.seen), width - _MARGIN, break_on_hyphens=False) or [""]
    indent = " " * _MARGIN
    lines = [f"{click.style(f'{sign:4}', colour)}  {subject:11}  {first}", *(indent + line for line in more)]
    lines += [f"{indent}  {_plain(detail)}" for detail in one.details]
    if one.mend:  # never broken: it is to be copied
        lines.append(f"{indent}{click.style('mend:', bold=True)} {_plain(one.mend)}")
    return lines


def _plain(text: str) -> str:
    return escape(text.replace("\u2026", "..."))  # of our own messages


def _summary(findings: Sequence[Finding]) -> str:
    fails, warnings = (sum(one.verdict == verdict for one in findings) for verdict in (FAIL, WARN))
    told = [f"{fails} to be mended"] * bool(fails) + [f"{warnings} to be thought of"] * bool(warnings)
    return f"{', '.join(told) or 'all is well'} ({len(findings)} findings, receiver {__version__})"


def told_cause(cause: BaseException) -> str:
    """Return what the doctor may say of ``cause``: what the system or TLS said, else the kind alone.

    Texts of other exceptions may quote a secret.
    """
    if isinstance(cause, OSError):
        reason = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or cause.strerror
        if not reason and cause.errno:
            reason = os.strerror(cause.errno)
        where = f"{cause.filename}: " if isinstance(cause.filename, str) else ""
        return f"{where}{reason or ' '.join(map(str, cause.args)) or type(cause).__name__}"
    return type(cause).__name__
