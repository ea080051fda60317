"""A store that cannot hold up other stores: its calls never wait for it while it is known to hang.

There are two bounds. A *breaker* (breaker.py) refuses calls while the store hangs. *Slots* bound how many calls of one
process are in the store at once; on a disk, loads and changes each. A call within the store's share of the threads
keeps its thread. A call beyond the share releases its place in the thread pool while it waits, so a store that has just
begun to hang leaves threads for the others. When all slots are taken, further calls wait for one, unless no call has
returned for a while.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple, TypeVar

from receiver import waits
from receiver.idempotency import Effect, Receipt
from receiver.problems import Problem, StoreHangs, StoreUnavailable
from receiver.states import State
from receiver.stores.breaker import Breaker
from receiver.stores.contract import Store
from receiver.stores.deadline import bounded
from receiver.stores.wrapper import Wrapper
from receiver.telemetry import metrics
from receiver.threadpool import blocking

_PROBE_SECONDS = 2.0  # the time-out of a probe; libpq takes that long to give up connecting
_MOST_RELEASED = 64  # calls that may wait for a slot without a place in the pool; each holds its request in memory
_LOOK_EVERY = 0.25  # seconds
_SILENT = 0.1  # seconds without an answer after which a call lets another thread compute meanwhile
Result = TypeVar("Result")


class Slots(NamedTuple):
    """The ``most`` calls of one process that may be in a store at once, and the ``share`` that keep their threads."""

    most: int
    share: int


def slots_for(stores: int, threads: int) -> Slots | None:
    """Return the slots of each of ``stores`` stores; None for a single one, which has no other to protect."""
    return Slots(threads, max(1, threads // stores)) if stores > 1 else None


class Guarded(Wrapper):
    """The store ``inner``, called ``name`` in messages, whose calls end within ``timeout`` seconds.

    With ``slots``, there are other stores to protect from it. ``blocks`` says that it blocks and keeps its permit,
    as file systems do; ``on_disk``, that its calls share no pool of connections, so that more of them may wait. Calls
    of the command line, such as walks through all states, are passed through.
    """

    def __init__(
        self, inner: Store, name: str, timeout: float, slots: Slots | None = None, blocks: bool = False,
        on_disk: bool = False, breaker: Breaker | None = None,
    ) -> None:  # fmt: skip
        super().__init__(inner)
        self.name = name
        self._timeout = timeout
        self._slots = slots
        self._blocks = blocks and slots is not None
        self._on_disk = on_disk
        self._breaker = breaker or Breaker(timeout)
        # A file system that takes no writes (fsfreeze(8), a snapshot) still answers loads.
        self._changes = Breaker(timeout) if on_disk else self._breaker
        self._slow = min(1.0, timeout / 10)  # seconds; a call that fails sooner was refused and did not hang
        self._stuck = min(2.0, timeout / 5)
        self._given_up: set[tuple[Breaker, int]] = set()  # calls that have not returned, their requests answered
        self._waiting = 0
        self._changed = threading.Condition(threading.Lock())
        self._log = logging.getLogger("receiver")

    def ping(self) -> None:
        self._ask(self.inner.ping)

    def schema_version(self) -> str:
        return self._ask(self.inner.schema_version)

    def find(self, tenant: str, id: str) -> State | None:
        return self._ask(lambda: self.inner.find(tenant, id))

    def was_done(self, tenant: str, receipt: Receipt) -> bool:
        return self._ask(lambda: self.inner.was_done(tenant, receipt))

    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        return self._change(lambda: self.inner.save(tenant, states, receipt))

    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        return self._change(lambda: self.inner.delete(tenant, ids, receipt))

    def replace_content(self, tenant: str, pairs: Sequence[tuple[State, State]]) -> int:
        return self._change(lambda: self.inner.replace_content(tenant, pairs))

    def note_key_uses(self, uses: Mapping[tuple[str, str], int]) -> None:
        self._change(lambda: self.inner.note_key_uses(uses))

    def key_uses(self) -> dict[tuple[str, str], int]:
        return self._ask(self.inner.key_uses)

    def forget_key(self, role: str, kid: str) -> None:
        self._change(lambda: self.inner.forget_key(role, kid))

    def _ask(self, do: Callable[[], Result]) -> Result:
        """Return what ``do``, which only reads, returns. Raises StoreHangs at once when the store is known to hang."""
        return self._judged(self._breaker, do)

    def _change(self, do: Callable[[], Result]) -> Result:
        """Return what ``do``, which writes, returns; the same when the store is known to finish no change."""
        return self._judged(self._changes, do)

    def _judged(self, breaker: Breaker, do: Callable[[], Result]) -> Result:
        if (wait := waits.current()) is not None:
            if wait.is_given_up:
                raise StoreHangs(f"{self.name}: the request was answered 503 meanwhile")
            wait.begin(self._timeout)
        number, releases, is_probe = self._enter(breaker)
        if is_probe and breaker is self._breaker:  # a ping would not tell about changes, so one of them is tried
            try:
                self._watched(breaker, number, self._probe, True)
            except StoreUnavailable as problem:
                raise StoreHangs(f"{self.name} hangs: {problem.cause}") from problem
            number, releases, _ = self._enter(breaker)
        return self._watched(breaker, number, do, releases)

    def _probe(self) -> None:
        with bounded(_PROBE_SECONDS):
            self.inner.ping()

    def _watched(self, breaker: Breaker, number: int, do: Callable[[], Result], releases: bool) -> Result:
        """Return what ``do``, the call ``number`` of ``breaker``, returns; that learns how it ended."""
        began = time.monotonic()
        try:
            result = self._waited(breaker, number, do, releases)
        except StoreUnavailable as problem:
            hung = time.monotonic() - began >= self._slow
            self._leave(breaker, number, lambda: breaker.failed(number, hung), problem)
            raise
        except Problem:  # it answered, if only to refuse
            self._leave(breaker, number, lambda: breaker.answered(number))
            raise
        except BaseException:
            self._leave(breaker, number, lambda: breaker.failed(number, False))
            raise
        self._leave(breaker, number, lambda: breaker.answered(number))
        return result

    def _waited(self, breaker: Breaker, number: int, do: Callable[[], Result], releases: bool) -> Result:
        """Return what ``do`` returns, however long it takes; others compute meanwhile."""
        gives_way = releases or self._blocks or breaker.silent_for() > _SILENT
        wait = waits.current()
        if wait is not None:
            wait.enter(partial(self._give_up, breaker, number), self._on_disk)
        try:
            with blocking(release_slot=releases) if gives_way else nullcontext():
                return do()
        finally:
            if wait is not None:
                wait.leave()

    def _enter(self, breaker: Breaker) -> tuple[int, bool, bool]:
        """Return the number of a new call, whether it releases its place, and whether it must be a probe."""
        until = time.monotonic() + self._timeout
        while True:
            with self._changed:
                entered = self._begin(breaker, until)
                if entered:
                    return entered
                releases = self._waiting < _MOST_RELEASED
                self._waiting += 1
            # Never wait for a permit to compute under the lock: the thread that has it may be waiting for the lock.
            with blocking(release_slot=releases), self._changed:
                self._changed.wait(_LOOK_EVERY)
                self._waiting -= 1

    def _begin(self, breaker: Breaker, until: float) -> tuple[int, bool, bool] | None:
        """Return the same, or None when all slots are taken. The caller holds the lock."""
        was_open = breaker.is_open
        # Each breaker's calls have slots of their own: changes that a frozen file system holds must not stop loads.
        if self._slots and breaker.held >= self._slots.most and not was_open:
            silent_for = breaker.silent_for()
            if silent_for >= self._stuck:
                raise StoreHangs(f"{self.name}: no call has come back for {silent_for:.1f} s")
            if time.monotonic() >= until:
                raise StoreUnavailable(f"{self.name}: no slot was free in time")
            return None
        number = breaker.begin()
        self._note(breaker, was_open)
        if number is None:
            raise StoreHangs(f"{self.name} {'hangs' if breaker is self._breaker else 'finishes no change'}")
        releases = self._slots is not None and self._held() > self._slots.share
        return number, releases, breaker.is_probe(number)

    def _held(self) -> int:
        return self._breaker.held + (self._changes.held if self._changes is not self._breaker else 0)

    def _leave(self, breaker: Breaker, number: int, note: Callable[[], None], cause: Problem | None = None) -> None:
        with self._changed:
            was_open = breaker.is_open
            note()
            self._note(breaker, was_open, cause)
            if self._given_up and (breaker, number) in self._given_up:
                self._given_up.remove((breaker, number))
                metrics.stuck(id(self), len(self._given_up))
                if not self._given_up:
                    self._log.warning("%s: every call that did not return in time has returned", self.name)
            if self._waiting:
                self._changed.notify_all() if was_open != breaker.is_open else self._changed.notify()

    def _give_up(self, breaker: Breaker, number: int) -> None:
        """Note that the call ``number`` has not returned in time, and that its request is answered without it."""
        with self._changed:
            was_open = breaker.is_open
            if not breaker.give_up(number):
                return
            if not self._given_up:
                self._log.error("%s: a call does not return; requests are answered 503 without it", self.name)
            self._given_up.add((breaker, number))
            metrics.stuck(id(self), len(self._given_up))
            self._note(breaker, was_open)
            self._changed.notify_all()

    def _note(self, breaker: Breaker, was_open: bool, cause: Problem | None = None) -> None:
        """Log that ``breaker`` has opened or closed. The caller holds the lock."""
        if breaker.is_open == was_open:
            return
        metrics.hanging(id(breaker), not was_open)
        why = f" ({cause.cause})" if cause else ""
        if breaker is not self._breaker and was_open:
            self._log.warning("%s finishes changes again", self.name)
        elif breaker is not self._breaker:
            self._log.error(
                "%s finishes no change%s: saves and deletes get 503 at once, and one of them is tried every second",
                self.name, why,
            )  # fmt: skip
        elif was_open:
            self._log.warning("%s answers again", self.name)
        else:
            self._log.error(
                "%s hangs%s: its calls get 503 at once, and a probe asks every second whether it is back",
                self.name, why,
            )  # fmt: skip
