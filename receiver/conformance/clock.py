"""The receiver's clock beside this machine's. One that is off makes most checks fail, none of which names it."""

import email.utils
import time
from dataclasses import dataclass

from receiver.mock_platform.client import Answer

SKEW = 30  # seconds that the contract grants: protocol, section 3.5
_UNSURE = 2  # seconds: Date has whole ones, and the answer was under way


@dataclass(frozen=True)
class Clock:
    """How many seconds the receiver's clock is ``ahead`` (negative: behind); None where no Date header told."""

    ahead: float | None = None

    @property
    def is_off(self) -> bool:
        """Whether it is off by more than the skew that the contract grants."""
        return self.ahead is not None and abs(self.ahead) > SKEW

    @property
    def words(self) -> str:
        """How far it is off, as "95 s behind"; empty where it is right or unknown."""
        if self.ahead is None or abs(self.ahead) <= _UNSURE:
            return ""
        return f"{abs(self.ahead):.0f} s {'ahead' if self.ahead > 0 else 'behind'}"

    def warning(self, fails: bool) -> str:
        """Return the sentence for the top of a report, empty without need; ``fails`` tells whether any check did."""
        if self.ahead is None or not self.words or not (self.is_off or fails):
            return ""
        here = f"The receiver's clock is {self.words}{' of' if self.ahead > 0 else ''} this machine's"
        if self.is_off:
            so = "which is the likely cause of what does not pass" if fails else "and real requests may be refused"
            return f"{here}, more than the {SKEW} s that the contract grants, {so}. Set the clocks first."
        return f"{here}; a receiver that grants no skew, as the Java service, refuses signatures for that."


def read(answer: Answer) -> Clock:
    """Return the Clock that the Date header of ``answer``, which came just now, tells."""
    try:
        date = email.utils.parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return Clock()
    # Date was cut to whole seconds and made while the answer was on its way: half a second and half the way.
    return Clock(date.timestamp() + 0.5 - (time.time() - answer.seconds / 2))
