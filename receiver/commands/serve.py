"""``receiver serve``: check everything, say what is served, run gunicorn."""

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor

import click

from receiver import __version__, app, logs
from receiver.commands import EX_TEMPFAIL
from receiver.commands.keys import key_table
from receiver.keyring import Keyring
from receiver.listeners import AddressTaken
from receiver.problems import Problem, StoreMisplaced
from receiver.server import Server
from receiver.settings import Resident, Settings, SettingsMistakes
from receiver.stores.urls import Place

_AT_ONCE = 16


@click.command()
def serve() -> None:
    """Answer the platform's calls, configured by the environment (see: receiver config)."""
    settings, keyring = app.configure()
    logs.configure(settings.log_level, settings.log_format)
    logs.warn((*settings.warnings, *keyring.exposed))
    unprepared = _prepare_stores(settings, keyring)

    def on_ready(addresses: list[str], admin: str | None) -> None:
        if logs.is_json(settings.log_format):
            fields = {"addresses": addresses, "admin": admin, "database": str(settings.place), "version": __version__}
            logs.log.info("listening", extra={"fields": fields})
            return
        with contextlib.suppress(OSError):  # nobody may be reading
            click.echo(banner(settings, keyring, addresses, admin))

    try:
        Server(settings, keyring, on_ready, unprepared=unprepared).run()
    except AddressTaken as taken:
        click.echo(f"receiver: {logs.escape(str(taken))}", err=True)
        sys.exit(EX_TEMPFAIL)


def _prepare_stores(settings: Settings, keyring: Keyring) -> list[Place]:
    """Prepare each store before any worker starts; a place that cannot hold one stops the start.

    One that is only busy or down does not: the service then answers 503 until it is there. Returns the places
    of those.
    """
    unprepared, mistakes = [], []

    def prepare(resident: Resident) -> None:
        store = app.open_place(resident.place, settings, keyring)
        try:
            store.prepare()
        except StoreMisplaced as cause:
            mistakes.append(f"{resident.variable}: {cause.cause}")
        except Problem as cause:
            unprepared.append(resident.place)
            logs.log.error("the store of %s is not ready: %s", resident.variable, cause)
        finally:
            store.close()

    with ThreadPoolExecutor(_AT_ONCE) as pool:  # silent ones are waited for together
        list(pool.map(prepare, settings.residents.values()))
    if mistakes:
        raise SettingsMistakes(mistakes)
    return unprepared


def banner(settings: Settings, keyring: Keyring, addresses: list[str], admin: str | None) -> str:
    """Return what a person wants to see at the start: addresses, store, keys (fingerprints only), what to try."""
    first = addresses[0]
    socket = first.removeprefix("unix:")
    url = f"curl {first}" if socket == first else f"curl --unix-socket {socket} http://localhost"
    lines = [
        "",
        "External Storage receiver",
        f"  address   {', '.join(addresses)}",
        f"  admin     {admin or 'off'}{' (/livez, /readyz, /metrics)' if admin else ''}",
        f"  database  {settings.place}",
        *(f"  tenant    {tenant}: {one.place}" for tenant, one in settings.tenant_stores.items()),
        f"  workers   {settings.workers} processes of {settings.threads} threads",
        "  keys",
        *(f"    {line}" for line in key_table(keyring).splitlines()),
        "",
        "  Try next:",
        f"    {url}/api/storage/1/health",
        "    make demo    (or receiver demo) a simulated platform saves, loads and deletes a state",
        "",
    ]
    return "\n".join(lines)
