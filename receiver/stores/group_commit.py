"""Group commit: changes that wait at the same moment are made durable together, by one sync instead of many.

There is no thread of its own and nothing is waited for: whoever comes while none is at work does its change at once.
Those who come meanwhile queue, and the first of them then does all that have queued.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from receiver.problems import StoreUnavailable
from receiver.telemetry import metrics
from receiver.threadpool import waiting

Change = TypeVar("Change")
Result = TypeVar("Result")


class _Entry(Generic[Change, Result]):
    """A change in the queue. ``turn`` is released when it is done, or when it is this one's turn to do all."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.turn = threading.Lock()
        self.leads = False
        self.outcome: Result | BaseException  # once it is done


class GroupCommit(Generic[Change, Result]):
    """Does changes in groups, in the order in which they came.

    ``commit`` takes the changes of a group and returns, for each, what became of it: a result, or the exception that
    its caller gets. It is called by one thread at a time, and returns only when what it reports as done lasts; where it
    waits, it says so (``turns.waiting``).

    ``held`` is what must be held meanwhile, perhaps against other processes: a context, made with the time.monotonic()
    by which it must have begun. Whoever comes while it is waited for is of the group; who cannot get it fails alone.
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
        """Return what became of ``change``; raises what ``commit`` has for it.

        Raises StoreUnavailable when its turn has not come within ``timeout`` seconds; it is not done then.
        """
        deadline = time.monotonic() + timeout
        mine: _Entry[Change, Result] = _Entry(change)
        with self._guard:
            self._queue.append(mine)
            mine.leads, self._busy = not self._busy, True
            if not mine.leads:
                mine.turn.acquire()
        if not mine.leads:
            with waiting():
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
        mine.turn.acquire()  # it is being done, or it was this one's turn just now

    def _lead(self, mine: _Entry[Change, Result], deadline: float) -> None:
        """Do all changes in the queue, of which ``mine`` is the first, and hand it on."""
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
