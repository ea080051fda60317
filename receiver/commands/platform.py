"""``receiver platform``: simulates the platform on a laptop."""

import contextlib
import ipaddress
import ssl
from pathlib import Path

import click

from receiver.commands.interrupting import Interruption
from receiver.mock_platform import keyfiles, sizes
from receiver.mock_platform.calls import Simulator
from receiver.mock_platform.delivery import Network
from receiver.mock_platform.keys import KeyFault
from receiver.mock_platform.model import Refusal, StorageSettings
from receiver.mock_platform.platform import Platform

TENANT = "de300000-0000-4000-8000-000000000000"
STORE = "10ca1000-0000-4000-8000-000000000000"


def _address(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT, as for STORAGE_BIND; raises click's BadParameter."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter("must be HOST:PORT, such as 127.0.0.1:8090")
    return host.strip("[]"), int(port)


@click.group()
def platform() -> None:
    """Simulate the platform's side: tenants, regions, stores, runs of flows."""


@platform.command()
@click.option(
    "--bind",
    callback=_address,
    metavar="HOST:PORT",
    default="127.0.0.1:8090",
    show_default=True,
    help="Address; port 0: a free one.",
)
@click.option("--receiver", "endpoint", default="http://127.0.0.1:8080", show_default=True, help="URL of the receiver.")
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    default="keys",
    show_default=True,
    help="The folder of the receiver's keys.",
)
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False),
    help="PEM file of the authority that signed the receivers' certificates.",
)
@click.option("--patience", type=click.FloatRange(0, 200), default=15, show_default=True, help="Seconds of retries.")
@click.option("--lose", type=click.FloatRange(0, 0.9), default=0, help="Share of replies that are lost.")
@click.option("--late", type=click.FloatRange(0, 0.9), default=0, help="Share of saves that arrive again, late.")
@click.option("--seed", type=int, help="Makes the same runs again.")
@click.option("--allow-remote", is_flag=True, help="Let other machines reach it; they need no account.")
def serve(
    bind: tuple[str, int],
    endpoint: str,
    keys: Path,
    ca: str | None,
    patience: float,
    lose: float,
    late: float,
    seed: int | None,
    allow_remote: bool,
) -> None:
    """Answer the platform's administrative and run calls, and show on a page what happens.

    It starts connected to the receiver that `make run` starts: the store is called local, its keys are in --keys, and
    the demo tenant keeps its states there.
    """
    from receiver.mock_platform import web  # noqa: PLC0415 - no other command needs it

    if not allow_remote and not is_loopback(bind[0]):
        raise click.BadParameter(
            "lets other machines in, which need no account; give --allow-remote to allow that", param_hint="--bind"
        )

    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise click.BadParameter("must hold a certificate in PEM", param_hint="--ca") from None
    try:
        made = Platform(Network(lose, late, seed or 0), patience, context, seed=seed)
        wire(made, endpoint, keys)
        server = web.make(web.create_app(Simulator(made, keys)), *bind)
    except (KeyFault, Refusal, OSError) as cause:
        raise click.ClickException(str(cause)) from None
    with contextlib.suppress(OSError):  # standard output may be closed
        click.echo(banner(server.host, server.port, endpoint, ca))
    with contextlib.closing(made), contextlib.suppress(KeyboardInterrupt):
        Interruption()
        server.serve_forever()


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach ``host``, an address or localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def wire(made: Platform, endpoint: str, keys: Path) -> None:
    """Register the store local at ``endpoint`` with the keys in the folder ``keys``, and a tenant that uses it.

    Raises KeyFault and Refusal.
    """
    store = made.register("local", endpoint, keys=keyfiles.read(keys), id=STORE)
    made.add_tenant(TENANT, "Demo").storage = StorageSettings(True, False, store.id)


def banner(host: str, port: int, endpoint: str, ca: str | None) -> str:
    """Return the lines to print at the start: addresses, tenant, store and what to try."""
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return "\n".join(
        (
            "",
            "The platform, simulated",
            f"  page      {url}/",
            f"  tenant    {TENANT}, states kept by the store local only",
            f"  store     local, {STORE}, at {endpoint}" + (f", trusted by {ca}" if ca else ""),
            "",
            "  Try next, or follow docs/how-to/simulate-the-platform.md:",
            f'    curl --json \'{{"flow": "Claim", "country": "DE"}}\' {url}/api/run/1/state',
            "",
        )
    )


@platform.command("sizes")
@click.option("--seed", default=1, show_default=True, help="Another number makes another draw.")
def show_sizes(seed: int) -> None:
    """Show the sizes of made-up states as a chart."""
    click.echo(sizes.chart(seed))
