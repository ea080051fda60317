"""The load: clients of the simulated platform, in processes of their own, that keep the journal.

Each client owns its ids: nobody else writes them, and it has one change of an id under way at a time. So the order of
the changes is known. A change whose outcome is unknown is sent again with the same signature until it is answered.
"""

import http.client
import itertools
import json
import multiprocessing
import random
import select
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from receiver.mock_platform import tokens
from receiver.mock_platform.client import BASE, Answer, Client
from receiver.mock_platform.keys import KeyPair, StoreKeys
from tests.chaos.contents import State, digest_of
from tests.chaos.journal import ACKNOWLEDGED, REFUSED, UNKNOWN, Attempt, Item, Journal, Operation
from tests.chaos.schedule import chance_of

_PROCESSES = multiprocessing.get_context("fork")
_LONGEST_PAUSE = 0.25  # seconds between two attempts
_SIGNATURE_LASTS = 270  # seconds in which a request may be sent again
_KEPT = 20  # requests that a client may repeat although they were answered
_REPEATED_WITHIN = 120  # seconds
_READS_BACK = 0.25  # share of the saves after which one of their states is loaded at once
_RECONNECTS = 0.02  # share of the turns before which a connection is closed


@dataclass(frozen=True)
class Orders:
    """What a load is to do: the ``urls`` of the receivers, the ``tenants``, how many ``processes`` of how many ``clients``.

    ``patience`` is the seconds that a client waits for an answer. ``settling`` is the most seconds for which unknown
    changes are repeated after the end. ``mixture`` is one of MIXTURES; ``sizes`` one of contents.SIZES.
    """

    urls: Sequence[str]
    keys: StoreKeys
    tenants: Sequence[str]
    folder: Path
    seed: int
    processes: int = 2
    clients: int = 4
    patience: float = 20.0
    settling: float = 60.0
    mixture: str = "ordinary"
    sizes: str = "small"


class Load:
    """The processes of a load that is under way."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self._done, self._counts = _PROCESSES.Event(), _PROCESSES.Array("l", orders.processes * orders.clients)
        self._processes = [
            _PROCESSES.Process(target=_process, args=(orders, number, self._done, self._counts), daemon=True)
            for number in range(orders.processes)
        ]

    @property
    def journals(self) -> list[Path]:
        return [journal_of(self.orders.folder, number) for number in range(self.orders.processes)]

    def start(self) -> None:
        for process in self._processes:
            process.start()

    def end(self) -> None:
        """Let every client settle what is unknown, and end."""
        self._done.set()
        for process in self._processes:
            process.join(self.orders.settling + 2 * self.orders.patience)
            if process.exitcode != 0:
                process.kill()
                raise RuntimeError(f"a process of the load ended with {process.exitcode}")


@contextmanager
def loading(orders: Orders):
    """Load as long as the context lasts; yields the Load."""
    load = Load(orders)
    load.start()
    try:
        yield load
    finally:
        load.end()


def journal_of(folder: Path, number: int) -> Path:
    return folder / f"journal-{number}.jsonl"


def _process(orders: Orders, number: int, done, counts) -> None:
    """Be one process of the load."""
    journal = Journal(journal_of(orders.folder, number))
    numbers = itertools.count(number * 1_000_000_000 + 1)
    # Keys are made anew: OpenSSL's objects of another process are not shared.
    keys = StoreKeys(*(KeyPair.of(pair.private()) for pair in (orders.keys.platform, orders.keys.receiver)))
    first = number * orders.clients
    clients = [
        LoadClient(orders, keys, one, journal, numbers, done, counts) for one in range(first, first + orders.clients)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    journal.close()
    failures = [client.failure for client in clients if client.failure]
    if failures:
        raise failures[0]


def id_of(seed: int, client: int, number: int) -> str:
    """Return the id of a client's state; every process can tell it."""
    return str(uuid.UUID(int=random.Random(f"{seed} {client} {number}").getrandbits(128), version=4))


