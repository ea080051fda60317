"""``receiver doctor``: what is wrong, and how to fix it."""

import json
import ssl
import sys
from pathlib import Path
from uuid import UUID

import click

from receiver.commands import terminal
from receiver.commands.interrupting import Interruption
from receiver.commands.reaching import tls_context, url_parts
from receiver.doctor.direct import TLSOptions
from receiver.doctor.findings import FAIL, OK, as_json, as_text, worst
from receiver.doctor.runner import Options, examine
from receiver.doctor.subject import OutOfReach, find_subject

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--roundtrip", is_flag=True, help="Save, load and delete a state at the running receiver, with keys of its own."
)
@click.option("--url", help="The public address, as the platform knows it: also checks the path through the proxy.")
@click.option(
    "--pid", type=click.IntRange(1), help="Check the settings of this running receiver, not this environment."
)
@click.option("--tenant", type=click.UUID, help="Tenant of the round trip, such as one that has a store of its own.")
@click.option("--ca", type=_FILE, help="PEM of the authorities that clients trust, if not those of this machine.")
@click.option("--client-cert", type=_FILE, help="PEM of the certificate to show to the receiver or the proxy.")
@click.option("--client-key", type=_FILE, help="PEM of that certificate's key.")
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
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
    """Check settings, keys, clock, stores, disk, permissions, TLS and the running receiver; print the fixes.

    Changes nothing. Exit status: 0 if nothing fails, 1 if something does, 2 for a usage error. --roundtrip saves a
    state under an id of its own and deletes it; its keys are valid for two minutes at most.
    """
    terminal.allow_styles()
    tls = _tls_options(url, ca, client_cert, client_key)
    Interruption()  # so that an interrupted round trip removes what it has put somewhere
    try:
        subject = find_subject(pid)
    except OutOfReach as cause:
        raise click.ClickException(str(cause)) from None
    options = Options(tls, url.rstrip("/") if url else None, roundtrip, str(tenant) if tenant else None)
    findings = examine(subject, options)
    click.echo(json.dumps(as_json(findings), indent=1) if as_json_ else as_text(findings))
    verdict = worst(findings)
    sys.exit(1 if verdict == FAIL or (strict and verdict != OK) else 0)


def _tls_options(url: str | None, ca: Path | None, cert: Path | None, key: Path | None) -> TLSOptions:
    """Return the TLS options; this reads the files before the process becomes another user."""
    if url:
        url_parts(url)
    context = tls_context(ca, cert, key)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cert:
        own.load_cert_chain(cert, key)
    return TLSOptions(context, own, bool(cert))
