"""The threads of a worker: as many compute at once as it has processors, the others only wait.

Threads of Python that compute at once take the interpreter from one another at each system call: with eight of them a
request costs sixty switches. Here they are for waiting: for the rest of a body, for a commit, for a database server,
for a client that reads slowly. A thread that computes has a *turn*. It goes from request to request with it, gives it
up while it waits, and another thread is woken only then. Who waits for a client gives up its place as well: another
thread may be started for it, so that slow clients hold nobody up.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Self, TypeVar

Job = TypeVar("Job")
_USEFUL = 3
_MOST = 256  # threads, those that wait for clients included
_mine = threading.local()  # pool: the one in which this thread has a turn


def share_of(workers: int) -> int:
    """Return how many of the processors that this process may use are for each of so many ``workers``.

    At least one; and no more than _USEFUL, since Python itself is one processor's work, a third of each request.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_USEFUL, max(1, processors // workers))


def lendable_of(threads: int, most: int = _MOST) -> int:
    """Return how many of a pool of so many ``threads`` may wait for clients without counting."""
    return max(0, most - threads)


class _Seat(Generic[Job]):
    """Where a thread without a turn waits: the lock is released when it gets one, with a job if it had none."""

    def __init__(self):
        self.woken = threading.Lock()
        self.woken.acquire()
        self.job: Job | None = None


class Pool(Generic[Job]):
    """At most so many ``threads`` that ``serve`` jobs, so many ``turns`` of them at once. Jobs start in their order.

    Those that wait for a client do not count, as long as all together are not more than ``most``.
    """

    def __init__(self, threads: int, turns: int, serve: Callable[[Job], None], most: int = _MOST):
        self._serve = serve
        self._guard = threading.RLock()  # never taken by a signal handler
        self._startable = threads  # below 0: so many are there that others were started for
        self._lendable = lendable_of(threads, most)  # places
        self._free = turns
        self._jobs: deque[Job] = deque()
        self._returning: deque[_Seat[Job]] = deque()  # threads whose wait is over
        self._idle: list[_Seat[Job]] = []  # the last to come is the first to go: its memory is warm
        self._closed = False
        self._taken = threading.Lock()  # released for who awaits that the last job is taken
        self._taken.acquire()
        self._is_awaited = False

    def submit(self, job: Job) -> None:
        """Have ``job`` served by and by."""
        with self._guard:
            self._jobs.append(job)
            self._distribute()

    def shutdown(self, wait: bool = False) -> None:
        """End the threads, each once it is idle; does not ``wait``."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
            for seat in idle:  # each once, even if this is entered again meanwhile
                seat.woken.release()

    def await_appetite(self, timeout: float) -> None:
        """Return when no job waits for a turn, at the latest after ``timeout`` seconds.

        Whoever brings jobs does so in good time when the last one was taken. To look for more before that would only
        take the interpreter from the one that computes.
        """
        with self._guard:
            if not self._jobs:
                return
            self._is_awaited = True
        if self._taken.acquire(timeout=timeout):
            return
        with self._guard:
            if self._is_awaited:
                self._is_awaited = False
                return
        self._taken.acquire()  # it was released just now

    def _take(self) -> Job:
        """Return the next job; under the guard."""
        job = self._jobs.popleft()
        if self._is_awaited and not self._jobs:
            self._is_awaited = False
            self._taken.release()
        return job

    def give_up(self, lend: bool) -> bool:
        """Take the turn of this thread back, and its place if it will ``lend`` that; return whether it was taken."""
        with self._guard:
            lent = lend and self._lendable > 0
            self._lendable -= lent
            self._startable += lent
            self._free += 1
            self._distribute()
        return lent

    def come_back(self, lent: bool) -> None:
        """Return when this thread has a turn again, and its place if that was ``lent``.

        Those who come back go before new jobs.
        """
        with self._guard:
            self._lendable += lent
            self._startable -= lent
            if self._free:
                self._free -= 1
                return
            seat: _Seat[Job] = _Seat()
            self._returning.append(seat)
        seat.woken.acquire()

    def _distribute(self) -> None:
        """Give what turns are free to those who can use one; under the guard."""
        while self._free and (self._returning or (self._jobs and self._has_thread() and not self._closed)):
            self._free -= 1
            if self._returning:
                self._returning.popleft().woken.release()
            elif self._idle:
                seat = self._idle.pop()
                seat.job = self._take()
                seat.woken.release()
            else:
                self._startable -= 1
                job = self._take()
                try:
                    threading.Thread(target=self._run, args=(job,)).start()
                except RuntimeError:  # the system has none left: one of ours comes by
                    self._jobs.appendleft(job)
                    self._startable += 1
                    self._free += 1
                    return

    def _has_thread(self) -> bool:
        return bool(self._idle) or self._startable > 0

    def _run(self, job: Job | None) -> None:
        """Serve ``job``, then one after the other as long as there are any, then whatever this thread is woken for."""
        seat: _Seat[Job] = _Seat()
        while job is not None:
            _mine.pool = self
            try:
                self._serve(job)
            except Exception:
                logging.getLogger("receiver").exception("a defect")
            _mine.pool = None
            job = self._next(seat)

    def _next(self, seat: _Seat[Job]) -> Job | None:
        """Return the next job for the thread of ``seat``, which has a turn; None when it shall end."""
        with self._guard:
            if self._startable < 0:  # another one was started for this thread while it waited
                self._startable += 1
                self._free += 1
                self._distribute()
                return None
            if self._jobs and not self._returning and not self._closed:
                return self._take()
            self._free += 1
            if not self._closed:
                self._idle.append(seat)
            self._distribute()
            if self._closed:
                return None
        seat.woken.acquire()
        job, seat.job = seat.job, None
        return job


class waiting:
    """A context in which this thread has given up its turn, if it has one: it may take its time.

    ``for_client``: not for us, so that it does not count as one of the threads meanwhile.
    """

    def __init__(self, for_client: bool = False):
        self.for_client = for_client

    def __enter__(self) -> Self:
        self.pool, _mine.pool = getattr(_mine, "pool", None), None
        if self.pool is not None:
            self.lent = self.pool.give_up(self.for_client)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.pool is not None:
            self.pool.come_back(self.lent)
            _mine.pool = self.pool
