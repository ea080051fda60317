"""Asking the person at the terminal, where there is one."""

import sys

import click


def confirm(question: str) -> None:
    """Return when ``question`` is answered with yes; raises click.Abort, or UsageError where nobody can be asked."""
    if sys.stdin is None or sys.stdin.closed:
        raise click.UsageError("nobody can be asked here; give --yes")
    click.confirm(question, abort=True, err=True)
