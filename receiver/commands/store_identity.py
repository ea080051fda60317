"""``receiver store id``, ``init`` and ``accept``: which store lies there, and which one belongs there."""

import contextlib
import json
import sys
from uuid import UUID

import click

from receiver import bootstrap
from receiver.commands.store_options import json_option, parsed_url
from receiver.commands.tables import fitted
from receiver.conformance.printable import visible
from receiver.problems import Problem
from receiver.settings import Settings
from receiver.stores import open_store
from receiver.stores.contract import Store
from receiver.stores.identity import PIN
from receiver.stores.marker import Mark
from receiver.stores.urls.store_url import StoreURL

_url = click.option(
    "--url", callback=parsed_url, metavar="URL", help="URL of another store than that of the settings; @FILE reads it."
)
_tenant = click.option("--tenant", type=click.UUID, help="UUID of a tenant that has a store of its own: that store.")


@click.command("id")
@_url
@json_option
def show_id(url: StoreURL | None, as_json: bool) -> None:
    """Show the id of each store, for STORAGE_STORE_ID. Exit status 1 if a store does not answer, or is a wrong one."""
    settings = bootstrap.configure_stores(check_places=False)
    rows = [_row_of(settings, one) for one in ([url] if url else settings.store_urls)]
    click.echo(json.dumps(rows, indent=1) if as_json else fitted(rows))
    sys.exit(1 if any(row["verdict"] != "right" for row in rows) else 0)


def _row_of(settings: Settings, store_url: StoreURL) -> dict[str, object]:
    row: dict[str, object] = {"store": str(store_url), "id": None, "pinned": settings.store_id_of(store_url) or None}
    try:
        with contextlib.closing(_opened(settings, store_url)) as store:
            store.check_location()
            return row | {"id": store.mark().store, "verdict": "right"}
    except Problem as problem:
        return row | {"verdict": visible(problem.cause)}


@click.command()
@_tenant
@_url
@json_option
def init(tenant: UUID | None, url: StoreURL | None, as_json: bool) -> None:
    """Make a new, empty store on purpose, also where another one was.

    A first start needs no such command, unless STORAGE_STORE_ID is set: then the new store gets that id. Refuses where
    a store is, whichever that is. Restart the receiver afterwards.
    """
    settings = bootstrap.configure_stores(check_places=False)
    store_url = _chosen(settings, tenant, url)
    with contextlib.closing(_opened(settings, store_url)) as store:
        mark = store.init()
    _report(settings, store_url, mark, as_json, "made")


@click.command()
@_tenant
@_url
@json_option
def accept(tenant: UUID | None, url: StoreURL | None, as_json: bool) -> None:
    """Take the store that is there as the right one, after a restore.

    Its marker then says so. Exit status 1 if STORAGE_STORE_ID names another one.
    """
    settings = bootstrap.configure_stores(check_places=False)
    store_url = _chosen(settings, tenant, url)
    with contextlib.closing(_opened(settings, store_url)) as store:
        mark = store.accept()
    _report(settings, store_url, mark, as_json, "accepted")


def _chosen(settings: Settings, tenant: UUID | None, url: StoreURL | None) -> StoreURL:
    if tenant and url:
        raise click.UsageError("--tenant cannot be combined with --url")
    if tenant is None:
        return url or settings.store_url
    own = settings.tenant_stores.get(str(tenant))
    if own is None:
        raise click.UsageError(f"the tenant {tenant} has no store of its own")
    return own.url


def _opened(settings: Settings, store_url: StoreURL) -> Store:
    store_id = settings.store_id_of(store_url)
    return open_store(store_url, settings.store_timeout, create=False, connections=1, store_id=store_id)


def _report(settings: Settings, store_url: StoreURL, mark: Mark, as_json: bool, done: str) -> None:
    """Print the ``mark`` of the store that was made or accepted; exit with 1 if the settings refuse it."""
    pinned = settings.store_id_of(store_url)
    found = {"store": str(store_url), "id": mark.store, "pinned": pinned or None}
    click.echo(json.dumps(found, indent=1) if as_json else f"{done} the store {mark.store} at {store_url}")
    if pinned not in ("", mark.store):
        click.echo(f"{PIN} names {pinned}: set it to {mark.store}, or the receiver refuses this store", err=True)
        sys.exit(1)
    if store_url.hosts and not pinned:
        click.echo(f"set {PIN}={mark.store}, so that an empty or another store in its place is refused", err=True)
