"""What a store does while its disk is recorded: changes of many threads of several processes, marked in the log.

``python -m tests.chaos.powercut.workload`` is one of the processes; ``recording.py`` starts them. Each thread owns its
keys and has one change under way at a time. A mark is written before a change and after it was acknowledged, into the
order of the disk's events.
"""

import ctypes
import json
import os
import random
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from receiver.idempotency import Receipt
from receiver.problems import Problem
from receiver.states import NANOSECONDS, Content, Instant, State
from receiver.stores import open_store
from receiver.stores.contract import Store
from tests.chaos.defects import all_defects
from tests.support.states import NOW, OTHER, TENANT, a_receipt, a_state, uid

TENANTS = (TENANT, OTHER)
KEYS = 10  # of each thread
_EXPIRING = 1000  # keys from here on have expired when they are saved
_PAST = Instant.parse("2020-01-01T00:00:00Z")
_SIZES = (200, 200, 1500, 3000, 9000, 40_000)


class Change(NamedTuple):
    """A change of thread ``worker``: its ``number``, what it does, and the (key, version) pairs that it does it to.

    ``call`` is save, delete or purge; a delete has version 0. ``jti`` is that of its receipt, or "".
    """

    worker: str
    number: int
    call: str
    items: Sequence[tuple[int, int]]
    jti: str = ""

    @property
    def tenant(self) -> str:
        return tenant_of(self.worker)

    @property
    def receipt(self) -> Receipt | None:
        if not self.jti:
            return None
        method = "DELETE" if self.call == "delete" else "POST"
        return a_receipt(self.jti, method=method, digest=self.jti.encode().ljust(32)[:32], expires=NOW + 3600)


def tenant_of(worker: str) -> str:
    return TENANTS[int(worker.rpartition(".")[2]) % len(TENANTS)]


def id_of(worker: str, key: int) -> str:
    """Return the id of the state ``key`` of a thread; ids of a thread are in few shards, as others' are, too."""
    process, thread = map(int, worker.split("."))
    return uid(key % 5 << 120 | 1 << 60 | process << 40 | thread << 32 | key)


def is_expiring(key: int) -> bool:
    return key >= _EXPIRING


def state_of(worker: str, key: int, version: int) -> State:
    """Return a version of a state; its content says which it is."""
    text = f"{worker} {key} {version};"
    size = _SIZES[(key * 7 + version * 3) % len(_SIZES)]
    updated = Instant.parse(f"2026-01-01T00:{version // 60:02}:{version % 60:02}Z")
    state = a_state(id=id_of(worker, key), tenant=tenant_of(worker), updated_at=updated)
    kept = {name: getattr(state, name) for name in State.__slots__}
    kept |= {"content": Content(text * (size // len(text) + 1)), "expires_at": _PAST if is_expiring(key) else None}
    return State(**kept)


def perform(store: Store, change: Change) -> None:
    """Do ``change``, as a receiver does: not again what was done before."""
    if change.call == "purge":
        store.purge(NOW * NANOSECONDS)
        return
    if change.receipt and store.was_done(change.tenant, change.receipt):
        return
    if change.call == "save":
        states = [state_of(change.worker, key, version) for key, version in change.items]
        store.save(change.tenant, states, change.receipt)
    else:
        store.delete(change.tenant, [id_of(change.worker, key) for key, _ in change.items], change.receipt)


class Worker:
    """One thread of the workload; ``left`` is what the session before left open, to be asked for again."""

    def __init__(
        self, store: Store, name: str, seed: str, first: int, versions: dict[int, int], mark: Callable
    ) -> None:
        self.store, self.name, self.number, self.mark = store, name, first, mark
        self.chance = random.Random(f"{seed} {name}")
        self.versions = versions  # the newest of each key that was sent
        self.expiring = _EXPIRING + first * 10
        self.done: list[Change] = []

    def run(self, count: int, left: Change | None) -> None:
        if left:
            self.perform(left)
        for _ in range(count):
            self.number += 1
            self.perform(self.next())

    def perform(self, change: Change) -> None:
        about = {"w": change.worker, "n": change.number}
        self.mark({"t": "begin", **about, "call": change.call, "items": change.items, "jti": change.jti})
        try:
            perform(self.store, change)
        except Problem as problem:
            self.mark({"t": "failed", **about, "error": f"{type(problem).__name__}: {problem.cause}"})
        else:
            self.mark({"t": "acknowledged", **about})
            self.done = [*self.done[-5:], change]

    def next(self) -> Change:
        """Return the next change, by chance."""
        share = self.chance.random()
        if share < 0.04 and self.done:
            return self.chance.choice(self.done)
        if share < 0.10:
            return self.change(
                "delete", [(key, 0) for key in self.chance.sample(range(KEYS), self.chance.choice((1, 1, 3)))]
            )
        if share < 0.14:
            return self.change("save", [(self.chance.randrange(KEYS), 1)])  # an old one
        if share < 0.20:
            self.expiring += 1
            return self.change("save", [(self.expiring, 1)])
        if share < 0.22:
            return self.change("purge", [])
        keys = self.chance.sample(range(KEYS), self.chance.choice((1, 1, 1, 1, 2, 5)))
        for key in keys:
            self.versions[key] = self.versions.get(key, 0) + 1
        return self.change("save", [(key, self.versions[key]) for key in keys])

    def change(self, call: str, items: Sequence[tuple[int, int]]) -> Change:
        jti = f"{self.name} {self.number}" if call != "purge" and self.chance.random() < 0.85 else ""
        return Change(self.name, self.number, call, items, jti)


def marker() -> Callable[[dict], None]:
    """Return what writes a mark into the log of the shim that this process was started with."""
    code = ctypes.CDLL(None)

    def mark(fields: dict) -> None:
        text = json.dumps(fields, separators=(",", ":")).encode()
        code.chaos_mark(text, ctypes.c_size_t(len(text)))

    return mark


def started(store: Store) -> None:
    """Prepare ``store``, again if that fails, as a service manager would have it."""
    for left in range(3, 0, -1):
        try:
            store.prepare()
            return
        except Problem:
            if left == 1:
                raise


def looking_at(url: str):
    """Return a connection of somebody else who looks at the store while it starts: SQLite then does no checkpoint."""
    path = url.removeprefix("sqlite:///")
    if path == url or not os.path.exists(path):
        return None
    from receiver.stores.sqlite.driver import sqlite3

    reader = sqlite3.connect(path)
    reader.execute("pragma schema_version").fetchone()
    return reader


def main() -> None:
    """Be one process; its orders are JSON on standard input."""
    orders = json.load(sys.stdin)
    if orders["defect"]:
        all_defects()[orders["defect"]].plant()
    if orders["wal_pages"]:
        from receiver.stores.sqlite import file

        file._CHECKPOINT_PAGES = orders["wal_pages"]
    mark = marker()
    reader = looking_at(orders["url"])
    store = open_store(orders["url"], 10)
    started(store)
    threads = []
    for one in orders["workers"]:
        versions = {int(key): version for key, version in one["versions"].items()}
        worker = Worker(store, one["name"], orders["seed"], one["first"], versions, mark)
        left = Change(**one["left"]) if one["left"] else None
        threads.append(threading.Thread(target=worker.run, args=(orders["count"], left)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    if reader:
        reader.close()


if __name__ == "__main__":
    main()
