"""``receiver health``: whether the receiver that runs here is well, for a container's HEALTHCHECK and for people."""

import contextlib
import http.client
import json
import os
import socket
import sys
import threading

import click

from receiver import strictjson
from receiver.conformance.printable import visible
from receiver.process.running import base_of, services
from receiver.settings import Settings, SettingsMistakes, read

_PATIENCE = 5.0  # seconds; a check has three
_PATIENCE_IN_ALL = 10.0  # seconds until the last byte of an answer
_MOST = 16 << 20  # bytes of an answer; metrics of ten thousand tenants take some 4 MiB
# What listens on all addresses; where IPv6 is turned off, "::" answers on IPv4 alone.
_LOOPBACK = {"0.0.0.0": ("127.0.0.1",), "": ("127.0.0.1",), "::": ("127.0.0.1", "::1")}  # noqa: S104
_NO_RECEIVER = "what answers at {} is no receiver's admin listener"


class _Connection(http.client.HTTPConnection):
    """To ``address`` as gunicorn and the settings write it: a URL, host:port, or unix:/path."""

    def __init__(self, address: str):
        self.address = address.removeprefix("http://")
        super().__init__("localhost", timeout=_PATIENCE)

    def cut(self) -> None:
        """End what is read from it, in another thread: what drips may be no receiver, and has no end."""
        if self.sock:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def connect(self) -> None:
        """Connect; raises OSError."""
        if self.address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self.address.removeprefix("unix:"))
        else:
            host, _, port = self.address.rpartition(":")
            host = host.strip("[]")
            self.sock = self._first_of(_LOOPBACK.get(host, (host,)), int(port))

    def _first_of(self, hosts: tuple[str, ...], port: int) -> socket.socket:
        """Return a connection to the first of ``hosts`` that takes one; raises the OSError of the last."""
        for host in hosts[:-1]:
            with contextlib.suppress(OSError):
                return socket.create_connection((host, port), self.timeout)
        return socket.create_connection((hosts[-1], port), self.timeout)


def admin_address(settings: Settings) -> str | None:
    """Return where the admin listener of the receiver with ``settings`` answers; None when it has none."""
    if settings.admin_bind == "off":
        return None
    known = [one.admin for one in services(base_of(settings)) if one.admin]
    return known[0] if settings.admin_bind.endswith(":0") and len(known) == 1 else settings.admin_bind


def fetch(address: str, path: str) -> tuple[int, bytes]:
    """Return status and body of what the admin listener at ``address`` answers to ``path``; raises OSError."""
    connection = _Connection(address)
    cut = threading.Timer(_PATIENCE_IN_ALL, connection.cut)
    cut.daemon = True
    cut.start()
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(_MOST + 1)
    except (http.client.HTTPException, ValueError) as cause:
        raise OSError(_NO_RECEIVER.format(address)) from cause
    finally:
        cut.cancel()
        connection.close()
    if len(body) > _MOST:
        raise OSError(_NO_RECEIVER.format(address))
    return answer.status, body


def ask(address: str, path: str) -> tuple[int, dict]:
    """Return status and JSON of what the admin listener at ``address`` answers to ``path``; raises OSError."""
    status, body = fetch(address, path)
    try:
        answer = strictjson.loads(body)
    except ValueError as cause:
        raise OSError(_NO_RECEIVER.format(address)) from cause
    if not isinstance(answer, dict) or not _are_checks(answer.get("checks", {})):
        raise OSError(_NO_RECEIVER.format(address))
    return status, answer


def _are_checks(checks: object) -> bool:
    return isinstance(checks, dict) and all(
        isinstance(check, dict) and {"verdict", "told"} <= check.keys() for check in checks.values()
    )


@click.command()
@click.option("--live", is_flag=True, help="Only ask whether the process is well (/livez), not whether it is ready.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as it is.")
def health(live: bool, as_json: bool) -> None:
    """Ask the receiver that runs here whether it is ready; exit status 0 or 1."""
    settings, mistakes = read(os.environ)
    mistakes = [one for one in mistakes if one.startswith(("STORAGE_ADMIN_BIND", "STORAGE_RUN_DIR"))]
    if mistakes:
        raise SettingsMistakes(mistakes)
    address = admin_address(settings)
    if address is None:
        raise click.ClickException("STORAGE_ADMIN_BIND is off, so there is nobody to ask")
    try:
        status, answer = ask(address, "/livez" if live else "/readyz")
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
