"""When the master may start the next worker: at once, unless workers die faster than they can serve."""

import time
from collections.abc import Callable

_FIRST, _LONGEST = 0.1, 5.0  # seconds between attempts while no worker can start
_BURST, _RATE = 20.0, 8.0  # workers that were serving: so many at once, so many a second


class Respawns:
    """Bounds how often workers are started; ``clock`` returns seconds and never goes back.

    A worker that was serving is replaced at once: whatever killed it, nobody waits for its successor. Only when many
    die is there a pause. A worker that ends before it serves would do so again, so the pauses between attempts double.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0  # in a row
        self._free, self._counted = _BURST, clock()
        self._again = 0.0
        self.has_served = False  # whether any worker ever has

    def ended(self, was_serving: bool) -> None:
        """Note that a worker has ended, or could not be started at all."""
        now = self._clock()
        if was_serving:
            self.has_served, self._failures = True, 0
            self._free = min(_BURST, self._free + (now - self._counted) * _RATE) - 1
            self._counted = now
            self._again = now + max(0.0, -self._free / _RATE)
            return
        self._failures += 1
        if self._failures > 1:  # a single one may have been killed by chance
            self._again = now + min(_LONGEST, _FIRST * 2 ** (self._failures - 2))

    def pause(self) -> float:
        """Return the seconds until the next worker may start; 0 for at once."""
        return max(0.0, self._again - self._clock())
