"""A circuit breaker: decides from the outcomes of calls whether a store hangs.

A call is *answered* when the store gave any answer, even a refusal. It *failed* when no answer came in time. A call
that runs for longer than any call may take counts as failed before it returns: a file system that hangs never gives up.

| state  | until                                                     | calls                                    |
|--------|-----------------------------------------------------------|------------------------------------------|
| closed | FAILURES calls failed and none was answered in between,   | go through                               |
|        | over half of the time-out at least; or one was given up   |                                          |
|        | after the time-out, and none was answered since it began  |                                          |
| open   | a call is answered: the probe, or one that was held       | refused, but for one probe each second   |

A store that is merely busy answers some calls, so it never opens the breaker, however many calls time out.
"""

import itertools
import time
from collections.abc import Callable

FAILURES = 3
PROBE_EVERY = 1.0  # seconds between two probes


class Breaker:
    """The breaker of one store whose calls end within ``timeout`` seconds. Its owner locks it.

    ``clock`` returns seconds, and never goes back.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._overdue = timeout + 1.0
        self._silence = timeout / 2
        self._numbers = itertools.count()
        self._held: dict[int, float] = {}  # calls that have not returned, the oldest first: when each began
        self._failures = 0
        self._silent_since: float | None = None  # since when calls have waited without any answer
        self._probe: int | None = None
        self._probe_at = 0.0
        self.opened_at: float | None = None

    @property
    def held(self) -> int:
        """The number of calls that have not returned."""
        return len(self._held)

    @property
    def is_open(self) -> bool:
        """Whether the store is known to hang."""
        return self.opened_at is not None

    def silent_for(self) -> float:
        """Return for how many seconds calls have waited without any answer; 0 when no call waits."""
        return 0.0 if self._silent_since is None else self._clock() - self._silent_since

    def begin(self) -> int | None:
        """Return the number of a new call; None to refuse it: the store hangs, and it is not time for a probe."""
        now = self._clock()
        self._judge(now)
        if self.is_open and (self._probe in self._held or now < self._probe_at):
            return None
        number = next(self._numbers)
        self._held[number] = now
        if self._silent_since is None:
            self._silent_since = now
        if self.is_open:
            self._probe = number
        return number

    def is_probe(self, number: int) -> bool:
        """Return whether the call ``number`` is the probe that asks whether the store is back."""
        return self.is_open and number == self._probe

    def answered(self, number: int) -> None:
        """Note that the store answered the call ``number``: it does not hang."""
        now = self._clock()
        self._held.pop(number, None)
        while self._held and now - self._oldest() > self._overdue:  # overdue: they no longer count against the store
            del self._held[next(iter(self._held))]
        self._failures, self.opened_at, self._probe = 0, None, None
        self._silent_since = now if self._held else None

    def failed(self, number: int, timed_out: bool = True) -> None:
        """Note that the call ``number`` returned without an answer; it counts against the store if it ``timed_out``."""
        now = self._clock()
        self._held.pop(number, None)
        self._failures += timed_out
        if not self._held and not self._failures:
            self._silent_since = None
        if number == self._probe:
            self._probe, self._probe_at = None, now + PROBE_EVERY
        self._judge(now)

    def give_up(self, number: int) -> bool:
        """Note that nobody waits for the call ``number`` any longer; return whether it has not returned yet.

        That is enough to open the breaker, unless another call was answered since this one began.
        """
        began = self._held.get(number)
        if began is None:
            return False
        if not self.is_open and self._silent_since is not None and self._silent_since <= began:
            self._open(self._clock())
        return True

    def _open(self, now: float) -> None:
        self.opened_at, self._probe_at = now, now + PROBE_EVERY

    def _judge(self, now: float) -> None:
        """Open a closed breaker when too many calls failed."""
        if self.is_open or self._silent_since is None or now - self._silent_since < self._silence:
            return
        if self._failures + self._count_overdue(now) >= FAILURES:
            self._open(now)

    def _count_overdue(self, now: float) -> int:
        overdue = itertools.takewhile(lambda began: now - began > self._overdue, self._held.values())
        return sum(1 for _ in itertools.islice(overdue, FAILURES))

    def _oldest(self) -> float:
        return next(iter(self._held.values()))
