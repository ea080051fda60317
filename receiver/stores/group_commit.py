"""Group commit: changes that wait at the same time are made durable together, by one sync instead of many.

There is no extra thread and no delay. If nobody is committing, the caller commits at once. Callers that arrive
meanwhile queue; then the first of them commits everything in the queue.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from receiver.problems import StoreUnavailable
from receiver.telemetry import metrics
from receiver.threadpool import blocking

_COMMITTING = 1.5  # seconds beyond its time-out that a caller waits for the commit of its change by another
Change = TypeVar("Change")
Result = TypeVar("Result")


class _Entry(Generic[Change, Result]):
    """A change in the queue. ``turn`` is released when it is done, or when its caller has to commit the queue."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.turn = threading.Lock()
        self.leads = False
        self.outcome: Result | BaseException  # once it is done


class GroupCommit(Generic[Change, Result]):
    """Commits changes in groups, in the order of their arrival.

    ``commit`` takes the changes of a group and returns the outcome of each: a result, or the exception that its caller
    gets. One thread at a time calls it. It returns when everything that it reports as done is durable; where it blocks,
    it does so within ``threadpool.blocking``.

    ``held`` makes the context to hold meanwhile, such as a lock against other processes; its argument is the
    time.monotonic() by which it must have begun. Changes that arrive while it is awaited join the group. If it cannot
    be had, only the leader's own change fails.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Change]], Sequence[Result | Exception]],
        held: Callable[[float], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._commit = commit
        self._held = held
        self._guard = threading.Lock()
        self._queue: list[_Entry[Change, Result]] = []
        self._busy = False

    def submit(self, change: Change, timeout: float) -> Result:
        """Return the result of ``change``, or raise the exception that ``commit`` has for it.

        Raises StoreUnavailable when its turn has not come within ``timeout`` seconds; then it is not done. Also when
        another caller has been committing it for too long: then it may be done later, which the same change again
        finds out.
        """
        deadline = time.monotonic() + timeout
        mine: _Entry[Change, Result] = _Entry(change)
        with self._guard:
            self._queue.append(mine)
            mine.leads, self._busy = not self._busy, True
            if not mine.leads:
                mine.turn.acquire()
        if not mine.leads:
            with blocking():
                self._wait(mine, timeout)
        if mine.leads:
            self._lead(mine, deadline)
        if isinstance(mine.outcome, BaseException):
            raise mine.outcome
        return mine.outcome

    def _wait(self, mine: _Entry[Change, Result], timeout: float) -> None:
        if mine.turn.acquire(timeout=timeout):
            return
        with self._guard:
            if mine in self._queue and not mine.leads:
                self._queue.remove(mine)
                raise StoreUnavailable("other changes were not finished in time")
        if not mine.turn.acquire(timeout=_COMMITTING):  # it is being committed, or its turn has just come
            raise StoreUnavailable("the commit of this change and others has not ended in time; its outcome is unknown")

    def _lead(self, mine: _Entry[Change, Result], deadline: float) -> None:
        """Commit all changes in the queue, of which ``mine`` is the first; then the next caller leads."""
        group: Sequence[_Entry[Change, Result]] = ()
        outcomes: Sequence[Result | BaseException] = ()
        try:
            with self._held(deadline):
                with self._guard:
                    group, self._queue = self._queue, []
                with metrics.committing(len(group)):
                    outcomes = self._commit([entry.change for entry in group])
        except BaseException as cause:
            outcomes = [cause] * len(group)
            raise
        finally:
            with self._guard:
                for entry, outcome in zip(group, outcomes, strict=True):
                    entry.outcome = outcome
                    if not entry.leads:
                        entry.turn.release()
                if not group:
                    self._queue.remove(mine)
                self._busy = bool(self._queue)
                if self._queue:
                    self._queue[0].leads = True
                    self._queue[0].turn.release()
