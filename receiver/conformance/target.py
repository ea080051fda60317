"""The receiver under test: its address and keys, and how requests to it are signed and sent."""

import contextlib
import http.client
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from receiver.conformance.exchanges import Exchange, exchange_of
from receiver.mock_platform.client import BASE, Answer, Client
from receiver.mock_platform.json_values import JSON
from receiver.mock_platform.keys import StoreKeys

Recorder = Callable[[str, Exchange], None]


class Unreachable(Exception):
    """Nothing answers at the URL. The text says why."""


@dataclass(frozen=True)
class Target:
    """A receiver at ``url``; the calls' paths are appended to the URL's own.

    ``signed_as`` is "sent" if the signature names the path as sent, including the prefix, and "plain" if a proxy
    removes the prefix before the receiver sees it. ``tls`` is the context for an https URL.
    """

    url: str
    keys: StoreKeys
    tenant: str
    signed_as: str = "sent"
    tls: ssl.SSLContext | None = None
    timeout: float = 20
    parts: SplitResult = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", urlsplit(self.url))

    @property
    def prefix(self) -> str:
        """The part of a request's path before /api."""
        return self.parts.path.rstrip("/").removesuffix(BASE)

    def signed_path(self, path: str) -> str:
        """Return the path claim for a request to ``path``, which starts with /api."""
        return (self.prefix if self.signed_as == "sent" else "") + path

    def connect(self, tenant: str, record: Recorder) -> "RecordingClient":
        """Return a client for ``tenant`` that calls ``record`` with each exchange."""
        return RecordingClient(self, tenant, record)

    def reach(self) -> Answer:
        """Return the answer to a first health call; raises Unreachable if none comes."""
        client = self.connect(self.tenant, lambda *_: None)
        try:
            return client.health()
        except (OSError, http.client.HTTPException) as cause:
            raise Unreachable(f"{self.url} cannot be reached: {str(cause) or type(cause).__name__}") from None
        finally:
            client.close()

    def open_socket(self, wait: float) -> socket.socket:
        """Return a new connection, with TLS for an https URL; a read times out after ``wait`` seconds."""
        secure = self.parts.scheme == "https"
        plain = socket.create_connection(
            (self.parts.hostname, self.parts.port or (443 if secure else 80)), self.timeout
        )
        plain.settimeout(wait)
        if not secure:
            return plain
        return (self.tls or ssl.create_default_context()).wrap_socket(plain, server_hostname=self.parts.hostname)


class RecordingClient(Client):
    """The platform's client, with any prefix and TLS context, that records each exchange."""

    def __init__(self, target: Target, tenant: str, record: Recorder) -> None:
        super().__init__(target.url, tenant, target.keys, target.timeout, target.tls)
        self.target, self.record, self.stopped = target, record, False

    def stop(self) -> None:
        """Prevent further requests and abort the current one. Called from another thread than the client's."""
        self.stopped = True
        if (connection := self.connection.sock) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def headers(self, path: str, /, **claims: JSON) -> dict[str, str]:
        return super().headers(self.target.signed_path(path), **claims)

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        headers = self.headers(path) if headers is None else dict(headers)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        sent = self.target.prefix + path
        if self.stopped:
            raise ConnectionAbortedError("the run was interrupted")
        try:
            answer = self.call_kept(method, sent, body, headers, may_repeat=lambda: not self.stopped)
        except (OSError, http.client.HTTPException) as cause:
            self.record(method, exchange_of(method, sent, headers, body, cause))
            raise
        self.record(method, exchange_of(method, sent, headers, body, answer))
        return answer


def statuses(received: bytes) -> list[int]:
    """Return the status of each answer in the bytes that a socket received."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", received)]
