"""Receivers under a systemd: their keys, their log and their state."""

import contextlib
import socket

from receiver.mock_platform import keyfiles
from tests.support.deployments import DEPLOY

FOLDER = DEPLOY / "systemd"
_ports = iter(range(8100, 9999))


def four_digits() -> int:
    """Return another port of four digits that is free, also with a 1 before it, where its probes are."""
    for port in _ports:
        with (
            contextlib.suppress(OSError),
            socket.create_server(("0.0.0.0", port)),
            socket.create_server(("127.0.0.1", 10_000 + port)),
        ):
            return port
    raise AssertionError("no port is free")


def give_keys(machine, keys, folder="/etc/receiver/keys") -> None:
    for path in keyfiles.write(machine.root / folder.lstrip("/"), keys):
        path.unlink() if path.name.startswith("mock-") else path.chmod(0o400)
