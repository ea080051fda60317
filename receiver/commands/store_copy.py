"""``receiver store copy``: any store into any other."""

import contextlib
import json
import sys
from dataclasses import replace
from uuid import UUID

import click

from receiver import bootstrap, files
from receiver.commands.progress import progress
from receiver.commands.tables import fitted
from receiver.conformance.printable import visible
from receiver.stores import copying
from receiver.stores.contract import OnDamage, Store
from receiver.stores.urls.store_url import StoreURL, parse


class StoreUrl(click.ParamType):
    """The URL of a store, or @FILE that holds it → StoreURL. The list of processes shows what is typed here."""

    name = "url"

    def convert(self, value, param, ctx):
        """Return the StoreURL of ``value``, or fail as click does, without repeating it."""
        if isinstance(value, StoreURL):
            return value
        try:
            return parse(files.read_text(value[1:]).strip() if value.startswith("@") else value)
        except ValueError as cause:
            return self.fail(str(cause), param, ctx)


@click.command()
@click.option("--from", "source", type=StoreUrl(), help="The store to read; that of DATABASE_URL by default.")
@click.option("--to", "target", type=StoreUrl(), required=True, help="The store to fill; made where it is missing.")
@click.option("--tenant", type=click.UUID, help="UUID of the one tenant whose states are copied.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def copy(source: StoreURL | None, target: StoreURL, tenant: UUID | None, as_json: bool) -> None:
    """Copy all states into another store, and compare both to the last byte.

    The newer of two wins in the target. May be broken off and run again, and while either is in use. A URL may be
    given as @FILE, the path of a file that holds it: nobody else sees its password then.
    """
    settings, ring = bootstrap.configure_contents()
    source = source or settings.store_url
    if source.identity == target.identity:
        raise click.UsageError("--from and --to name the same store")
    with (
        contextlib.closing(
            bootstrap.open_store_at(source, replace(settings, clear_states="read"), ring, create=False)
        ) as here,
        contextlib.closing(bootstrap.open_store_at(target, settings, ring)) as there,
    ):
        here.ping()
        if tenant and next(here.summaries(str(tenant)), None) is None:
            raise click.ClickException(f"the source holds no state of the tenant {tenant}")
        there.prepare()
        damaged: dict[str, None] = {}  # each is met twice
        verdicts = _run(here, there, tenant and str(tenant), lambda damage: damaged.setdefault(visible(damage.cause)))
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
        click.echo("\nThe source went on while it was copied: run the same command again.")
