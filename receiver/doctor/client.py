"""The platform's calls at a URL that may have a path, as behind a proxy; and what replies tell about the way there."""

import http.client
import json
import ssl
import uuid
from urllib.parse import urlsplit

from receiver.doctor.findings import cause_text
from receiver.mock_platform.client import BASE, Answer, Client
from receiver.mock_platform.keys import StoreKeys
from receiver.problems import HEADERS, message_of

BROKEN = (OSError, http.client.HTTPException)
_PATIENCE = 10.0  # seconds for an answer
_KIND = next(iter(HEADERS)).lower()


class ReceiverClient(Client):
    """The platform's client at ``url``, whose path comes before that of each call.

    ``signed`` comes before /api in the path that is signed. By default it is what is sent, as the platform does it.
    """

    def __init__(self, url: str, tenant: str, keys: StoreKeys, context: ssl.SSLContext | None = None) -> None:
        super().__init__(url, tenant, keys, _PATIENCE, context)
        self.prefix = self.signed = urlsplit(url).path.rstrip("/").removesuffix(BASE)

    def headers(self, path: str, /, **claims: object) -> dict[str, str]:
        """Return the headers of a signed request to ``path``."""
        return super().headers(self.signed + path, **claims)

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request to ``path``, signed unless ``headers`` are given; raises one of BROKEN."""
        headers = self.headers(path) if headers is None else headers
        return self.call_kept(method, self.prefix + path, body, headers)

    def path_of(self, state_id: str) -> str:
        """Return the path of the state ``state_id`` as it is sent."""
        return f"{self.prefix}{BASE}/states/{self.tenant}/{state_id}"

    def ask_unsigned(self) -> Answer:
        """Return the answer to an unsigned load: 401, with the path that the receiver saw."""
        return self.call("GET", f"{BASE}/states/{self.tenant}/{uuid.UUID(int=0)}", headers={})


def path_seen(answer: Answer) -> str | None:
    """Return the path that the receiver saw, from its error reply; None if the reply is not a receiver's."""
    found = _problem(answer).get("uri")
    return found if isinstance(found, str) and _KIND in answer.headers else None


def reply_message(answer: Answer) -> str:
    """Return status and message of an error reply, or who may have made it; nothing else of what the reply holds."""
    if path_seen(answer) is not None:
        message = _problem(answer).get("message")
        return f"{answer.status}, {message if isinstance(message, str) else message_of(answer.status)}"
    server = answer.headers.get("server", "")
    return f"{answer.status} by {f'a server that calls itself {server[:40]}' if server else 'something else'}"


def _problem(answer: Answer) -> dict[str, object]:
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def failure_message(cause: BaseException) -> str:
    """Return the doctor's message for one of BROKEN."""
    if isinstance(cause, http.client.RemoteDisconnected | ConnectionResetError):
        return "the connection was closed without an answer"
    if isinstance(cause, TimeoutError):
        return f"there was no answer within {_PATIENCE:g} s"
    return cause_text(cause)
