"""How slow a client may be."""

import time

_GRACE = 5.0  # seconds
_LEAST_RATE = 16 << 10  # bytes a second


class Pace:
    """How long a client may take to send or to be sent something: ``most`` seconds, or less if it dawdles.

    It may move nothing for a grace of five seconds, and then so many bytes a second on average.
    """

    def __init__(self, most: float):
        self._began = time.monotonic()
        self._most = most
        self.moved = 0  # bytes

    def left(self) -> float:
        """Return the seconds that are left for the next bytes; 0 when its time is over."""
        now = time.monotonic() - self._began
        if now >= self._most:
            return 0.0
        earned = _GRACE + self.moved / _LEAST_RATE
        return max(0.001, min(self._most, earned) - now)  # what is there already can be taken

    def forgive(self, seconds: float) -> None:
        """Do not count so many seconds: the client was waiting for the receiver."""
        self._began += seconds

    def is_over(self) -> bool:
        """Tell whether the client is too slow by now."""
        return time.monotonic() - self._began >= min(self._most, _GRACE + self.moved / _LEAST_RATE)
