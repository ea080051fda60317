"""``receiver health``: asks whether the local receiver is well, for a container's HEALTHCHECK and for people."""

import json
import os
import sys

import click

from receiver.admin.client import AdminClient, admin_address
from receiver.conformance.printable import visible
from receiver.settings import SettingsMistakes, read


@click.command()
@click.option("--live", is_flag=True, help="Ask only whether the process is alive (/livez), not whether it is ready.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer unchanged.")
def health(live: bool, as_json: bool) -> None:
    """Ask the receiver that runs here whether it is ready. Exit status 0 if it is, else 1."""
    settings, mistakes = read(os.environ)
    mistakes = [one for one in mistakes if one.startswith(("STORAGE_ADMIN_BIND", "STORAGE_RUN_DIR"))]
    if mistakes:
        raise SettingsMistakes(mistakes)
    address = admin_address(settings)
    if address is None:
        raise click.ClickException("STORAGE_ADMIN_BIND is off, so there is nobody to ask")
    try:
        status, answer = AdminClient(address).get_json("/livez" if live else "/readyz")
    except OSError as cause:
        raise click.ClickException(f"no answer at {address}: {cause.strerror or cause}") from None
    if as_json:
        click.echo(json.dumps(answer))
    else:
        click.echo(visible(str(answer.get("status", "?"))))
        for name, check in answer.get("checks", {}).items():
            if check["verdict"] != "ok":
                click.echo(visible(f"  {name}: {check['verdict']}, {check['told']}"))
    sys.exit(0 if status == 200 else 1)
