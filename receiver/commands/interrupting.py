"""Interrupts a command that has to clean up: a second Ctrl-C does not stop the cleaning up that the first one began."""

import signal
from types import FrameType


class Interruption:
    """Lets the first SIGINT or SIGTERM interrupt a command, and ignores later ones while it cleans up."""

    def __init__(self) -> None:
        self._came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._came:
            self._came = True
            raise KeyboardInterrupt
