"""Answers requests whose store does not return, by the worker's main loop and without their threads.

A thread in a call on a disk that hangs cannot be interrupted. So others compute in its place after a moment, another
thread may be started for it after a second, and its client gets 503 when the time is over. When the thread comes back,
it finds that its request was answered, and drops its own reply.
"""

import contextlib
import logging
import time
from typing import Protocol

from receiver import waits, wsgi
from receiver.server.connection import Connection
from receiver.server.errors import render
from receiver.server.lingering import Lingering
from receiver.server.sending import send_at_once
from receiver.waits import Wait

LOOK_EVERY = 0.1  # seconds
_BRIEF = 0.1  # seconds in a call of a store after which another thread may compute
_SLOW = 1.0  # seconds in a call on a disk after which another thread may be started


class OverdueWorker(Protocol):
    """What Overdue needs of its worker."""

    log: logging.Logger
    lingering: Lingering


class Overdue:
    """The requests that the threads of ``worker`` serve. They call ``begin`` and ``end``, its main thread ``look``."""

    def __init__(self, worker: OverdueWorker) -> None:
        self._worker = worker
        self._serving: set[Connection] = set()
        self._next_look = 0.0

    def begin(self, conn: Connection) -> None:
        """Watch the request on ``conn``, which this thread serves from now on."""
        conn.wait = waits.start()
        self._serving.add(conn)

    def end(self, conn: Connection) -> bool:
        """Return whether ``conn`` is still this thread's, which has served its request."""
        waits.end()
        self._serving.discard(conn)
        return conn.wait.claim()

    def pause(self, longest: float) -> float:
        """Return for how many seconds, ``longest`` at most, the main loop may wait for events."""
        return min(longest, LOOK_EVERY) if self._serving else longest

    def has_stuck(self) -> bool:
        """Return whether a thread is in a call that may never return, so that the process cannot wait for its end."""
        now = time.monotonic()
        return any(now - (conn.wait.since or now) > _SLOW for conn in list(self._serving))

    def look(self) -> None:
        """Look for requests that wait for their store for too long."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        for conn in list(self._serving):
            wait = conn.wait
            if wait.since is not None and now - wait.since > _BRIEF:
                self._relieve(conn, wait, now)

    def _relieve(self, conn: Connection, wait: Wait, now: float) -> None:
        is_over = wait.until is not None and now >= wait.until
        if wait.seat is not None:
            wait.seat.take_back(is_over or (wait.frees_slot and now - (wait.since or now) > _SLOW))
        if is_over and wait.give_up():
            try:
                self._answer(conn)
            except Exception:
                self._worker.log.exception("a defect")
            self._worker.lingering.take(conn)

    def _answer(self, conn: Connection) -> None:
        """Send the reply that the application has for this case; release what the request holds besides its thread."""
        environ = conn.environ
        conn.release()
        instead: wsgi.Instead | None = environ.get(wsgi.INSTEAD)
        if instead is None:  # another application, which nobody here knows
            return
        with contextlib.suppress(OSError):
            send_at_once(conn.sock, render(*instead()))  # it fits, unless the client reads nothing at all
