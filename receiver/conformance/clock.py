"""Compares the receiver's clock with this machine's. A wrong clock makes most checks fail without naming the cause."""

import email.utils
import time
from dataclasses import dataclass

from receiver.mock_platform.client import Answer

SKEW = 30  # seconds that the contract allows (protocol, section 3.5)
_UNSURE = 2  # seconds: Date has whole seconds only, and the answer takes time to arrive


@dataclass(frozen=True)
class Clock:
    """How many seconds the receiver's clock is ``ahead`` (negative: behind); None without a usable Date header."""

    ahead: float | None = None

    @property
    def is_off(self) -> bool:
        """Whether the clock differs by more than the skew that the contract allows."""
        return self.ahead is not None and abs(self.ahead) > SKEW

    @property
    def words(self) -> str:
        """How far the clock is off, such as "95 s behind"; "" if it is right or unknown."""
        if self.ahead is None or abs(self.ahead) <= _UNSURE:
            return ""
        return f"{abs(self.ahead):.0f} s {'ahead' if self.ahead > 0 else 'behind'}"

    def warning(self, fails: bool) -> str:
        """Return the warning for the top of a report, or ""; ``fails`` says whether any check failed."""
        if self.ahead is None or not self.words or not (self.is_off or fails):
            return ""
        here = f"The receiver's clock is {self.words}{' of' if self.ahead > 0 else ''} this machine's"
        if self.is_off:
            so = "which is the likely cause of the failures" if fails else "and real requests may be refused"
            return f"{here}, more than the {SKEW} s that the contract allows, {so}. Set the clocks first."
        return f"{here}; a receiver that allows no skew, like the Java service, refuses signatures for that reason."


def read(answer: Answer) -> Clock:
    """Return the Clock according to the Date header of ``answer``, which has just arrived."""
    try:
        date = email.utils.parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return Clock()
    # Date is cut to whole seconds: add half a second, and compare it with the middle of the exchange.
    return Clock(date.timestamp() + 0.5 - (time.time() - answer.seconds / 2))
