"""``receiver store``: look after what is stored."""

import time

import click

from receiver import app, stores


@click.group()
def store() -> None:
    """Look after the stored states."""


@store.command()
def purge() -> None:
    """Delete the states whose expiresAt has passed. Safe while the receiver runs."""
    settings, _ = app.configure()
    opened = stores.open_store(settings.place, settings.store_timeout, create=False)
    try:
        click.echo(f"{opened.purge(time.time_ns())} expired states deleted")
    finally:
        opened.close()
