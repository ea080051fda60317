"""``receiver doctor``: what is wrong, and the command that mends it."""

import json
import ssl
import sys
from pathlib import Path
from uuid import UUID

import click

from receiver.commands import terminal
from receiver.commands.interrupting import Interruption
from receiver.commands.reaching import tls_context, url_parts
from receiver.doctor.case import Elsewhere, begin
from receiver.doctor.direct import Way
from receiver.doctor.examination import Options, examine
from receiver.doctor.findings import FAIL, OK, as_json, as_text, gravest

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--roundtrip", is_flag=True, help="Save, load and delete a state at the running receiver, with keys of its own."
)
@click.option("--url", help="The public address, as the platform is given it: the way through the proxy is looked at.")
@click.option(
    "--pid", type=click.IntRange(1), help="Look at what this running receiver was given, not at this environment."
)
@click.option("--tenant", type=click.UUID, help="Tenant of the round trip: one whose store is its own, say.")
@click.option("--ca", type=_FILE, help="PEM of the authorities that clients know, if they are not this machine's.")
@click.option("--client-cert", type=_FILE, help="PEM of the certificate to show to the receiver or the proxy.")
@click.option("--client-key", type=_FILE, help="PEM of that certificate's key.")
@click.option("--strict", is_flag=True, help="Warnings fail as well.")
@click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
def doctor(
    roundtrip: bool,
    url: str | None,
    pid: int | None,
    tenant: UUID | None,
    ca: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    strict: bool,
    as_json_: bool,
) -> None:
    """Look at settings, keys, clock, stores, disk, permissions, TLS and the running receiver; tell what mends each.

    Changes nothing. Exit status: 0 when nothing fails, 1 when something does, 2 for wrong words. The state that
    --roundtrip saves has an id of its own and is deleted; its keys are good for two minutes at most.
    """
    terminal.allow_styles()
    way = _way(url, ca, client_cert, client_key)
    Interruption()  # what the round trip put somewhere is taken away
    try:
        case = begin(pid)
    except Elsewhere as cause:
        raise click.ClickException(str(cause)) from None
    wanted = Options(way, url.rstrip("/") if url else None, roundtrip, str(tenant) if tenant else None)
    findings = examine(case, wanted)
    click.echo(json.dumps(as_json(findings), indent=1) if as_json_ else as_text(findings))
    verdict = gravest(findings)
    sys.exit(1 if verdict == FAIL or (strict and verdict != OK) else 0)


def _way(url: str | None, ca: Path | None, cert: Path | None, key: Path | None) -> Way:
    """Return what TLS needs, read before this process becomes another user."""
    if url:
        url_parts(url)
    context = tls_context(ca, cert, key)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cert:
        own.load_cert_chain(cert, key)
    return Way(context, own, bool(cert))
