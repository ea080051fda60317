"""``receiver store adopt``: takes over the database of the Java service."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from receiver import bootstrap
from receiver.commands.asking import confirm
from receiver.commands.store_options import parsed_url
from receiver.commands.tables import counted
from receiver.stores.urls.store_url import StoreURL
from receiver.telemetry import logs

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from receiver.stores.sql.adoption import Plan


@click.command()
@click.option(
    "--url", callback=parsed_url, metavar="URL", help="The database, if not that of DATABASE_URL; @FILE reads it."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--check-back", is_flag=True, help="After the adoption: find the states that would prevent going back.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan, or what --check-back found, as JSON.")
def adopt(url: StoreURL | None, yes: bool, only_plan: bool, check_back: bool, as_json: bool) -> None:
    """Take over the states table of the Java service in a database.

    Shows the statements that it will run and those for going back, then asks. Stop the Java service and make a
    backup first. Exit status 1 if states prevent the adoption, or with --check-back the way back; it names them.
    """
    if check_back and (yes or only_plan):
        raise click.UsageError("--check-back cannot be combined with --plan or --yes")
    settings = bootstrap.configure_stores()
    store_url = url or settings.store_url
    if store_url.path:
        raise click.ClickException(f"{store_url}: the Java service stores its states in a database server")
    from receiver.stores.sql import adoption  # noqa: PLC0415 - an extra that only servers need

    engine = adoption.open_engine(store_url, settings.store_timeout)
    try:
        if check_back:
            sys.exit(_check_back(engine, store_url, as_json))
        found = adoption.plan(engine, store_url)
        if as_json:
            click.echo(json.dumps(adoption.summary_of(found, store_url), indent=1))
        else:
            _show(found, store_url)
        if found.obstacles:
            _print_obstacles(found)
            sys.exit(1)
        if only_plan:
            return
        if not yes:
            confirm("Is the Java service stopped, and is there a backup? Adopt")
        adoption.adopt(engine, store_url, found)
    finally:
        engine.dispose()
    click.echo(f"{counted(found.states, 'state')} adopted; `receiver serve` answers them now", err=as_json)


def _show(found: "Plan", store_url: StoreURL) -> None:
    click.echo(
        f"{store_url}\n\nThe states table of the Java service holds {counted(found.states, 'state')}. To adopt it:\n"
    )
    _print_statements(found.upgrade)
    in_place = "in one transaction" if store_url.kind != "mysql" else "step by step; the states stay as states_java"
    click.echo(f"\nThis is done {in_place}; then the receiver adds its own tables. To go back later:\n")
    _print_statements(found.downgrade)
    click.echo(
        "\nBefore you go back, find the states that would prevent it, with `receiver store adopt --check-back` or:\n"
    )
    _print_statements(found.check_downgrade)
    click.echo("")


def _print_statements(statements: list[str]) -> None:
    for statement in statements:
        click.echo(f"    {statement};")


def _print_obstacles(found: "Plan") -> None:
    obstacles = "1 obstacle prevents" if len(found.obstacles) == 1 else f"{len(found.obstacles)} obstacles prevent"
    click.echo(f"receiver: {obstacles} the adoption; nothing was changed", err=True)
    for line in (line for obstacle in found.obstacles for line in obstacle.lines()):
        click.echo(logs.escape(line), err=True)  # an id that is not a UUID may hold anything


def _check_back(engine: "Engine", store_url: StoreURL, as_json: bool) -> int:
    """Print which states prevent going back; return the exit status."""
    from receiver.stores.sql import way_back  # noqa: PLC0415 - see adopt

    questions = way_back.questions_of(engine, store_url)
    found = way_back.check(engine, store_url, questions)
    if as_json:
        stoppers = [asdict(one) | {"states": [f"{tenant} {state}" for tenant, state in one.states]} for one in found]
        click.echo(json.dumps({"store": str(store_url), "stoppers": stoppers, "query": questions}, indent=1))
        return 1 if found else 0
    if not found:
        click.echo("nothing prevents going back")
        return 0
    for one in found:
        click.echo(f"{logs.escape(one.reason)}: {one.count:,} {'state' if one.count == 1 else 'states'}")
        for tenant, state in one.states:
            click.echo(f"    {tenant} {state}")
        if one.count > len(one.states):
            click.echo(f"    and {one.count - len(one.states):,} more")
        click.echo(f"    fix: {one.fix}")
    click.echo("\nAll of them:\n")
    _print_statements(questions)
    return 1
