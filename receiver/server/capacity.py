"""Bounds what waits for slow clients, for a worker, a tenant and a signature.

A bound per address would not help: the platform uses few addresses, and an attacker with a captured signature many.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

SHARES = {"signature": 4, "tenant": 2}  # a signature may hold a fourth of a worker's capacity, a tenant half
_NEW = 1.0  # seconds in which no client counts as slow
_LOOK = 0.25  # seconds between checks whether a body that waits for a permit was dropped
_REPLIES = 1024  # that wait at once; a full ledger looks at all replies of the tenant

_Key = tuple[str, ...]  # ("signature", tenant, signature), ("tenant", tenant), or () for the whole worker


class Waiter(ABC):
    """A reply or a body that waits for its client.

    ``tenant`` is None and ``signature`` (its signed part) is empty where no signature was proven. ``held`` counts the
    bytes of memory that it takes, ``moved`` the bytes that its client has received or sent.
    """

    def __init__(self, tenant: str | None, signature: str, held: int) -> None:
        self.tenant, self.signature, self.held = tenant, signature, held
        self.moved = 0
        self.is_whole = False  # a whole body waits for the receiver, no longer for its client
        self.began = time.monotonic()

    def speed(self) -> tuple[bool, float]:
        """Return a key by which the slowest sorts first; a new client is not slow yet."""
        seconds = time.monotonic() - self.began
        return self.is_whole or seconds < _NEW, self.moved / max(seconds, 0.001)

    @abstractmethod
    def drop(self) -> None:
        """End the wait, to free its memory. The thread that needs the memory calls this, without a lock."""


class _Group:
    def __init__(self, share: int) -> None:
        self.share = share  # the group may hold one part in so many
        self.held = 0
        self.waiters: set[Waiter] = set()


class Ledger:
    """The waiters of a worker: ``most`` bytes and ``places`` waiters in all. Beyond that, the slowest is dropped.

    That is the slowest of a signature or tenant above its share; if the worker is full, the slowest of the largest
    tenant. A waiter that is alone in its group may be larger than the share.
    """

    def __init__(self, most: int, places: int) -> None:
        self._most, self._places = most, places
        self._guard = threading.Lock()
        self._groups: dict[_Key, _Group] = {}

    def enter(self, waiter: Waiter) -> None:
        """Add ``waiter``, which may drop others."""
        with self._guard:
            for key in _keys_of(waiter):
                group = self._groups.get(key)
                if group is None:
                    group = self._groups[key] = _Group(SHARES[key[0]] if key else 1)
                group.waiters.add(waiter)
                group.held += waiter.held
            victims = [*self._make_room(waiter)]
        for victim in victims:
            victim.drop()

    def resize(self, waiter: Waiter, held: int) -> None:
        """Record that ``waiter`` now takes ``held`` bytes, unless it was dropped."""
        victims: list[Waiter] = []
        with self._guard:
            change = held - waiter.held
            if self._is_in(waiter):
                waiter.held = held
                for key in _keys_of(waiter):
                    self._groups[key].held += change
                if change > 0:
                    victims.extend(self._make_room(waiter))
        for victim in victims:
            victim.drop()

    def leave(self, waiter: Waiter) -> None:
        """Remove ``waiter``, unless it was dropped."""
        with self._guard:
            if self._is_in(waiter):
                self._remove(waiter)

    def held(self) -> int:
        """Return the bytes of all waiters together."""
        with self._guard:
            everything = self._groups.get(())
            return everything.held if everything else 0

    def _is_in(self, waiter: Waiter) -> bool:
        everything = self._groups.get(())
        return everything is not None and waiter in everything.waiters

    def _remove(self, waiter: Waiter) -> None:
        for key in _keys_of(waiter):
            group = self._groups[key]
            group.waiters.discard(waiter)
            group.held -= waiter.held
            if not group.waiters:
                del self._groups[key]

    def _make_room(self, newest: Waiter) -> Iterator[Waiter]:
        """Remove the waiters to drop, and yield them; under the guard."""
        for group in (self._groups[key] for key in _keys_of(newest)):
            while self._is_over(group) and (victim := self._slowest(group, newest)):
                self._remove(victim)
                yield victim

    def _is_over(self, group: _Group) -> bool:
        return group.held > self._most // group.share or len(group.waiters) > max(1, self._places // group.share)

    def _slowest(self, group: _Group, newest: Waiter) -> Waiter | None:
        if group is self._groups.get(()):  # the worker is full: the tenant that holds most of it gives first
            tenants = [one for key, one in self._groups.items() if key and key[0] == "tenant"]
            group = max(tenants, key=lambda one: max(one.held / self._most, len(one.waiters) / self._places))
            if group.waiters == {newest}:
                group = self._groups[()]
        return min((one for one in group.waiters if one is not newest), key=Waiter.speed, default=None)


def _keys_of(waiter: Waiter) -> tuple[_Key, ...]:
    """Return the groups of ``waiter``, the smallest first."""
    tenant = waiter.tenant or ""
    return ("signature", tenant, waiter.signature), ("tenant", tenant), ()


class Permits:
    """Permits to process ``count`` large bodies at once; a free permit goes to the tenant that holds fewest."""

    def __init__(self, count: int) -> None:
        self._guard = threading.Lock()
        self._free = count
        self._held: dict[str | None, int] = {}
        self._queue: list[tuple[str | None, threading.Lock]] = []
        self._last_freed = 0.0

    def take(self, tenant: str | None) -> bool:
        """Take a permit for ``tenant`` if one is free; return whether it was."""
        with self._guard:
            if not self._free:
                return False
            self._free -= 1
            self._hold(tenant, 1)
            return True

    def wait(self, tenant: str | None, stall: float, most: float, is_dropped: Callable[[], bool]) -> bool:
        """Wait for a permit; return whether it was granted.

        Gives up when no permit was released for ``stall`` seconds, after ``most`` seconds, or when ``is_dropped()``.
        """
        seat = tenant, threading.Lock()
        seat[1].acquire()
        began = time.monotonic()
        with self._guard:
            self._queue.append(seat)
            self._hand_out()
        left = stall
        while left > 0 and not is_dropped():
            if seat[1].acquire(timeout=min(left, _LOOK)):
                return True
            now = time.monotonic()
            left = min(max(began, self._last_freed) + stall, began + most) - now
        with self._guard:
            if seat not in self._queue:  # it has just been granted
                return True
            self._queue.remove(seat)
        return False

    def release(self, tenant: str | None) -> None:
        """Release a permit of ``tenant``."""
        with self._guard:
            self._free += 1
            self._hold(tenant, -1)
            self._last_freed = time.monotonic()
            self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._queue:
            seat = min(self._queue, key=lambda one: self._held.get(one[0], 0))  # the first of the tenants with fewest
            self._queue.remove(seat)
            self._free -= 1
            self._hold(seat[0], 1)
            seat[1].release()

    def _hold(self, tenant: str | None, more: int) -> None:
        count = self._held.get(tenant, 0) + more
        if count:
            self._held[tenant] = count
        else:
            del self._held[tenant]


class Capacity:
    """The capacity of a worker: ledgers of waiting ``replies`` and ``bodies``, and ``permits`` for large bodies.

    One body of the largest size, ``max_body`` bytes, may wait for each signature and two for each tenant, and as many
    bytes of replies. ``threads`` large bodies are processed at once, ``places`` bodies wait. The caller of ``on_drop``
    passes what was dropped: "body", "reply" or "slow_reply".
    """

    def __init__(self, max_body: int, threads: int, places: int, on_drop: Callable[[str, Waiter], None]) -> None:
        most = SHARES["signature"] * max_body
        self.replies = Ledger(most, _REPLIES)
        self.bodies = Ledger(most, places)
        self.permits = Permits(threads)
        self.on_drop = on_drop
