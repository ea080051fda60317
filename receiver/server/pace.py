"""How slow a client may be."""

import time

_GRACE = 5.0  # seconds
_LEAST_RATE = 16 << 10  # bytes a second


class Pace:
    """The time that a client has to send or receive a message: ``most`` seconds, and less if it is slow.

    For five seconds it may move nothing; after that, it must keep an average of 16 KiB a second.
    """

    def __init__(self, most: float) -> None:
        self._began = time.monotonic()
        self._most = most
        self.moved = 0  # bytes

    def left(self) -> float:
        """Return the seconds that are left for the next bytes; 0 when the time is over."""
        now = time.monotonic() - self._began
        if now >= self._most:
            return 0.0
        earned = _GRACE + self.moved / _LEAST_RATE
        return max(0.001, min(self._most, earned) - now)  # more than 0, to take bytes that have arrived already

    def forgive(self, seconds: float) -> None:
        """Do not count ``seconds`` in which the client waited for the receiver."""
        self._began += seconds

    def is_over(self) -> bool:
        """Tell whether the client is too slow."""
        return time.monotonic() - self._began >= min(self._most, _GRACE + self.moved / _LEAST_RATE)
