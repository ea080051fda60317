"""What a check works with: a client, new states that are cleaned up later, and expectations that end the check."""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import EllipsisType
from typing import NoReturn, TypeVar

from receiver.conformance.answers import Observation, described, difference, observed, same_meaning, shown
from receiver.conformance.exchanges import Exchange, Record, masked
from receiver.conformance.target import RecordingClient, Target
from receiver.mock_platform import forging, tokens
from receiver.mock_platform.client import BASE, Answer
from receiver.mock_platform.json_values import JSON, JSONObject
from receiver.mock_platform.keys import KeyPair

FIRST = "2026-01-01T10:00:00.0000000Z"
LATER = "2026-01-02T10:00:00.0000000Z"
SIGNATURE = "X-ManyWho-Signature"
_ENDING = 2.0  # seconds that a thread has to end after an interrupt
_T = TypeVar("_T")


class Failed(Exception):
    """Ends a check as failed: what was ``expected`` and what ``came``, in words; ``observation`` has the facts."""

    def __init__(self, expected: str, came: str, observation: Observation | None = None) -> None:
        super().__init__(f"expected {expected}; {came}")
        self.expected, self.came, self.observation = expected, came, observation or Observation()


class Undecided(Exception):
    """Ends a check without a verdict; the text is the reason."""


def versioned(word: str) -> str:
    """Return a content that tells versions of a state apart: JSON, like all contents of the platform."""
    return json.dumps({"version": word})


