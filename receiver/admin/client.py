"""Asks the admin listener of a running receiver, for ``receiver health`` and ``receiver doctor``."""

import contextlib
import http.client
import socket
import threading
from typing import Any

from receiver import strictjson
from receiver.process.running import base_of, services
from receiver.settings import Settings

_PATIENCE = 5.0  # seconds for each step; a check takes three at most
_PATIENCE_IN_ALL = 10.0  # seconds until the last byte of an answer
_MOST = 16 << 20  # bytes of an answer; metrics of ten thousand tenants take some 4 MiB
# Addresses that stand for all addresses; where IPv6 is turned off, "::" answers on IPv4 alone.
_LOOPBACK = {"0.0.0.0": ("127.0.0.1",), "": ("127.0.0.1",), "::": ("127.0.0.1", "::1")}  # noqa: S104
_NO_RECEIVER = "what answers at {} is no receiver's admin listener"


def admin_address(settings: Settings) -> str | None:
    """Return the address of the admin listener of the receiver with ``settings``; None when it has none."""
    if settings.admin_bind == "off":
        return None
    known = [one.admin for one in services(base_of(settings)) if one.admin]
    return known[0] if settings.admin_bind.endswith(":0") and len(known) == 1 else settings.admin_bind


class AdminClient:
    """Asks the admin listener at ``address``: a URL, host:port or unix:/path, as settings and run folders write it."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of the answer to ``path``; raises OSError."""
        connection = _Connection(self.address)
        cut = threading.Timer(_PATIENCE_IN_ALL, connection.cut)
        cut.daemon = True
        cut.start()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(_MOST + 1)
        except (http.client.HTTPException, ValueError) as cause:
            raise self._no_receiver() from cause
        finally:
            cut.cancel()
            connection.close()
        if len(body) > _MOST:
            raise self._no_receiver()
        return answer.status, body

    def get_json(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of the answer to ``path``, ``/livez`` or ``/readyz``; raises OSError."""
        status, body = self.get(path)
        try:
            answer = strictjson.loads(body)
        except ValueError as cause:
            raise self._no_receiver() from cause
        if not isinstance(answer, dict) or not _are_checks(answer.get("checks", {})):
            raise self._no_receiver()
        return status, answer

    def _no_receiver(self) -> OSError:
        return OSError(_NO_RECEIVER.format(self.address))


def _are_checks(checks: object) -> bool:
    return isinstance(checks, dict) and all(
        isinstance(check, dict) and {"verdict", "told"} <= check.keys() for check in checks.values()
    )


class _Connection(http.client.HTTPConnection):
    """A connection to ``address``, as AdminClient takes it."""

    def __init__(self, address: str) -> None:
        self.address = address.removeprefix("http://")
        super().__init__("localhost", timeout=_PATIENCE)

    def cut(self) -> None:
        """Interrupt the reader in another thread: a server that is no receiver may send without end."""
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
        """Return a connection to the first of ``hosts`` that accepts one; raises the OSError of the last."""
        for host in hosts[:-1]:
            with contextlib.suppress(OSError):
                return socket.create_connection((host, port), self.timeout)
        return socket.create_connection((hosts[-1], port), self.timeout)
