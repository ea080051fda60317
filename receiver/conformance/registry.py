"""What a check is, and the one table of them. A module of ``checks`` declares its own by the decorator ``check``."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from receiver.conformance import peer
from receiver.conformance.trial import Trial

Run = Callable[[Trial], None]

LEVELS = {
    "must": "what the platform relies on",
    "should": "what a careful receiver does beyond",
}


@dataclass(frozen=True)
class Check:
    """One check: its stable ``id`` ("group.name"), ``level``, what and why in one ``sentence``, and its ``source``."""

    id: str
    level: str
    sentence: str
    source: str
    run: Run

    @property
    def group(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]


CHECKS: dict[str, Check] = {}


def check(id: str, level: str, sentence: str, source: str) -> Callable[[Run], Run]:
    """Return a decorator that declares a function of a Trial as the check ``id``; raises ValueError for a mistake."""
    if level not in LEVELS or id in CHECKS or "." not in id:
        raise ValueError(f"{id} at level {level} cannot be declared")

    def declare(function: Run) -> Run:
        CHECKS[id] = Check(id, level, sentence, source, function)
        return function

    return declare


def chosen(level: str = "all", only: Sequence[str] = ()) -> list[Check]:
    """Return the checks of ``level`` (must, should or all) that ``only`` names: ids, groups or patterns; all if empty.

    Raises KeyError with a name that names none.
    """
    for name in only:
        if not any(_named(check, name) for check in CHECKS.values()):
            raise KeyError(name)
    return [
        check
        for check in CHECKS.values()
        if level in ("all", check.level) and (not only or any(_named(check, name) for name in only))
    ]


def _named(check: Check, name: str) -> bool:
    return name == check.group or fnmatch.fnmatchcase(check.id, name)


def markdown_table() -> str:
    """Return the table of all checks as CHECKS.md holds it."""
    counts = ", ".join(f"{len(chosen(level))} {level}" for level in LEVELS)
    lines = [
        "# What `receiver conformance` checks",
        "",
        "Made by `receiver conformance --markdown`. **must** is what the platform relies on and the Java "
        "implementation does too, **should** is what a careful receiver does beyond. Checks of level must compare "
        "contents as JSON values and times by whole seconds: more does not come through every database of the Java "
        'implementation. A source such as A17 is a row of the manual\'s table of cases; "protocol, section 3.2" is a '
        "section of its page on the wire protocol.",
        f"{len(CHECKS)} checks: {counts}.",
        "",
        "| check | level | what and why | source |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{one.id}` | {one.level} | {one.sentence} | {one.source} |" for one in CHECKS.values()]
    lines += [
        "",
        "## Known deviations of the Java service",
        "",
        "Where a check of level should fails in just one of these ways, the report says that the Java service does "
        "this too.",
        "",
    ]
    return "\n".join(lines) + "\n" + peer.markdown_table()
