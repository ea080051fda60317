"""The threads of a worker: only as many compute at once as it has processors, and the others block.

Python threads that compute at once take the interpreter from one another at each system call: with eight of them, a
request costs sixty switches. So the threads here are for blocking calls: for the rest of a body, a commit, a database
server, a client that reads slowly.

A thread needs a *permit* to compute. It keeps the permit from job to job, returns it before a blocking call (see
``blocking``), and only then another thread wakes up. A thread also occupies one of the pool's *slots*. Before it waits
for a client, it can release the slot: then the pool may start another thread, so that slow clients delay nobody else.

A thread that does not come back from a call, such as one on a disk that hangs, loses both to the others: whoever
watches it takes them back (see ``Seat.take_back``).
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

Job = TypeVar("Job")
_USEFUL = 3
_MOST = 256  # threads, with those that have released their slots
_mine = threading.local()  # seat: of this thread, outside of ``blocking``


def processors_for(workers: int) -> int:
    """Return how many of this process's processors each of ``workers`` workers gets.

    At least one, and at most _USEFUL: Python itself runs on one processor, and takes a third of each request.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_USEFUL, max(1, processors // workers))


def releasable_slots(threads: int, most: int = _MOST) -> int:
    """Return how many slots a pool of ``threads`` threads may release at once."""
    return max(0, most - threads)


class Seat(Generic[Job]):
    """What a thread of ``pool`` has of it, and where it waits for a permit.

    ``woken`` is released when it gets one, with a job if it had none. The pool's guard protects the rest.
    """

    def __init__(self, pool: "Pool[Job]") -> None:
        self.pool = pool
        self.woken = threading.Lock()
        self.woken.acquire()
        self.job: Job | None = None
        self.has_permit = True
        self.has_slot = True

    def take_back(self, slot: bool) -> None:
        """Let others compute in place of this thread, which does not come back from a call; another thread calls this.

        With ``slot``, the pool may start a thread for this one.
        """
        self.pool.block(self, slot)

    def resume(self) -> None:
        """Return when this thread has again what was taken back meanwhile."""
        if not (self.has_permit and self.has_slot):
            self.pool.unblock(self)


def current_seat() -> Seat[Any] | None:
    """Return the seat of this thread; None outside of a pool, and within ``blocking``."""
    seat: Seat[Any] | None = getattr(_mine, "seat", None)
    return seat


class Pool(Generic[Job]):
    """At most ``threads`` threads that ``serve`` jobs, ``computing`` of them at once. Jobs start in order.

    Threads that have released their slots do not count, as long as all threads together are no more than ``most``.
    """

    def __init__(self, threads: int, computing: int, serve: Callable[[Job], None], most: int = _MOST) -> None:
        self._serve = serve
        self._guard = threading.RLock()  # never taken by a signal handler
        self._slots = threads  # free ones; below 0: so many threads have to end
        self._releasable = releasable_slots(threads, most)
        self._permits = computing  # free ones
        self._jobs: deque[Job] = deque()
        self._returning: deque[Seat[Job]] = deque()  # threads that want to compute again
        self._idle: list[Seat[Job]] = []  # the last to come is the first to go: its memory is warm
        self._closed = False
        self._drained = threading.Lock()  # released for the thread in wait_until_drained
        self._drained.acquire()
        self._is_awaited = False

    def submit(self, job: Job) -> None:
        """Queue ``job``."""
        with self._guard:
            self._jobs.append(job)
            self._distribute()

    def shutdown(self, wait: bool = False) -> None:
        """End each thread once it is idle; does not ``wait`` for that."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
            for seat in idle:  # each once, even if this is entered again meanwhile
                seat.woken.release()

    def wait_until_drained(self, timeout: float) -> bool:
        """Return when the queue is empty, at the latest after ``timeout`` seconds; tell whether it was empty.

        Wakes the producer when a thread takes the last job: polling for new ones earlier would only contend for the
        interpreter.
        """
        with self._guard:
            if not self._jobs:
                return True
            self._is_awaited = True
        if self._drained.acquire(timeout=timeout):
            return True
        with self._guard:
            if self._is_awaited:
                self._is_awaited = False
                return False
        self._drained.acquire()  # it was released just now
        return True

    def _take(self) -> Job:
        """Return the next job; under the guard."""
        job = self._jobs.popleft()
        if self._is_awaited and not self._jobs:
            self._is_awaited = False
            self._drained.release()
        return job

    def block(self, seat: Seat[Job], release_slot: bool) -> None:
        """Take back the permit of the thread of ``seat``, and its slot with ``release_slot``, unless it has none."""
        with self._guard:
            if release_slot and seat.has_slot and self._releasable > 0:
                seat.has_slot = False
                self._releasable -= 1
                self._slots += 1
            self._take_permit(seat)
            self._distribute()

    def unblock(self, seat: Seat[Job]) -> None:
        """Return when the thread of ``seat``, which calls this, has a permit and a slot again.

        Threads that come back go before new jobs.
        """
        with self._guard:
            self._take_slot(seat)
            if seat.has_permit:
                return
            if self._permits:
                self._permits -= 1
                seat.has_permit = True
                return
            self._returning.append(seat)
        seat.woken.acquire()

    def _take_permit(self, seat: Seat[Job]) -> None:
        if seat.has_permit:
            seat.has_permit = False
            self._permits += 1

    def _take_slot(self, seat: Seat[Job]) -> None:
        if not seat.has_slot:
            seat.has_slot = True
            self._releasable += 1
            self._slots -= 1

    def _distribute(self) -> None:
        """Give the free permits to threads that can use them; under the guard."""
        while self._permits and (self._returning or (self._jobs and self._has_thread() and not self._closed)):
            self._permits -= 1
            if self._returning:
                self._wake(self._returning.popleft())
            elif self._idle:
                seat = self._idle.pop()
                seat.job = self._take()
                self._wake(seat)
            else:
                self._slots -= 1
                job = self._take()
                try:
                    threading.Thread(target=self._run, args=(job,)).start()
                except RuntimeError:  # the system has no thread left: one of ours takes the job later
                    self._jobs.appendleft(job)
                    self._slots += 1
                    self._permits += 1
                    return

    @staticmethod
    def _wake(seat: Seat[Job]) -> None:
        seat.has_permit = True
        seat.woken.release()

    def _has_thread(self) -> bool:
        return bool(self._idle) or self._slots > 0

    def _run(self, job: Job | None) -> None:
        """Serve ``job``, then the queue as long as there are jobs, then each job that wakes this thread."""
        seat: Seat[Job] = Seat(self)
        while job is not None:
            _mine.seat = seat
            try:
                self._serve(job)
            except Exception:
                logging.getLogger("receiver").exception("a defect")
            _mine.seat = None
            job = self._next(seat)

    def _next(self, seat: Seat[Job]) -> Job | None:
        """Return the next job for the thread of ``seat``, which then holds a permit; None if the thread has to end."""
        with self._guard:
            self._take_slot(seat)
            if self._slots < 0:  # another thread was started for this one's slot
                self._slots += 1
                self._take_permit(seat)
                self._distribute()
                return None
            if seat.has_permit and self._jobs and not self._returning and not self._closed:
                return self._take()
            self._take_permit(seat)
            if not self._closed:
                self._idle.append(seat)
            self._distribute()
            if self._closed:
                return None
        seat.woken.acquire()
        job, seat.job = seat.job, None
        return job


class blocking:
    """A context for blocking calls: this thread returns its permit to compute meanwhile, if it holds one.

    With ``release_slot`` it also releases its slot: for a wait for a client, which may take long.
    """

    def __init__(self, release_slot: bool = False) -> None:
        self.release_slot = release_slot

    def __enter__(self) -> Self:
        self.seat = current_seat()
        if self.seat is not None:
            _mine.seat = None
            self.seat.pool.block(self.seat, self.release_slot)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.seat is not None:
            self.seat.pool.unblock(self.seat)
            _mine.seat = self.seat
