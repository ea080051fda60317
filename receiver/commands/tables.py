"""Tables for people: as wide as the terminal, 80 columns elsewhere; whatever does not fit is folded."""

import shutil
import sys
from collections.abc import Mapping, Sequence

from tabulate import tabulate

_ELSEWHERE = 80


def columns() -> int:
    """Return how many characters fit into a line of standard output."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size((_ELSEWHERE, 24)).columns if is_terminal else _ELSEWHERE


def fitted(rows: Sequence[Mapping[str, object]], width: int | None = None) -> str:
    """Return ``rows``, whose keys are the headers, as a table; as a block of lines for each if that is too wide."""
    shown = [{name: _shown(value) for name, value in row.items()} for row in rows]
    numbers = [all(isinstance(row[name], int | None) for row in rows) for name in rows[0]] if rows else []
    align = ["right" if is_number else "left" for is_number in numbers]
    table = tabulate(shown, headers="keys", tablefmt="plain", disable_numparse=True, colalign=align)
    if max(map(len, table.splitlines()), default=0) <= (width or columns()):
        return table
    blocks = (tabulate(row.items(), tablefmt="plain", disable_numparse=True) for row in shown)
    return "\n\n".join(blocks)


def folded(rows: Sequence[Mapping[str, str]], width: int | None = None) -> str:
    """Return ``rows``, whose keys are the headers, as a table; rows that are too wide take a line for each value."""
    limit, wide = width or columns(), set[int]()
    while True:
        inside = [row for at, row in enumerate(rows) if at not in wide]
        table = tabulate(inside, headers="keys", tablefmt="plain", disable_numparse=True).splitlines()
        if not inside or max(map(len, table)) <= limit:
            break
        wide.add(max(set(range(len(rows))) - wide, key=lambda at: sum(map(len, rows[at].values()))))
    lines = iter(table[1:])
    shown = [_folded(row) if at in wide else next(lines).rstrip() for at, row in enumerate(rows)]
    return "\n".join([*(line.rstrip() for line in table[:1]), *shown])


def _folded(row: Mapping[str, str]) -> str:
    first, *others = row.items()
    return "\n".join([first[1], *(f"  {name}  {value}" for name, value in others if value)])


def counted(number: int, noun: str) -> str:
    """Return ``number`` and its ``noun``, with an s in the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _shown(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
