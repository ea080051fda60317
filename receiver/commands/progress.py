"""The progress of a long operation: a bar on a terminal, a line every few seconds elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click

from receiver.commands.tables import counted

_SECONDS_BETWEEN_LINES = 5.0


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call for each state: it moves the bar, or writes a line every few seconds."""
    if sys.stderr and sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr, update_min_steps=100) as bar:
            yield lambda: bar.update(1)
        return
    done, printed = 0, time.monotonic()

    def step() -> None:
        nonlocal done, printed
        done += 1
        if time.monotonic() - printed > _SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            click.echo(f"{label}: {done:,} of {counted(total, 'state')}", err=True)

    yield step
    click.echo(f"{label}: {counted(done, 'state')}", err=True)
