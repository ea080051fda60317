"""Good and hostile traffic that goes on for hours and needs no more room with the time."""

import contextlib
import http.client
import itertools
import json
import random
import socket
import threading
import time
import uuid
from collections import Counter

from receiver.mock_platform.client import BASE, Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import StoreKeys, new_store
from tests.bench import attacks
from tests.support.waiting import pass_time

_STATES = 100  # of each client
_SIZES = (1, 5, 5, 7, 7, 7, 20, 100)  # KB of content


class Clients(threading.Thread):
    """A client that goes on until it is ``done``; counts statuses, and notes what went wrong."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done, self.statuses, self.wrong = threading.Event(), Counter(), []

    def run(self) -> None:
        while not self.done.is_set():
            try:
                self.turn()
            except (OSError, http.client.HTTPException) as failure:
                self.failed(failure)
            except Exception as failure:
                self.wrong.append(repr(failure))

    def turn(self) -> None:
        """Do one thing."""
        raise NotImplementedError

    def failed(self, failure: Exception) -> None:
        """Note that a request got no answer."""
        self.statuses["none"] += 1


class Good(Clients):
    """Saves, loads and deletes a fixed number of states; the ``seconds`` of each request are kept until taken."""

    def __init__(self, url: str, keys: StoreKeys, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(f"soak {seed}")
        self.client = Client(url, str(uuid.UUID(int=self.chance.getrandbits(128), version=4)), keys, timeout=60)
        self.flow = FlowRun(self.client.tenant, seed)
        self.ids = [str(uuid.UUID(int=self.chance.getrandbits(128), version=4)) for _ in range(_STATES)]
        self.possible: dict[str, set[str | None]] = {}  # several where the outcome of a change is unknown
        self.seconds: list[float] = []

    def turn(self) -> None:
        id, kind = self.chance.choice(self.ids), self.chance.random()
        if kind < 0.5:
            self.flow.step()
            self.flow.entries.clear()
            self.flow.values.clear()
            content = json.dumps({"text": self.chance.randbytes(512 * self.chance.choice(_SIZES)).hex()})
            self._changes(id, content, self.client.save, self.flow.state() | {"id": id, "content": content})
        elif kind < 0.55:
            self._changes(id, None, self.client.delete, [id])
        else:
            answer = self._asked(self.client.load, id)
            found = self.client.open(id, answer) if answer.status == 200 else None
            if answer.status in (200, 404) and found not in self.possible.get(id, {None}):
                self.wrong.append(f"load of {id}: {answer.status} with another content than was acknowledged")
        if self.chance.random() < 0.01:
            self.client.close()
        pass_time(0.005, "the machine is shared")

    def _changes(self, id: str, content: str | None, call, words) -> None:
        """Make a change after which ``id`` has ``content``; it may have it, too, when that is not acknowledged."""
        before = self.possible.get(id, {None})
        self.possible[id] = before | {content}
        if self._asked(call, words).status == 204:
            self.possible[id] = {content}

    def _asked(self, call, words):
        answer = call(words)
        self.statuses[str(answer.status)] += 1
        self.seconds.append(answer.seconds)
        return answer

    def failed(self, failure: Exception) -> None:
        self.wrong.append(f"no answer: {failure!r}")

    def taken(self) -> list[float]:
        """Return the times of the requests since the last call."""
        found, self.seconds = self.seconds, []
        return found


class Hostile(Clients):
    """Sends what must be refused, or is expensive, one after the other; ``rounds`` counts how often all was sent."""

    def __init__(self, url: str, keys: StoreKeys, pause: float) -> None:
        super().__init__()
        self.client = Client(url, str(uuid.uuid4()), keys, timeout=60)
        self.keys, self.pause, self.rounds = keys, pause, 0
        state = FlowRun(self.client.tenant, 99).state()
        self.bodies = list(attacks.bodies(state, keys))
        self.number = itertools.count()
        self.foreign = new_store()
        self.turns = [
            *(lambda body=body: self._posted(body) for _, body in self.bodies),
            *(self._unsigned, self._of_others, self._old, self._noise, self._half, self._left),
        ]

    def turn(self) -> None:
        number = next(self.number)
        self.turns[number % len(self.turns)]()
        self.rounds = (number + 1) // len(self.turns)
        self.done.wait(self.pause)

    @property
    def path(self) -> str:
        return f"{BASE}/states/{self.client.tenant}"

    def _note(self, answer) -> None:
        self.statuses[str(answer.status)] += 1
        if answer.status == 500:
            self.wrong.append(f"500: {answer.body[:200]!r}")

    def _posted(self, body: bytes) -> None:
        self._note(self.client.call("POST", self.path, body))

    def _unsigned(self) -> None:
        self._note(self.client.call("GET", f"{self.path}/{uuid.uuid4()}", headers={}))

    def _of_others(self) -> None:
        """Sign with a key that the receiver does not have."""
        with contextlib.closing(Client("http://127.0.0.1", self.client.tenant, self.foreign)) as other:
            headers = other.headers(self.path)
        self._note(self.client.call("DELETE", self.path, b"[]", headers))

    def _old(self) -> None:
        headers = self.client.headers(self.path, exp=int(time.time()) - 3600)
        self._note(self.client.call("DELETE", self.path, b"[]", headers))

    def _connected(self) -> socket.socket:
        return socket.create_connection((self.client.connection.host, self.client.connection.port), timeout=5)

    def _noise(self) -> None:
        with self._connected() as one:
            one.sendall(random.randbytes(2000) + b"\r\n\r\n")
            one.recv(100)

    def _half(self) -> None:
        """Say that more will come than does."""
        with self._connected() as one:
            one.sendall(b"POST /api/storage/1/states/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nshort")

    def _left(self) -> None:
        """Open connections and say nothing for a while."""
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(self._connected())
            self.done.wait(1)
