"""``receiver store reseal``: every content under the newest sealing key, or in the clear again."""

import contextlib
import json
import sys
from dataclasses import asdict, replace
from uuid import UUID

import click

from receiver import app
from receiver.commands.progress import progress
from receiver.keyring import Keyring
from receiver.problems import Problem
from receiver.settings import Settings
from receiver.stores import resealing
from receiver.stores.urls import Place


@click.command()
@click.option("--open", "opening", is_flag=True, help="Store what is sealed in the clear again.")
@click.option("--tenant", type=click.UUID, help="UUID of the one tenant whose states are meant.")
@click.option("--no-compact", is_flag=True, help="Let SQLite keep what free pages of its file still hold in the clear.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reseal(opening: bool, tenant: UUID | None, no_compact: bool, as_json: bool) -> None:
    """Seal every content with the newest sealing key, also what was stored in the clear.

    May be broken off and run again, and while receivers use the store: they need the new key first. With --open
    they need STORAGE_CLEAR_STATES=write first. When contents were clear, SQLite writes its file anew at the end, and
    saves wait meanwhile. Ends with 1 when a content could not be opened, or is left.
    """
    settings, ring = app.configure_contents()
    if ring.sealing.newest is None:
        raise click.UsageError("there is no sealing key: put one into STORAGE_SEALING_KEY or into STORAGE_KEYS")
    settings = replace(settings, clear_states="write" if opening else "read")
    places = {resident.place.identity: resident.place for resident in settings.residents.values()}
    rows = [_reseal(place, settings, ring, tenant and str(tenant), not no_compact) for place in places.values()]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        _report(rows)
    sys.exit(1 if any(row["damaged"] or row["left"] or "problem" in row for row in rows) else 0)


def _reseal(place: Place, settings: Settings, ring: Keyring, tenant: str | None, compact: bool) -> dict[str, object]:
    with contextlib.closing(app.open_place(place, settings, ring, create=False)) as store:
        try:
            total = sum(1 for _ in store.summaries(tenant))
            with progress("resealing", total) as step:
                done = resealing.reseal(store, tenant, step)
            if compact and done.sealed:
                click.echo("compacting", err=True)
                store.compact()
        except Problem as problem:
            return {"store": str(place), "resealed": 0, "damaged": [], "left": {}, "problem": problem.cause}
    left = {} if tenant else dict(done.left)  # those of other tenants were not asked for
    return {"store": str(place), **asdict(done), "left": left}


def _report(rows: list[dict]) -> None:
    for row in rows:
        if "problem" in row:
            click.echo(f"{row['store']}: {row['problem']}")
            continue
        now = "are in the clear" if row["key"] == "clear" else f"are sealed with {row['key']}"
        click.echo(f"{row['store']}: {row['resealed']:,} states were resealed and {now}")
        for cause in row["damaged"]:
            click.echo(f"  damaged: {cause}")
        for kid, count in row["left"].items():
            click.echo(f"  left: {count:,} states under {kid}; does a receiver still write with it? Run this again")
