"""Asks the person at the terminal, if there is one."""

import sys

import click


def confirm(question: str) -> None:
    """Return if the answer to ``question`` is yes; raises click.Abort, or UsageError if nobody can be asked."""
    if sys.stdin is None or sys.stdin.closed:
        raise click.UsageError("there is nobody to ask; give --yes")
    click.confirm(question, abort=True, err=True)
