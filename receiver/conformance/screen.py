"""Shows progress while the checks run: a table that is redrawn on a terminal, plain lines elsewhere."""

from collections.abc import Sequence

import click

from receiver.conformance import peer
from receiver.conformance.registry import Check
from receiver.conformance.run import FAIL, PASS, UNDECIDED, Report, Result

_COLOURS = {PASS: "green", FAIL: "red", UNDECIDED: "yellow"}
_WIDTH = 24


class Lines:
    """One line for each check, for logs and pipes."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.width = max(len(check.id) for check in checks)

    def __call__(self, check: Check, result: Result | None) -> None:
        """Print the result of ``check`` once it has run."""
        if result:
            why = f"  {result.came}" if result.verdict != PASS else ""
            why += f" ({peer.remark(result.peer)})" if result.peer else ""
            click.echo(f"{result.verdict:11}  {check.id:{self.width}}  {1000 * result.seconds:6.0f} ms{why}")

    def close(self) -> None:
        """Do nothing: there is nothing to finish."""


class Table:
    """A table of the groups that is redrawn in place."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.of: dict[str, int] = {}
        for check in checks:
            self.of[check.group] = self.of.get(check.group, 0) + 1
        self.seen: dict[str, list[Result]] = {group: [] for group in self.of}
        self.drawn = 0
        self.now = ""

    def __call__(self, check: Check, result: Result | None) -> None:
        """Take in the result of ``check``, or None when it begins, and redraw."""
        self.now = "" if result else check.id
        if result:
            self.seen[check.group].append(result)
        self._draw()

    def _draw(self) -> None:
        lines = [
            click.style(f"{'group':14}{'':{_WIDTH}}  {'pass':>5}{'fail':>6}{'?':>4}{'of':>6}{'time':>9}", bold=True)
        ]
        lines += [self._line(group, some) for group, some in self.seen.items()]
        lines.append(click.style(f"  {self.now}"[:78], dim=True))
        if self.drawn:
            click.echo(f"\x1b[{self.drawn}A", nl=False)
        for line in lines:
            click.echo(f"\x1b[2K{line}")
        self.drawn = len(lines)

    def _line(self, group: str, some: list[Result]) -> str:
        counts = {verdict: sum(result.verdict == verdict for result in some) for verdict in _COLOURS}
        bar, drawn = "", 0
        for done, (verdict, colour) in zip(_ends(counts, self.of[group]), _COLOURS.items(), strict=True):
            if counts[verdict]:
                bar += click.style("█" * max(0, done - drawn), fg=colour)
                drawn = max(drawn, done)
        bar += click.style("░" * (_WIDTH - drawn), dim=True)
        numbers = "".join(
            click.style(f"{counts[verdict] or '':>{size}}", fg=colour)
            for (verdict, colour), size in zip(_COLOURS.items(), (7, 6, 4), strict=True)
        )
        seconds = sum(result.seconds for result in some)
        return f"{group:14}{bar}{numbers}{self.of[group]:>6}{seconds:>7.1f} s"

    def close(self) -> None:
        """Draw the final table."""
        self.now = ""
        self._draw()


def _ends(counts: dict[str, int], of: int) -> list[int]:
    ends, total = [], 0
    for count in counts.values():
        total += count
        ends.append(round(_WIDTH * total / of))
    return ends


def _warning(report: Report) -> list[str]:
    return [click.style(report.warning, fg="yellow", bold=True), ""] if report.warning else []


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def summary(report: Report) -> str:
    """Return the final summary: each failure with what was expected and what came, then the verdict."""
    lines = ["", *_warning(report)]
    for result in report.results:
        if result.verdict != PASS:
            head = click.style(f"{result.verdict}: {result.check.id}", fg=_COLOURS[result.verdict], bold=True)
            lines += [head, f"  {result.check.sentence} ({result.check.level}; {result.check.source})"]
            lines += [f"  expected {result.expected}"] if result.expected else []
            lines += [f"  {'because ' if result.verdict == UNDECIDED else 'but '}{result.came}"]
            lines += [f"  ({peer.remark(result.peer)})", ""] if result.peer else [""]
    counts = ", ".join(f"{report.count(verdict)} {verdict}" for verdict in _COLOURS)
    checks, requests = _counted(len(report.results), "check"), _counted(report.requests(), "request")
    lines.append(f"{checks} in {report.seconds:.1f} s with {requests}: {counts}.")
    if known := report.like_the_peer():
        lines.append(f"{known} of the {report.count(FAIL)} failures also occur with the Java service.")
    if left := report.left.message():
        lines.append(left)
    verdict = "conforms" if report.conforms else "does not conform"
    level = "both levels" if report.level == "all" else f"level {report.level}"
    lines.append(click.style(f"{report.url} {verdict} ({level}).", fg="green" if report.conforms else "red", bold=True))
    if report.count(UNDECIDED):
        lines.append("A check that is not decided has not passed.")
    return "\n".join(lines)
