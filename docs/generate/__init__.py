"""The generated parts of the reference pages: each made from the code that it describes.

A page of docs/reference, and the one on reliability, is written by hand, but for what stands between
``<!-- generated: NAME -->`` and ``<!-- end -->``. ``python -m docs.generate`` writes these parts anew; with
``--check`` it only says which are old.
"""

import re
from pathlib import Path

from docs.generate import api, commands, conformance, errors, faults, logs, metrics, settings

REFERENCE = Path(__file__).parents[1] / "reference"
_ELSEWHERE = ("explanation/reliability.md",)
PARTS = {
    "settings": settings.tables,
    "commands": commands.pages,
    "metrics of requests": metrics.of_requests,
    "metrics of the receiver": metrics.of_the_receiver,
    "log fields": logs.fields,
    "log events": logs.events,
    "errors": errors.problems_table,
    "reasons": errors.reasons_table,
    "calls": api.calls,
    "tokens and claims": api.schemas,
    "error replies": api.error_replies,
    "checks": conformance.checks,
    "faults": faults.sections,
    "faults in short": faults.totals,
}
_PART = re.compile(r"(?P<begin><!-- generated: (?P<name>[\w ]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Return the pages that have generated parts, or may have."""
    return [*sorted(REFERENCE.glob("*.md")), *(REFERENCE.parent / name for name in _ELSEWHERE)]


def renewed(text: str) -> str:
    """Return the page ``text`` with its generated parts as they should be."""
    return _PART.sub(lambda part: f"{part['begin']}\n{PARTS[part['name']]().strip()}\n\n{part['end']}", text)


def names_in(text: str) -> list[str]:
    """Return the names of the generated parts of the page ``text``."""
    return [part["name"] for part in _PART.finditer(text)]
