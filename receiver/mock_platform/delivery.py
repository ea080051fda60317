"""How calls get to a store: signed once, repeated until they are answered, over a network that may lose replies."""

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
    """A store did not do what it was asked to; ``status`` is its answer, None where none came."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class Network:
    """A network in which a reply is lost, or a save arrives once more and late, with these chances."""

    lose: float = 0.0
    late: float = 0.0
    seed: int = 0
    _random: random.Random = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - chance, not a secret

    def happens(self, chance: float) -> bool:
        """Tell whether something of this ``chance`` happens now."""
        with self._lock:
            return self._random.random() < chance


class StoreChannel:
    """The line to ``store`` for ``tenant``, for many threads; ``patience`` is in seconds, less than a signature's life.

    ``context`` verifies the store's certificate; ``pause`` waits between attempts.
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
        """Save ``states`` (claims of protocol, section 5.4); raises Undelivered. May let older ones arrive after."""
        self._save(states, "")
        self.deliver_late([state["id"] for state in states])
        for state in states:
            if self.network.happens(self.network.late):
                self._late[state["id"]] = state

    def deliver_late(self, ids: Sequence[str] | None = None) -> None:
        """Deliver the copies that the network held back of the states ``ids``, or of all: newer saves overtook them."""
        for id in list(self._late) if ids is None else ids:
            late = self._late.pop(id, None)
            with suppress(Undelivered):  # a copy that never arrives is missed by nobody
                if late:
                    self._save([late], "arrives late")

    def _save(self, states: Sequence[JSONObject], note: str) -> None:
        keys = self.store.in_use
        body = json.dumps([{"token": tokens.seal_state(state, keys)} for state in states]).encode()
        id = states[0]["id"] if states else ""
        self._expect(204, self._send("save", "POST", self.path, keys, body, len(states), id, note))

    def load(self, id: str) -> str | None:
        """Return the content of the state ``id``, None where the store has none; raises Undelivered."""
        keys = self.store.in_use
        answer = self._send("load", "GET", f"{self.path}/{id}", keys, None, 1, id)
        if answer.status == 404:
            return None
        self._expect(200, answer)
        if not self.store.accepts(keys):
            raise Undelivered(f"the store {self.store.name} answered with keys that are retired")
        try:
            return tokens.open_reply(answer.json["token"], self.tenant, id, keys)
        except Exception as cause:  # whatever a store may send: jwcrypto and JSON raise what they like
            raise Undelivered(f"the reply of {self.store.name} is not acceptable ({type(cause).__name__})") from cause

    def delete(self, ids: Sequence[str]) -> None:
        """Delete the states ``ids``; raises Undelivered."""
        body = json.dumps(list(ids)).encode()
        first = ids[0] if ids else ""
        self._expect(204, self._send("delete", "DELETE", self.path, self.store.in_use, body, len(ids), first))

    def is_well(self) -> bool:
        """Tell whether the store says that it is well, now."""
        try:
            with closing(Client(self.store.endpoint, self.tenant, self.store.in_use, 2, self.context)) as client:
                return client.health().status == 200
        except (http.client.HTTPException, OSError, ValueError):
            return False

    def close(self) -> None:
        """Close the connections that nobody uses."""
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
        """Return the answer, not a 5xx, to a request signed once and repeated as it is until there is one."""
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
    """Return the message of an error reply, which may come from any store: short and printable."""
    try:
        text = answer.json["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return ": " + "".join(one for one in str(text)[:200] if one.isprintable())
