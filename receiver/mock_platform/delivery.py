"""Delivers calls to a store: signed once, repeated until answered, over a network that may lose replies."""

import http.client
import itertools
import json
import queue
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from receiver.mock_platform import tokens
from receiver.mock_platform.client import BASE, Answer, Client
from receiver.mock_platform.json_values import JSONObject
from receiver.mock_platform.keys import StoreKeys
from receiver.mock_platform.model import Store
from receiver.mock_platform.traffic import Traffic

_TIMEOUT = 60
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.6


class Undelivered(Exception):
    """A store did not carry out a call; ``status`` is that of its answer, or None without one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class Network:
    """A network that loses a reply, or delivers a copy of a save late, with these probabilities."""

    lose: float = 0.0
    late: float = 0.0
    seed: int = 0
    _random: random.Random = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - chance, not a secret

    def happens(self, chance: float) -> bool:
        """Return whether an event with this ``chance`` happens now."""
        with self._lock:
            return self._random.random() < chance


class StoreChannel:
    """Sends the calls for ``tenant`` to ``store``. Thread-safe.

    ``patience`` is how many seconds a call is repeated, less than the lifetime of a signature. ``context`` verifies the
    store's certificate; ``pause`` waits between attempts.
    """

    def __init__(
        self,
        store: Store,
        tenant: str,
        traffic: Traffic,
        network: Network | None = None,
        patience: float = 15,
        context: ssl.SSLContext | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store, self.tenant, self.traffic = store, tenant, traffic
        self.network = network or Network()
        self.patience, self.context, self.pause = patience, context, pause
        self.path = f"{BASE}/states/{tenant}"
        self._idle: queue.LifoQueue[Client] = queue.LifoQueue()
        self._late: dict[str, JSONObject] = {}

    def save(self, states: Sequence[JSONObject]) -> None:
        """Save ``states`` (claims of protocol, section 5.4); raises Undelivered. The network may hold a copy back."""
        self._save(states, "")
        self.deliver_late([state["id"] for state in states])
        for state in states:
            if self.network.happens(self.network.late):
                self._late[state["id"]] = state

    def deliver_late(self, ids: Sequence[str] | None = None) -> None:
        """Deliver the held-back copies of the states ``ids``, or of all states. Newer saves have overtaken them."""
        for id in list(self._late) if ids is None else ids:
            late = self._late.pop(id, None)
            with suppress(Undelivered):  # nobody misses a copy that never arrives
                if late:
                    self._save([late], "arrives late")

    def _save(self, states: Sequence[JSONObject], note: str) -> None:
        keys = self.store.in_use
        body = json.dumps([{"token": tokens.seal_state(state, keys)} for state in states]).encode()
        id = states[0]["id"] if states else ""
        self._expect(204, self._send("save", "POST", self.path, keys, body, len(states), id, note))

    def load(self, id: str) -> str | None:
        """Return the content of the state ``id``, or None if the store does not have it; raises Undelivered."""
        keys = self.store.in_use
        answer = self._send("load", "GET", f"{self.path}/{id}", keys, None, 1, id)
        if answer.status == 404:
            return None
        self._expect(200, answer)
        if not self.store.accepts(keys):
            raise Undelivered(f"the store {self.store.name} used retired keys for its answer")
        try:
            return tokens.open_reply(answer.json["token"], self.tenant, id, keys)
        except Exception as cause:  # a store may send anything, and jwcrypto and json raise many kinds
            raise Undelivered(f"the reply of {self.store.name} is not acceptable ({type(cause).__name__})") from cause

    def delete(self, ids: Sequence[str]) -> None:
        """Delete the states ``ids``; raises Undelivered."""
        body = json.dumps(list(ids)).encode()
        first = ids[0] if ids else ""
        self._expect(204, self._send("delete", "DELETE", self.path, self.store.in_use, body, len(ids), first))

    def is_well(self) -> bool:
        """Return whether the store now answers that it is healthy."""
        try:
            with closing(Client(self.store.endpoint, self.tenant, self.store.in_use, 2, self.context)) as client:
                return client.health().status == 200
        except (http.client.HTTPException, OSError, ValueError):
            return False

    def close(self) -> None:
        """Close the idle connections."""
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _expect(self, status: int, answer: Answer) -> None:
        if answer.status != status:
            raise Undelivered(
                f"the store {self.store.name} answered {answer.status}{_message_of(answer)}", answer.status
            )

    def _send(
        self,
        call: str,
        method: str,
        path: str,
        keys: StoreKeys,
        body: bytes | None,
        states: int,
        id: str,
        note: str = "",
    ) -> Answer:
        """Sign a request once, repeat it until the answer is not a 5xx, and return that answer."""
        fields = {"store": self.store.name, "call": call, "states": states, "id": id}
        with self._client(keys) as client:
            headers = client.headers(path)
            deadline = time.monotonic() + self.patience
            for attempt, pause in enumerate(_pauses(), 1):
                answer, problem = self._attempt(client, method, path, body, headers)
                size = len(answer.body if method == "GET" else body or b"") if answer else len(body or b"")
                self.traffic.note(
                    **fields,
                    attempt=attempt,
                    status=answer.status if answer else None,
                    bytes=size,
                    milliseconds=round(1000 * answer.seconds, 1) if answer else 0,
                    note=", ".join(filter(None, (note, problem))),
                )
                if answer and answer.status < 500 and not problem:
                    return answer
                if time.monotonic() + pause > deadline:
                    reason = f"it answers {answer.status}" if answer and not problem else problem
                    raise Undelivered(f"the store {self.store.name}: {reason}")
                self.pause(pause)
        raise AssertionError("pauses never end")

    def _attempt(
        self, client: Client, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[Answer | None, str]:
        try:
            answer = client.call(method, path, body, headers)
        except (http.client.HTTPException, OSError, ValueError) as cause:
            return None, f"no answer ({type(cause).__name__})"
        if answer.status < 500 and self.network.happens(self.network.lose):
            return answer, "reply lost"
        return answer, ""

    @contextmanager
    def _client(self, keys: StoreKeys) -> Iterator[Client]:
        try:
            client = self._idle.get_nowait()
        except queue.Empty:
            client = Client(self.store.endpoint, self.tenant, keys, _TIMEOUT, self.context)
        client.keys = keys
        try:
            yield client
        finally:
            self._idle.put(client)


def _pauses() -> Iterator[float]:
    for doubling in itertools.count():
        yield min(_FIRST_PAUSE * 2**doubling, _LONGEST_PAUSE)


def _message_of(answer: Answer) -> str:
    """Return the message of an error reply, shortened and printable, because any store may have sent it."""
    try:
        text = answer.json["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return ": " + "".join(one for one in str(text)[:200] if one.isprintable())
