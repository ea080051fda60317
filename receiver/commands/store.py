"""``receiver store``: look after what is stored."""

import time

import click

from receiver import app


@click.group()
def store() -> None:
    """Look after the stored states."""


@store.command()
def purge() -> None:
    """Delete the states whose expiresAt has passed. Safe while the receiver runs."""
    settings, _ = app.configure()
    opened = app.open_configured(settings, create=False)
    try:
        click.echo(f"{opened.purge(time.time_ns())} expired states deleted")
    finally:
        opened.close()