def tomorrow() -> str:
    """Return an expiry for the states of a check, in case the receiver refuses to delete them."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.0000000Z", time.gmtime(time.time() + 24 * 3600))


@dataclass
class Traces:
    """What a run may leave behind: the states ``made``, (tenant, id); ``all_refused`` until a save may have succeeded.

    A save may have succeeded unless the receiver answered it with a 4xx status.
    """

    made: set[tuple[JSON, JSON]] = field(default_factory=set)
    all_refused: bool = True

    def note(self, method: str, status: int) -> None:
        """Take in the ``status`` of the answer to a request, 0 if none came."""
        if method == "POST" and not 400 <= status < 500:
            self.all_refused = False


class Trial:
    """One run of one check against ``target``; ``traces`` collects what it may leave behind."""

    def __init__(self, target: Target, other: str, traces: Traces) -> None:
        self.target, self.other, self.traces, self.made = target, other, traces, traces.made
        self.tenant, self.keys = target.tenant, target.keys
        self.record = Record()
        self.clients: dict[str, RecordingClient] = {}
        self.lock = threading.Lock()

    @property
    def client(self) -> RecordingClient:
        """The client of the run's own tenant, for the check's own thread."""
        return self.client_of(self.tenant)

    def client_of(self, tenant: str) -> RecordingClient:
        """Return the client for ``tenant``, always the same one, for the check's own thread."""
        if tenant not in self.clients:
            self.clients[tenant] = self.connect(tenant)
        return self.clients[tenant]

    def connect(self, tenant: str | None = None) -> RecordingClient:
        """Return a new client with its own connection; the caller closes it."""
        return self.target.connect(tenant or self.tenant, self._note)

    def close(self) -> None:
        """Close the connections."""
        for client in self.clients.values():
            client.close()

    def _note(self, method: str, exchange: Exchange) -> None:
        with self.lock:
            self.record.add(method, exchange)
            self.traces.note(method, exchange.status)

    # Requests

    def state(self, **changes: JSON) -> JSONObject:
        """Return the claims of a new state with a random id. ``changes`` replace claims; ``...`` removes one."""
        id = str(uuid.uuid4())
        self.made.update({(self.tenant, id), (changes.get("tenant", self.tenant), changes.get("id", id))})
        state = dict.fromkeys(("parent", "currentMapElement", "currentUser")) | {
            "expiresAt": tomorrow(),
            "id": id,
            "tenant": self.tenant,
            "flow": str(uuid.uuid4()),
            "flowVersion": str(uuid.uuid4()),
            "isDone": False,
            "createdAt": FIRST,
            "updatedAt": FIRST,
            "content": json.dumps({"state": id, "of": "a conformance check"}),
        }
        return {name: value for name, value in (state | changes).items() if value is not ...}

    def path(self, id: str | None = None, tenant: str | None = None) -> str:
        """Return the path of a tenant's states, or of the state ``id``."""
        return f"{BASE}/states/{tenant or self.tenant}" + (f"/{id}" if id else "")

    def body(self, *states: JSONObject) -> bytes:
        """Return the body of a POST of ``states``."""
        return json.dumps([{"token": tokens.seal_state(state, self.keys)} for state in states]).encode()

    def claims(self, path: str, tenant: str | None = None, /, **changes: JSON) -> JSONObject:
        """Return the claims that sign a request to ``path``. ``changes`` replace claims; ``...`` removes one."""
        claims = tokens.request_claims(tenant or self.tenant, self.target.signed_path(path)) | changes
        return {name: value for name, value in claims.items() if value is not ...}

    def signature(
        self, path: str, /, key: KeyPair | None = None, header: JSONObject | None = None, **changes: JSON
    ) -> str:
        """Return a request signature with ``changes`` to its claims; ``key`` is the platform's unless given."""
        key = key or self.keys.platform
        header = {"alg": "ES384", "kid": key.kid, "typ": "JWT"} if header is None else header
        return forging.jws(header, self.claims(path, **changes), key.jwk)

    def token(self, state: JSONObject, key: KeyPair | None = None, **changes: JSON) -> str:
        """Return the token of ``state``, signed by ``key``. ``changes`` replace claims; ``...`` removes one."""
        claims = tokens.state_claims(state) | changes
        claims = {name: value for name, value in claims.items() if value is not ...}
        return tokens.seal(tokens.sign(claims, key or self.keys.platform), self.keys.receiver)

    def headers(self, path: str, /, signature: str | EllipsisType | None = ..., **claims: JSON) -> dict[str, str]:
        """Return the three headers, with another ``signature``, or without one if it is None."""
        headers = self.client.headers(path) | {SIGNATURE: self.signature(path, **claims)}
        if signature is None:
            del headers[SIGNATURE]
        elif isinstance(signature, str):
            headers[SIGNATURE] = signature
        return headers

    def send(self, method: str, path: str, body: bytes | None = None, /, **claims: JSON) -> Answer:
        """Send a request whose signature has these ``claims``, or with a given ``signature``."""
        return self.client.call(method, path, body, self.headers(path, **claims))

    def post(self, *items: object) -> Answer:
        """POST ``items``: a str is wrapped as a token, anything else is sent as it is."""
        return self.client.post([{"token": item} if isinstance(item, str) else item for item in items])

    # Expectations

    def stored(self, *states: JSONObject, **changes: JSON) -> JSONObject:
        """Save a new state and return it. If the receiver refuses a plain save, the check is undecided."""
        state = states[0] if states else self.state(**changes)
        answer = self.client.save(state)
        if answer.status != 204:
            raise Undecided(
                f"a plain save was not answered 204, so the check has no state to work with: {described(answer)}"
            )
        return state

    def expect(self, answer: Answer, *allowed: int, what: str = "") -> Answer:
        """Return ``answer`` if its status is one of ``allowed``; otherwise fail the check."""
        if answer.status not in allowed:
            expected = " or ".join(map(str, allowed)) + (f" ({what})" if what else "")
            self.fail(expected, described(answer), observed(answer, what))
        return answer

    def expect_refused(self, answer: Answer, what: str) -> None:
        """Fail unless ``answer`` is a refusal with any status (the Java service refuses tokens with 500)."""
        if answer.status < 400:
            self.fail(f"a refusal ({what})", described(answer), observed(answer, what))

    def expect_content(self, id: str, content: str, what: str = "", tenant: str | None = None) -> None:
        """Fail unless a GET of ``id`` returns the JSON value ``content``, in any spelling."""
        self._compare(content, self.content_of(id, tenant=tenant), what, same_meaning)

    def expect_exactly(self, id: str, content: str, what: str = "") -> None:
        """Fail unless a GET of ``id`` returns exactly the text ``content``."""
        self._compare(content, self.content_of(id), what, str.__eq__)

    def _compare(self, content: str, found: str | None, what: str, same: Callable[[str, str], bool]) -> None:
        if found is None or not same(content, found):
            came = f"{shown(found)} came" + difference(content, found)
            facts = Observation(404 if found is None else 200, what=what, wanted=content, found=found)
            self.fail(f"{what or 'the content that was saved'}, {shown(content)}", came, facts)

    def expect_absent(self, id: str, what: str) -> None:
        """Fail unless a GET of ``id`` answers 404."""
        answer = self.client.load(id)
        if answer.status != 404:
            self.fail(f"404, because {what}", described(answer), observed(answer, what))

    def content_of(self, id: str, client: RecordingClient | None = None, tenant: str | None = None) -> str | None:
        """Return the content that a GET of ``id`` returns, or None for a 404; fail on anything else."""
        client = client or self.client_of(tenant or self.tenant)
        answer = client.load(id)
        if answer.status == 404:
            return None
        self.expect(answer, 200, what="GET of a state")
        try:
            return client.open(id, answer)
        except Exception as cause:
            came = f"{type(cause).__name__}: {masked(str(cause))}"
            raise Failed("a reply that the platform can open", came) from cause

    def fail(self, expected: str, came: str, observation: Observation | None = None) -> NoReturn:
        """End the check as failed."""
        raise Failed(expected, came, observation)

    def concurrently(self, *functions: Callable[[RecordingClient], _T]) -> list[_T]:
        """Call all ``functions`` at once, each with its own thread and connection; return their results."""
        barrier = threading.Barrier(len(functions))
        results: dict[int, _T] = {}
        clients = [self.connect() for _ in functions]
        faults: list[Exception] = []

        def work(number: int, function: Callable[[RecordingClient], _T]) -> None:
            try:
                barrier.wait(self.target.timeout)
                results[number] = function(clients[number])
            except Exception as fault:  # noqa: BLE001 - raised again below, in the check's own thread
                faults.append(fault)

        threads = [threading.Thread(target=work, args=one, daemon=True) for one in enumerate(functions)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            _end(clients, threads)  # otherwise they could save states after the cleaning
            raise
        finally:
            for client in clients:
                client.close()
        if faults:
            raise faults[0]
        return [results[number] for number in range(len(functions))]

    def wire(self, data: bytes, wait: float = 1.0, then: Iterable[bytes] = (), finish: bool = False) -> bytes:
        """Send ``data`` and ``then``; return what arrives until the receiver closes or is silent for ``wait`` s."""
        received = b""
        with self.target.open_socket(wait) as connection, contextlib.suppress(TimeoutError, ConnectionError):
            connection.sendall(data)
            for more in then:
                connection.sendall(more)
            if finish and self.target.parts.scheme == "http":
                connection.shutdown(1)
            while chunk := connection.recv(65536):
                received += chunk
        shown = [masked(line) for line in data[:4000].decode("latin-1").splitlines()]
        answer = "\n".join(masked(line) for line in received[:4000].decode("utf-8", "replace").splitlines())
        self._note("socket", Exchange("\n".join(shown)[:2000], answer or "nothing came", 0, 0.0))
        return received


def _end(clients: list[RecordingClient], threads: list[threading.Thread]) -> None:
    for client in clients:
        client.stop()
    until = time.monotonic() + _ENDING
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, until - time.monotonic()))
