"""How far a long work is: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click

from receiver.commands.tables import counted

_SECONDS_BETWEEN_LINES = 5.0


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield what is called for each state: it moves a bar on a terminal, and writes a line now and then elsewhere."""
    if sys.stderr and sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr, update_min_steps=100) as bar:
            yield lambda: bar.update(1)
        return
    done, said = 0, time.monotonic()

    def step() -> None:
        nonlocal done, said
        done += 1
        if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            click.echo(f"{label}: {done:,} of {counted(total, 'state')}", err=True)

    yield step
    click.echo(f"{label}: {counted(done, 'state')}", err=True)