class Sender:
    """Sends operations over one connection at a time and journals them."""

    def __init__(self, url: str, tenant: str, keys: StoreKeys, journal: Journal, patience: float) -> None:
        self.client = Client(url, tenant, keys, patience)
        self.journal = journal
        self.worker = 0

    def send(self, operation: Operation, method: str, path: str, body: bytes | None, headers: dict) -> Attempt:
        """Send a request once; return the attempt, journalled."""
        attempt = Attempt(time.monotonic(), worker=self.worker)
        self.journal.begin(operation, attempt)
        try:
            attempt.port = self._connected()
            answer = self.client.call(method, path, body, headers)
        except (http.client.HTTPException, OSError, ValueError) as cause:
            attempt.note = type(cause).__name__
        else:
            self._judge(operation, attempt, answer)
        attempt.ended = time.monotonic()
        self.journal.end(operation, attempt)
        return attempt

    def _connected(self) -> int:
        """Return the port of the client's own end of the connection, made if there is none.

        One that the receiver has closed since is made anew, as by every pool of connections.
        """
        connection = self.client.connection
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            connection.close()
        if connection.sock is None:
            connection.connect()
        return connection.sock.getsockname()[1]

    def _judge(self, operation: Operation, attempt: Attempt, answer: Answer) -> None:
        attempt.status = answer.status
        if answer.status >= 500:
            attempt.outcome = UNKNOWN
        elif 200 <= answer.status < 300:
            attempt.outcome = ACKNOWLEDGED
            if operation.call == "load":
                self._open(operation, attempt, answer)
        else:
            attempt.outcome = REFUSED

    def _open(self, operation: Operation, attempt: Attempt, answer: Answer) -> None:
        try:
            attempt.digest = digest_of(self.client.open(operation.items[0].id, answer))
        except Exception as cause:
            attempt.note = f"not verified: {type(cause).__name__}"

    def load(self, operation: Operation) -> Attempt:
        """Load the state of ``operation`` once."""
        path = f"{BASE}/states/{self.client.tenant}/{operation.items[0].id}"
        return self.send(operation, "GET", path, None, self.client.headers(path))


@dataclass
class Kept:
    """A request that may be sent again, and until when."""

    operation: Operation
    method: str
    body: bytes
    headers: dict[str, str]
    until: float


def _mixture(text: str) -> dict[str, int]:
    """Return what a client does → its weight, from words in turns."""
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


