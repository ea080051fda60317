"""Lines of the log that the processes of a receiver dropped, known to all of them."""

import mmap
import struct
import time

_FORM = struct.Struct("<Qdd")  # lines dropped, when the last one was, since when lines wait; 0 is never
_PLACES = mmap.PAGESIZE // _FORM.size
MASTER, ADMIN, FIRST_WORKER = range(3)
_RECENT = 60.0  # seconds
_LONG = 1.0  # seconds that lines wait, until somebody has to know


class Losses:
    """Shared memory, made before any process is forked. Each process writes at a place of its own."""

    def __init__(self):
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)

    def begin(self, place: int) -> None:
        """Take over ``place`` with all that was dropped there; nothing waits yet."""
        self.wait(place, False)

    def add(self, place: int) -> None:
        """Count a line that ``place`` dropped."""
        dropped, _, since = self._at(place)
        self._put(place, dropped + 1, time.monotonic(), since)

    def wait(self, place: int, is_waiting: bool) -> None:
        """Note that lines of ``place`` wait from now on, or no longer."""
        dropped, last, _ = self._at(place)
        self._put(place, dropped, last, time.monotonic() if is_waiting else 0.0)

    @property
    def dropped(self) -> int:
        """How many lines were dropped since the start."""
        return sum(self._at(place)[0] for place in range(_PLACES))

    def trouble(self) -> str:
        """Return what is wrong with the log now, in a sentence; empty if nothing is."""
        now = time.monotonic()
        found = [self._at(place) for place in range(_PLACES)]
        recently = any(last and now - last < _RECENT for _, last, _ in found)
        if any(since and now - since > _LONG for _, _, since in found):
            return f"standard error is not read: lines wait, and {self._told()}"
        return f"standard error does not take every line: {self._told()}" if recently else ""

    def _told(self) -> str:
        return f"{self.dropped:,} {'line was' if self.dropped == 1 else 'lines were'} dropped since the start"

    def _at(self, place: int) -> tuple[int, float, float]:
        return _FORM.unpack_from(self._shared, min(place, _PLACES - 1) * _FORM.size)

    def _put(self, place: int, *values: float) -> None:
        _FORM.pack_into(self._shared, min(place, _PLACES - 1) * _FORM.size, *values)
