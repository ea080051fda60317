"""How long a request waits for its store, as two threads see it: the one that waits, and the one that watches it.

A call on a disk that hangs does not return. When a request has waited for too long, the worker's main loop answers it
in place of the thread that waits. Only one of the two answers: the one that claims the request first.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from receiver.threadpool import Seat, current_seat

GRACE = 2.0  # seconds beyond the store's time-out: a store that ends a wait by itself can say more about the cause
_mine = threading.local()  # wait: of the request that this thread serves


class Wait:
    """The wait of one request. ``seat`` is that of its thread in the pool, None outside of one.

    ``since`` is when its present call of a store began, None while there is none; ``until`` is when it is given up.
    Both are of time.monotonic.
    """

    def __init__(self, seat: Seat[Any] | None) -> None:
        self.seat = seat
        self.since: float | None = None
        self.until: float | None = None
        self.frees_slot = False  # a call that is slow lets the pool start another thread
        self.is_given_up = False
        self._is_claimed = False
        self._guard = threading.Lock()
        self._on_given_up: Callable[[], None] | None = None

    def begin(self, timeout: float) -> None:
        """Begin a call of a store with this ``timeout`` in seconds; all calls of a request share that of the first."""
        if self.until is None:
            self.until = time.monotonic() + timeout + GRACE

    def enter(self, on_given_up: Callable[[], None], frees_slot: bool) -> None:
        """Note that the store has the call from now on; ``on_given_up`` is called in the thread that gives it up."""
        self._on_given_up, self.frees_slot = on_given_up, frees_slot
        self.since = time.monotonic()

    def leave(self) -> None:
        """Note that the call has returned; wait until this thread may go on."""
        self.since = self._on_given_up = None
        if self.seat is not None:
            self.seat.resume()

    def claim(self) -> bool:
        """Return whether the thread of this request may answer it: from then on, nobody else may."""
        with self._guard:
            self._is_claimed = True
            return not self.is_given_up

    def give_up(self) -> bool:
        """Return whether the caller, another thread, has to answer this request; then its own thread may not."""
        with self._guard:
            if self._is_claimed or self.is_given_up:
                return False
            self.is_given_up = True
        on_given_up = self._on_given_up
        if on_given_up is not None:
            on_given_up()
        return True


def start() -> Wait:
    """Return the Wait of the request that this thread begins to serve."""
    wait = Wait(current_seat())
    _mine.wait = wait
    return wait


def end() -> None:
    """Note that this thread serves no request any longer."""
    _mine.wait = None


def current() -> Wait | None:
    """Return the Wait of the request that this thread serves, None if it serves none."""
    wait: Wait | None = getattr(_mine, "wait", None)
    return wait
