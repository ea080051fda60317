"""``receiver store``: looks after the stored states. The store is that of the settings, or of ``--url``."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator
from uuid import UUID

import click
from tabulate import tabulate

from receiver import bootstrap
from receiver.commands.asking import confirm
from receiver.commands.store_adopt import adopt
from receiver.commands.store_copy import copy
from receiver.commands.store_identity import accept, init, show_id
from receiver.commands.store_options import json_option, parsed_url, tenant_option
from receiver.commands.store_reseal import reseal
from receiver.commands.tables import columns, counted, fitted
from receiver.conformance.printable import visible
from receiver.keys.keyring import Keyring
from receiver.problems import Problem
from receiver.settings import Settings
from receiver.states import Instant, Summary, metadata_of
from receiver.stores import open_store
from receiver.stores.contract import Store
from receiver.stores.tally import tallies
from receiver.stores.urls.store_url import StoreURL

_NOTHING = "there are no states"
Row = dict[str, object]  # as JSON shows it
_DELETED_AT_ONCE = 5000  # each within STORAGE_STORE_TIMEOUT
_url = click.option(
    "--url", callback=parsed_url, metavar="URL", help="URL of another store than that of the settings; @FILE reads it."
)


@click.group()
def store() -> None:
    """Look after the stored states."""


store.add_command(copy)
store.add_command(adopt)
store.add_command(reseal)
store.add_command(show_id)
store.add_command(init)
store.add_command(accept)


@contextlib.contextmanager
def _opened(store_url: StoreURL | None, contents: bool = False) -> Iterator[Store]:
    """Yield the store at ``store_url``, or that of the settings; reads the sealing keys only for ``contents``."""
    settings, ring = bootstrap.configure_contents() if contents else (bootstrap.configure_stores(), Keyring())
    opened = (
        bootstrap.open_store_at(store_url, settings, ring, create=False)
        if store_url
        else bootstrap.open_configured(settings, ring, lambda _url: False)
    )
    with contextlib.closing(opened):
        yield opened


@store.command()
@json_option
def purge(as_json: bool) -> None:
    """Delete the states whose expiresAt has passed. You may run it while the receiver runs."""
    with _opened(None) as opened:
        count = opened.purge(time.time_ns())
    click.echo(json.dumps({"deleted": count}) if as_json else f"{counted(count, 'expired state')} deleted")


@store.command()
@tenant_option
@_url
@json_option
def stats(tenant: UUID | None, url: StoreURL | None, as_json: bool) -> None:
    """Show for each tenant: states, bytes, expired states, oldest and newest updatedAt.

    Content bytes are what the platform sent; they are not known for a tenant with sealed states. Stored bytes are what
    the contents take in the store.
    """
    with _opened(url) as opened:
        found = list(tallies(opened, time.time_ns(), str(tenant) if tenant else None))
    names = {"content_bytes": "contentBytes", "stored_bytes": "storedBytes"}
    shown = [dataclasses.asdict(one) | {"tenant": visible(one.tenant)} for one in found]
    rows = [{names.get(name, name): value for name, value in one.items()} for one in shown]
    click.echo(json.dumps(rows, indent=1) if as_json else fitted(rows) if rows else _NOTHING)


@store.command("list")
@click.argument("tenant", type=click.UUID)
@_url
@json_option
def list_states(tenant: UUID, url: StoreURL | None, as_json: bool) -> None:
    """List the states of TENANT: id, updatedAt, expiresAt, bytes of content and as stored."""
    with _opened(url) as opened:
        found = opened.summaries(str(tenant))
        _print_array(map(_listed, found)) if as_json else _print_lines(found)


def _listed(one: Summary) -> dict[str, object]:
    expires = one.expires_at.text if one.expires_at else None
    content = None if one.sealing_key else one.size
    sizes = {"contentBytes": content, "storedBytes": one.size}
    return {"id": visible(one.id), "updatedAt": one.updated_at.text, "expiresAt": expires, **sizes}


def _print_array(rows: Iterable[dict[str, object]]) -> None:
    """Print a JSON array as the rows come, one item a line: there may be a million."""
    before = "[\n"
    for row in rows:
        click.echo(before + json.dumps(row), nl=False)
        before = ",\n"
    click.echo("[]" if before == "[\n" else "\n]")


_NARROW, _WIDE = "{:<36}  {:<19}  {:<10}  {:>9}", "{:<36}  {:<35}  {:<35}  {:>13}  {:>12}"


def _print_lines(found: Iterable[Summary]) -> None:
    """Print a line for each as they come; on narrow terminals, times to the second and stored bytes only."""
    headers = "id", "updatedAt", "expiresAt", "contentBytes", "storedBytes"
    is_wide = columns() >= len(_WIDE.format(*headers))
    first = _WIDE.format(*headers) if is_wide else _NARROW.format("id", "updated (UTC)", "expires", "stored B")
    for one in found:
        if first:
            click.echo(first)
            first = ""
        if is_wide:
            name, updated, expires, *sizes = _listed(one).values()
            click.echo(_WIDE.format(name, updated, expires or "-", *("-" if n is None else f"{n:,}" for n in sizes)))
        else:
            expires = _utc(one.expires_at)[:10] if one.expires_at else "-"
            click.echo(_NARROW.format(visible(one.id), _utc(one.updated_at), expires, f"{one.size:,}"))
    if first:
        click.echo(_NOTHING)


def _utc(instant: Instant) -> str:
    moment = time.gmtime(instant.nanoseconds // 1_000_000_000)
    return f"{moment.tm_year:04}-{time.strftime('%m-%d %H:%M:%S', moment)}"


@store.command()
@click.argument("tenant", type=click.UUID)
@click.argument("state_id", metavar="ID", type=click.UUID)
@click.option("--content", "with_content", is_flag=True, help="Show the content too; it may be personal data.")
@_url
@json_option
def show(tenant: UUID, state_id: UUID, with_content: bool, url: StoreURL | None, as_json: bool) -> None:
    """Show the state ID of TENANT: its times, user, flow and sizes."""
    with _opened(url, contents=True) as opened:
        state = opened.find(str(tenant), str(state_id))
    if state is None:
        raise click.ClickException("there is no such state")
    content = state.content.text
    fields = metadata_of(state) | {"contentBytes": len(content.encode("utf-8"))}
    if as_json:
        click.echo(json.dumps(fields | ({"content": content} if with_content else {}), indent=1))
        return
    click.echo(tabulate(fields.items(), tablefmt="plain", disable_numparse=True))
    if with_content:
        click.echo("")
        # Bytes go unescaped to a file or a program, never to a terminal, which would obey them.
        click.echo(content if sys.stdout.isatty() else content.encode("utf-8"))


@store.command()
@click.argument("tenant", type=click.UUID)
@click.argument("ids", type=click.UUID, nargs=-1)
@click.option("--all", "all_of_it", is_flag=True, help="All states of TENANT.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_url
@json_option
def delete(
    tenant: UUID, ids: tuple[UUID, ...], all_of_it: bool, yes: bool, url: StoreURL | None, as_json: bool
) -> None:
    """Delete the states IDS of TENANT, or all of them.

    Like the platform's DELETE, it succeeds if a state does not exist; standard error says how many did not.
    """
    if bool(ids) == all_of_it:
        raise click.UsageError("name the ids, or give --all")
    with _opened(url) as opened:
        named = list(dict.fromkeys(map(str, ids)))
        doomed = named or [summary.id for summary in opened.summaries(str(tenant))]
        if not yes:
            confirm(f"Delete {counted(len(doomed), 'state')} of {tenant} for good?")
        parts = [doomed[start : start + _DELETED_AT_ONCE] for start in range(0, len(doomed), _DELETED_AT_ONCE)]
        count = sum(opened.delete(str(tenant), part, None).stored for part in parts)
    click.echo(json.dumps({"deleted": count}) if as_json else f"{counted(count, 'state')} deleted")
    if missing := max(0, len(named) - count):
        click.echo(f"{counted(missing, 'state')} {'was' if missing == 1 else 'were'} not there", err=True)


@store.command()
@json_option
def residency(as_json: bool) -> None:
    """Print where each tenant's states are. Exit status 1 if any are in the wrong store, or a store does not answer."""
    settings = bootstrap.configure_stores()
    rows = [row for store_url in settings.store_urls for row in _residency_of(settings, store_url)]
    click.echo(json.dumps(rows, indent=1) if as_json else fitted(rows))
    sys.exit(0 if all(row["verdict"] in ("at home", "empty") for row in rows) else 1)


