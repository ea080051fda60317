"""``receiver store copy``: copies any store into any other."""

import contextlib
import json
import sys
from dataclasses import replace
from uuid import UUID

import click

from receiver import bootstrap
from receiver.commands.progress import progress
from receiver.commands.store_options import json_option, parsed_url
from receiver.commands.tables import fitted
from receiver.conformance.printable import visible
from receiver.problems import StoreDamaged, StoreMisplaced
from receiver.stores import copying
from receiver.stores.contract import OnDamage, Store
from receiver.stores.urls.store_url import StoreURL


@click.command()
@click.option(
    "--from",
    "source",
    callback=parsed_url,
    metavar="URL",
    help="The store to read; that of DATABASE_URL by default.",
)
@click.option(
    "--to",
    "target",
    callback=parsed_url,
    metavar="URL",
    required=True,
    help="The store to fill; created if it does not exist.",
)
@click.option("--tenant", type=click.UUID, help="UUID of a tenant: copy only its states.")
@json_option
def copy(source: StoreURL | None, target: StoreURL, tenant: UUID | None, as_json: bool) -> None:
    """Copy all states into another store, and compare both byte by byte.

    If the target holds a newer state, that one stays. You may interrupt the copy and run it again, also while either
    store is in use. Instead of a URL, give @FILE, the path of a file that holds the URL: then other users of the
    machine cannot see its password.
    """
    settings, ring = bootstrap.configure_contents()
    source = source or settings.store_url
    if source.identity == target.identity:
        raise click.UsageError("--from and --to name the same store")
    reading = replace(settings, clear_states="read")
    with (
        contextlib.closing(bootstrap.open_store_at(source, reading, ring, create=False)) as here,
        contextlib.closing(bootstrap.open_store_at(target, settings, ring)) as there,
    ):
        here.ping()
        only = str(tenant) if tenant else None
        if only and next(here.summaries(only), None) is None:
            raise click.ClickException(f"the source holds no state of the tenant {tenant}")
        if target.path and target.identity not in {one.identity for one in settings.store_urls}:
            with contextlib.suppress(StoreMisplaced):  # it holds a store, or something else; then this changes nothing
                there.init()  # although an earlier copy, which was removed, left its marker
        there.prepare()
        damaged: dict[str, None] = {}  # in order, and once each: copying and comparing both meet it

        def note(damage: StoreDamaged) -> None:
            damaged[visible(damage.cause)] = None

        verdicts = _run(here, there, only, note)
    _report(verdicts, str(source), str(target), list(damaged), as_json)
    sys.exit(0 if all(one.is_complete for one in verdicts) and not damaged else 1)


def _run(source: Store, target: Store, tenant: str | None, on_damage: OnDamage) -> list[copying.Copied]:
    total = sum(1 for _ in source.summaries(tenant, on_damage))
    with progress("copying", total) as step:
        copied = copying.copy(source, target, tenant, step, on_damage)
    verdicts = []
    with progress("comparing", total) as step:
        for verdict in copying.compare(source, target, tenant, step, on_damage):
            verdict.copied = copied.get(verdict.tenant, 0)
            verdicts.append(verdict)
    return verdicts


def _report(verdicts: list[copying.Copied], source: str, target: str, damaged: list[str], as_json: bool) -> None:
    rows = [
        {
            "tenant": one.tenant,
            "states": one.states,
            "copied": one.copied,
            "newerThere": one.newer,
            "onlyThere": one.only,
            "behind": one.behind,
            "differing": one.differing,
            "digest": one.source.hexdigest() if as_json else one.source.hexdigest()[:16],
            "digestThere": one.target.hexdigest() if as_json else one.target.hexdigest()[:16],
            "verdict": "complete" if one.is_complete else "NOT COMPLETE",
        }
        for one in verdicts
    ]
    if as_json:
        click.echo(json.dumps({"from": source, "to": target, "tenants": rows, "damaged": damaged}, indent=1))
        return
    click.echo(f"from  {source}\nto    {target}\n")
    click.echo(fitted(rows) if rows else "there are no states")
    for cause in damaged:
        click.echo(f"\nNOT COPIED, damaged: {cause}")
    if any(one.behind for one in verdicts):
        click.echo("\nThe source changed while it was copied: run the same command again.")
