"""The four calls as the platform makes them, over one persistent HTTP connection."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from receiver.mock_platform import tokens
from receiver.mock_platform.json_values import JSON, JSONObject
from receiver.mock_platform.keys import StoreKeys

BASE = "/api/storage/1"
_STALE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, http.client.CannotSendRequest)


@dataclass(frozen=True)
class Answer:
    """An HTTP response: ``status``, ``headers`` (lower-case names), ``body``, and the ``seconds`` it took."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> JSON:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """Makes the platform's calls to the receiver at ``url`` (scheme, host, port) for ``tenant``. Not thread-safe."""

    def __init__(
        self, url: str, tenant: str, keys: StoreKeys, timeout: float = 60, context: ssl.SSLContext | None = None
    ) -> None:
        self.tenant = tenant
        self.keys = keys
        parts = urlsplit(url)
        host = parts.hostname or ""
        self.connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self.connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
        else:
            self.connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)

    def health(self) -> Answer:
        """Ask for the store's health, without a signature."""
        return self.call("GET", f"{BASE}/health", headers={})

    def load(self, id: str) -> Answer:
        """Ask for the state ``id``; ``open`` reads the content of a 200."""
        return self.call("GET", f"{BASE}/states/{self.tenant}/{id}")

    def open(self, id: str, answer: Answer) -> str:
        """Return the content in the ``answer`` to ``load(id)``; raises ReplyRefused."""
        return tokens.open_reply(answer.json["token"], self.tenant, id, self.keys)

    def save(self, *states: JSONObject, **how: JSON) -> Answer:
        """Save ``states`` (dicts of the claims of protocol, section 5.4); ``how`` as for ``tokens.seal``."""
        return self.post([{"token": tokens.seal_state(state, self.keys, **how)} for state in states])

    def post(self, body: object) -> Answer:
        """POST ``body`` as JSON to the tenant's states."""
        return self.call("POST", f"{BASE}/states/{self.tenant}", json.dumps(body).encode())

    def delete(self, ids: Sequence[str]) -> Answer:
        """Delete the states ``ids``."""
        return self.call("DELETE", f"{BASE}/states/{self.tenant}", json.dumps(list(ids)).encode())

    def headers(self, path: str, /, **claims: JSON) -> dict[str, str]:
        """Return the three headers of a request to ``path``; ``claims`` replace claims of the signature."""
        signature = tokens.sign(tokens.request_claims(self.tenant, path) | claims, self.keys.platform)
        return {
            "X-ManyWho-Platform-Key-ID": self.keys.platform.kid,
            "X-ManyWho-Receiver-Key-ID": self.keys.receiver.kid,
            "X-ManyWho-Signature": signature,
        }

    def call_kept(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> Answer:
        """Send a request as ``call`` does, and once more if the receiver had closed the kept-alive connection.

        The contract allows the same request again (protocol, section 10.3). ``may_repeat`` is asked before.
        """
        is_kept = self.connection.sock is not None
        try:
            return Client.call(self, method, path, body, headers)
        except _STALE:
            if not is_kept or not may_repeat():
                raise
            return Client.call(self, method, path, body, headers)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request and return its Answer; sign it unless ``headers`` are given."""
        headers = self.headers(path) if headers is None else dict(headers)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        began = time.perf_counter()
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            content = response.read()
        except (http.client.HTTPException, OSError):
            self.connection.close()
            raise
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, content, time.perf_counter() - began)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
