"""What may wait for slow clients: bounded for a worker, for a tenant and for a signature.

A bound per address would not do: the platform comes from few addresses, and whoever has captured a signature from many.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

SHARES = {"signature": 4, "tenant": 2}  # a signature may hold a fourth of what a worker has, a tenant half
_NEW = 1.0  # seconds in which nobody is called slow
_LOOK = 0.25  # seconds until one that waits for a permit looks whether it was dropped
_REPLIES = 1024  # that wait at once; where there is no room for one it takes a look at all of its tenant's


class Waiter(ABC):
    """Something that waits for its client: a reply to be taken, or a body to arrive.

    ``tenant`` and ``signature`` (the signed text of it) are None and empty where nobody is proven. ``held`` counts the
    bytes of memory that it takes, ``moved`` those that its client has taken or sent.
    """

    def __init__(self, tenant: str | None, signature: str, held: int):
        self.tenant, self.signature, self.held = tenant, signature, held
        self.moved = 0
        self.is_whole = False  # a body that waits for the receiver, no longer for its client
        self.began = time.monotonic()

    def speed(self) -> tuple[bool, float]:
        """Return what the slowest has least of; who has just come is not slow yet."""
        seconds = time.monotonic() - self.began
        return self.is_whole or seconds < _NEW, self.moved / max(seconds, 0.001)

    @abstractmethod
    def drop(self) -> None:
        """End the wait: there is no room for it. Called without a lock, in the thread that needs the room."""


class _Group:
    def __init__(self, share: int):
        self.share = share  # it may hold one part in so many
        self.held = 0
        self.waiters: set[Waiter] = set()


class Ledger:
    """All that waits in a worker: ``most`` bytes, in so many ``places``. Beyond that the slowest is dropped.

    The slowest of the signature or tenant that has more than its share; of the largest tenant where the worker is full.
    What is alone in its group may be larger than that.
    """

    def __init__(self, most: int, places: int):
        self._most, self._places = most, places
        self._guard = threading.Lock()
        self._groups: dict[tuple, _Group] = {}

    def enter(self, waiter: Waiter) -> None:
        """Count ``waiter``, which may cost others their place."""
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
        """Note that ``waiter`` takes ``held`` bytes by now, unless it was dropped."""
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
        """Count ``waiter`` no longer; nothing happens when it was dropped."""
        with self._guard:
            if self._is_in(waiter):
                self._remove(waiter)

    def held(self) -> int:
        """Return the bytes that all take together."""
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
        """Take out those that have to go, and return them; under the guard."""
        for group in (self._groups[key] for key in _keys_of(newest)):
            while self._is_over(group) and (victim := self._slowest(group, newest)):
                self._remove(victim)
                yield victim

    def _is_over(self, group: _Group) -> bool:
        return group.held > self._most // group.share or len(group.waiters) > max(1, self._places // group.share)

    def _slowest(self, group: _Group, newest: Waiter) -> Waiter | None:
        if group is self._groups.get(()):  # the worker is full: those go first that have most of it
            tenants = [one for key, one in self._groups.items() if key and key[0] == "tenant"]
            group = max(tenants, key=lambda one: max(one.held / self._most, len(one.waiters) / self._places))
            if group.waiters == {newest}:
                group = self._groups[()]
        return min((one for one in group.waiters if one is not newest), key=Waiter.speed, default=None)


def _keys_of(waiter: Waiter) -> tuple[tuple, ...]:
    """Return the groups of ``waiter``, the smallest first."""
    return ("signature", waiter.tenant, waiter.signature), ("tenant", waiter.tenant), ()


class Permits:
    """At most ``count`` large bodies that are worked on at once; a free place goes to the tenant that has fewest."""

    def __init__(self, count: int):
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
        """Take a permit as soon as it is this one's turn; return False when none was freed for ``stall`` seconds.

        Or when ``most`` seconds are over, or when it ``is_dropped`` meanwhile.
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
            if seat not in self._queue:  # it was granted just now
                return True
            self._queue.remove(seat)
        return False

    def release(self, tenant: str | None) -> None:
        """Give back the permit that ``tenant`` has."""
        with self._guard:
            self._free += 1
            self._hold(tenant, -1)
            self._last_freed = time.monotonic()
            self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._queue:
            seat = min(self._queue, key=lambda one: self._held.get(one[0], 0))  # the first of these
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
    """What a worker has for its clients: ``replies`` and ``bodies`` that wait, and ``permits`` for large bodies.

    A signature may have one body of the largest size, ``max_body`` bytes, waiting, and as much of replies; a tenant
    two. ``threads`` large bodies are worked on at once, ``places`` wait. ``on_drop`` is called with what was dropped.
    """

    def __init__(self, max_body: int, threads: int, places: int, on_drop: Callable[[str, Waiter], None]):
        most = SHARES["signature"] * max_body
        self.replies = Ledger(most, _REPLIES)
        self.bodies = Ledger(most, places)
        self.permits = Permits(threads)
        self.on_drop = on_drop
