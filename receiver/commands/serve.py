"""``receiver serve``: checks everything, prints what it serves, runs gunicorn."""

import os
import re
import sys
import time
from collections.abc import Sequence

import click

from receiver import __version__, bootstrap
from receiver.commands.exit_status import EX_TEMPFAIL
from receiver.commands.interrupting import StuckEnd
from receiver.commands.keys import key_table
from receiver.commands.tables import columns
from receiver.keys.keyring import Keyring
from receiver.keys.listing import ago, key_rows
from receiver.network.listeners import AddressTaken
from receiver.server.application import Server
from receiver.server.startup import prepare_stores
from receiver.settings import Settings, TenantStore
from receiver.telemetry import logs, standard_error

_AS_ROOT = (
    "runs as root, and needs no privilege of root: give it a user of its own (systemd: User=receiver,"
    " docker: --user 10001, Kubernetes: runAsUser: 10001)"
)


@click.command()
@click.pass_obj
def serve(stuck: StuckEnd | None) -> None:
    """Answer the platform's calls, configured by the environment (see: receiver config)."""
    standard_error.install()
    settings, keyring = bootstrap.configure()
    logs.configure(settings.log_level, settings.log_format)
    logs.warn((*settings.warnings, *keyring.exposed))
    if os.geteuid() == 0:
        logs.log.warning(_AS_ROOT)
    waiting = prepare_stores(settings, keyring)

    def on_ready(addresses: list[str], admin: str | None) -> None:
        if logs.is_json(settings.log_format):
            fields = {
                "addresses": addresses,
                "admin": admin,
                "database": str(settings.store_url),
                "version": __version__,
            }
            fields |= {"waits_for": [one.variable for one in waiting]} if waiting else {}
            logs.log.info("listening", extra={"fields": fields})
            return
        standard_error.say(banner(settings, keyring, addresses, admin, waiting))

    if stuck:
        stuck.disarm()
    try:
        Server(settings, keyring, on_ready, unprepared=[one.url for one in waiting]).run()
    except AddressTaken as taken:
        click.echo(f"receiver: {logs.escape(str(taken))}", err=True)
        sys.exit(EX_TEMPFAIL)


def banner(
    settings: Settings, keyring: Keyring, addresses: list[str], admin: str | None, waiting: Sequence[TenantStore] = ()
) -> str:
    """Return the lines to print at the start: addresses, store, keys (thumbprints only), what to try.

    ``waiting`` are the stores that do not answer yet.
    """
    first = re.sub(r"//(\[::\]|0\.0\.0\.0):", "//127.0.0.1:", addresses[0])  # all addresses: that of this machine
    socket = first.removeprefix("unix:")
    url = f"curl {first}" if socket == first else f"curl --unix-socket {socket} http://localhost"
    lines = [
        "",
        f"External Storage receiver{': NOT READY, waiting for its store' if waiting else ''}",
        f"  address   {', '.join(addresses)}",
        f"  admin     {admin or 'off'}{' (/livez, /readyz, /metrics)' if admin else ''}",
        f"  database  {settings.store_url}",
        *(line for tenant, one in settings.tenant_stores.items() for line in _fitted(f"{tenant}:", str(one.url))),
        f"  workers   {settings.workers} processes of {settings.threads} threads",
        "  keys",
        *_key_lines(keyring),
        "",
        *(_not_ready(waiting) if waiting else _try_next(url)),
        "",
    ]
    return "\n".join(lines)


def _fitted(first: str, rest: str) -> list[str]:
    """Return the line of a tenant's store, in two if one is too long."""
    line = f"  tenant    {first} {rest}"
    return [line] if len(line) <= columns() else [f"  tenant    {first}", f"            {rest}"]


def _key_lines(keyring: Keyring) -> list[str]:
    """Return the lines of the keys: a table if the terminal is wide enough, else two or three lines for each."""
    lines = [f"    {line}" for line in key_table(keyring).splitlines()]
    if max(map(len, lines), default=0) <= columns() and len(lines) == 1 + len(key_rows(keyring, None, str)):
        return lines
    lines = []
    for row in key_rows(keyring, None, lambda moment: ago(moment, time.time())):
        tenants = row["tenants"]
        known = [row["kid"], "" if tenants else "any tenant", "" if row["madeAt"] == "-" else f"{row['madeAt']} old"]
        lines.append(f"    {row['role']:<8}  {', '.join(filter(None, known))}")
        lines += [f"              for {tenant}" for tenant in tenants or ()]
        lines += [f"              thumbprint {row['thumbprint']}"] if row["thumbprint"] else []
    return lines


def _try_next(url: str) -> list[str]:
    return [
        "  Try next:",
        f"    {url}/api/storage/1/health",
        "    make demo    (or receiver demo) a simulated platform saves and loads a state",
    ]


def _not_ready(waiting: Sequence[TenantStore]) -> list[str]:
    return [
        *(f"  The store of {one.variable} does not answer: {one.url}." for one in waiting),
        "  Its calls get 503 until it does; then it needs no restart. To see what is wrong:",
        "    receiver doctor",
    ]
