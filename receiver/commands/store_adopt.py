"""``receiver store adopt``: take over the database that the Java service filled."""

import json

import click

from receiver import app
from receiver.commands.asking import confirm
from receiver.commands.store_copy import StoreUrl
from receiver.commands.tables import counted
from receiver.stores.urls import Place


@click.command()
@click.option("--url", type=StoreUrl(), help="The database, if not that of DATABASE_URL; @FILE reads it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def adopt(url: Place | None, yes: bool, only_plan: bool, as_json: bool) -> None:
    """Take over the states table that the Java service made in a database.

    Shows the statements that it will run and those of the way back, then asks. Stop the Java service and make a
    backup first.
    """
    settings = app.configure_stores()
    place = url or settings.place
    if place.path:
        raise click.ClickException(f"{place}: the Java service kept its states in a database server")
    from receiver.stores.sql import adoption  # noqa: PLC0415 - an extra, which only servers need

    engine = adoption.open_engine(place, settings.store_timeout)
    try:
        found = adoption.plan(engine, place)
        if as_json:
            click.echo(json.dumps(adoption.summary_of(found, place), indent=1))
        else:
            _show(found, place)
        if only_plan:
            return
        if not yes:
            confirm("Is the Java service stopped, and is there a backup? Adopt")
        adoption.adopt(engine, place, found)
    finally:
        engine.dispose()
    click.echo(f"{counted(found.states, 'state')} adopted; `receiver serve` answers them now", err=as_json)


def _show(found, place: Place) -> None:
    click.echo(
        f"{place}\n\nThe states table of the Java service holds {counted(found.states, 'state')}. To adopt it:\n"
    )
    for statement in found.forth:
        click.echo(f"    {statement};")
    in_place = "in one transaction" if place.kind != "mysql" else "step by step; the states stay as states_java"
    click.echo(f"\nThat is done {in_place}; then the receiver's own tables are added. To go back, later:\n")
    for statement in found.back:
        click.echo(f"    {statement};")
    click.echo("")