class LoadClient(threading.Thread):
    """One client: takes ``turn`` after turn until it is told to end."""

    def __init__(self, orders: Orders, keys: StoreKeys, number: int, journal: Journal, numbers, done, counts) -> None:
        super().__init__(daemon=True)
        self.orders, self.keys, self.number, self.numbers = orders, keys, number, numbers
        self.done, self.counts = done, counts
        self.chance = chance_of(orders.seed, "client", number)
        self.tenant = tenant_of(orders, number)
        self.path = f"{BASE}/states/{self.tenant}"
        # It reads over another connection than it writes: that of another worker, or of another receiver, as chance has it.
        self.sender, self.reader = (
            Sender(orders.urls[(number + other) % len(orders.urls)], self.tenant, keys, journal, orders.patience)
            for other in (0, 1)
        )
        self.states: list[State] = []
        self.kept: list[Kept] = []
        self.failure: Exception | None = None
        self.deadline = float("inf")  # for what is still unknown after the end

    def run(self) -> None:
        try:
            while not self.done.is_set():
                self.turn()
        except Exception as failure:
            self.failure = failure

    def turn(self) -> None:
        """Do one thing, chosen by chance; come by a new connection now and then."""
        if self.chance.random() < _RECONNECTS:
            self.chance.choice((self.sender, self.reader)).client.close()
        mixture = MIXTURES["reader" if self.number % self.orders.clients == 0 else self.orders.mixture]
        kinds, weights = zip(*mixture.items(), strict=True)
        getattr(self, self.chance.choices(kinds, weights)[0])()

    def one(self) -> None:
        """Save one new state."""
        self._make(1)

    def make(self) -> None:
        """Save new states, a few or a batch."""
        self._make(self.chance.choice((1, 1, 1, 2, 5, 20, 50)))

    def _make(self, count: int) -> None:
        first = len(self.states)
        new = [State(id_of(self.orders.seed, self.number, first + one), self.orders.sizes) for one in range(count)]
        self.states += new
        self.save(new)
        self.counts[self.number] = len(self.states)

    def change(self) -> None:
        """Save states that are there (or were), with a newer time."""
        if self.states:
            self.save(self.chance.sample(self.states, min(len(self.states), self.chance.choice((1, 1, 2, 5)))))

    def older(self) -> None:
        """Save a state with a time that is older than the one stored: answered 204, and ignored."""
        if state := self._some(lambda state: state.updated > 1):
            self.save([state], older=True)

    def save(self, states: Sequence[State], older: bool = False) -> None:
        items, bodies = [], []
        for state in states:
            item, claims = state.next(self.number, self.tenant, self.chance, older)
            items.append(item)
            bodies.append({"token": tokens.seal_state(claims, self.keys)})
        self._change("save", "POST", items, json.dumps(bodies).encode())
        if self.chance.random() < _READS_BACK:
            self._load(self.chance.choice(items).id)

    def delete(self) -> None:
        """Delete a state or several."""
        states = self.chance.sample(self.states, min(len(self.states), self.chance.choice((1, 1, 1, 5))))
        if states:
            items = [state.deleted() for state in states]
            self._change("delete", "DELETE", items, json.dumps([state.id for state in states]).encode())

    def bad(self) -> None:
        """Send a save of a new content whose last token is broken: refused, and nothing of it may be stored."""
        if state := self._some():
            item, claims = state.refused(self.number, self.tenant, self.chance)
            bodies = [{"token": tokens.seal_state(claims, self.keys)}, {"token": "x.y.z"}]
            self._change("bad", "POST", [item], json.dumps(bodies).encode())

    def repeat(self) -> None:
        """Send an acknowledged request again: acknowledged again, without a second effect."""
        now = time.monotonic()
        self.kept = [one for one in self.kept if one.until > now][-_KEPT:]
        if self.kept:
            kept = self.chance.choice(self.kept)
            self._until_answered(kept)

    def read(self) -> None:
        """Load a state of its own."""
        if state := self._some():
            self._load(state.id)

    def read_others(self) -> None:
        """Load a state of another client of the tenant."""
        others = [n for n in range(len(self.counts)) if tenant_of(self.orders, n) == self.tenant and self.counts[n]]
        if not others:
            return self._pause(1)
        other = self.chance.choice(others)
        return self._load(id_of(self.orders.seed, other, self.chance.randrange(self.counts[other])))

    def foreign(self) -> None:
        """Load a state of another tenant, or delete it, through its own tenant: nothing is there, nothing happens."""
        others = [n for n in range(len(self.counts)) if tenant_of(self.orders, n) != self.tenant and self.counts[n]]
        if others:
            other = self.chance.choice(others)
            id = id_of(self.orders.seed, other, self.chance.randrange(self.counts[other]))
            self._load(id)
            self._change("delete", "DELETE", [Item(id)], json.dumps([id]).encode())

    def health(self) -> None:
        operation = Operation(next(self.numbers), self.number, "health", self.tenant, [])
        self.sender.send(operation, "GET", f"{BASE}/health", None, {})

    def _some(self, wanted=lambda state: True) -> State | None:
        """Return one of its states by chance: one of the latest more often."""
        some = self.states[-20:] if self.chance.random() < 0.5 else self.states
        some = [self.chance.choice(some)] if some else []
        return next(filter(wanted, some), None)

    def _load(self, id: str) -> None:
        attempt = self.reader.load(Operation(next(self.numbers), self.number, "load", self.tenant, [Item(id)]))
        if attempt.outcome == UNKNOWN:
            self._pause(1)

    def _change(self, call: str, method: str, items: list, body: bytes) -> None:
        jti = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        operation = Operation(next(self.numbers), self.number, call, self.tenant, items, jti)
        headers = self.sender.client.headers(self.path, jti=jti)
        kept = Kept(operation, method, body, headers, time.monotonic() + _SIGNATURE_LASTS)
        self._until_answered(kept)
        if call != "bad" and operation.acknowledged and len(body) < 200_000:
            kept.until = time.monotonic() + _REPEATED_WITHIN
            self.kept.append(kept)

    def _until_answered(self, kept: Kept) -> None:
        """Send ``kept`` until it is answered, as the platform does: the same request with the same signature."""
        for attempt in itertools.count(1):
            # Again at another worker or another receiver, as chance has it: the record of the jti is common to all.
            sender = self.sender if attempt == 1 else self.chance.choice((self.sender, self.reader))
            found = sender.send(kept.operation, kept.method, self.path, kept.body, kept.headers)
            now = time.monotonic()
            if self.done.is_set():
                self.deadline = min(self.deadline, now + self.orders.settling)
            if found.outcome != UNKNOWN or now > min(self.deadline, kept.until):
                return
            self._pause(attempt)

    def _pause(self, attempt: int) -> None:
        threading.Event().wait(min(_LONGEST_PAUSE, 0.02 * 2**attempt) * self.chance.uniform(0.5, 1))


_ORDINARY = "make 30 change 14 older 3 delete 4 bad 2 repeat 4 read 16 read_others 8 foreign 1 health 2"
_FEW = "one 30 change 14 older 3 delete 4 bad 2 repeat 4 read 16 read_others 8 foreign 1 health 2"
# The first client of each process only reads: a writer whose change is not answered repeats it, and reads nothing.
_READER = "read_others 9 health 1"
MIXTURES = {"ordinary": _mixture(_ORDINARY), "few": _mixture(_FEW), "reader": _mixture(_READER)}


def tenant_of(orders: Orders, client: int) -> str:
    """Return the tenant of a client: neighbours have different ones."""
    return orders.tenants[client % len(orders.tenants)]