def _residency_of(settings: Settings, store_url: StoreURL) -> list[Row]:
    """Return a row for each tenant that has states in the store at ``store_url``, or should have."""
    tenant_stores = {
        tenant: one for tenant, one in settings.all_stores.items() if one.url.identity == store_url.identity
    }
    try:
        store_id = settings.store_id_of(store_url)
        with contextlib.closing(
            open_store(store_url, settings.store_timeout, create=False, store_id=store_id)
        ) as opened:
            found = {tally.tenant: tally for tally in tallies(opened, time.time_ns())}
    except Problem as problem:
        silent = {"states": None, "storedBytes": None, "verdict": visible(f"no answer: {problem.cause}")}
        return [
            {"tenant": tenant, "region": one.region, "store": str(store_url), **silent}
            for tenant, one in tenant_stores.items()
        ]
    rows: list[Row] = []
    tenants: list[str | None] = [*sorted({*found, *filter(None, tenant_stores)})]
    for tenant in tenants or [None]:
        tenant_store = tenant_stores.get(tenant) or tenant_stores.get(None) or next(iter(tenant_stores.values()))
        home = settings.all_stores.get(tenant, settings.all_stores[None]).url
        tally = found.get(tenant) if tenant else None
        verdict = "at home" if home.identity == store_url.identity else f"belongs in {home}"
        rows.append(
            {
                "tenant": tenant,
                "region": tenant_store.region,
                "store": str(store_url),
                "states": tally.states if tally else 0,
                "storedBytes": tally.stored_bytes if tally else 0,
                "verdict": verdict if tally else "empty",
            }
        )
    return rows
