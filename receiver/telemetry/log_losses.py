"""Counts of the log lines that each process of a receiver dropped, shared by all of them."""

import mmap
import struct
import time

_FORM = struct.Struct("<Qdd")  # lines dropped, when the last was, since when lines wait; 0 is never
_PLACES = mmap.PAGESIZE // _FORM.size
MASTER, ADMIN, FIRST_WORKER = range(3)
_RECENT = 60.0  # seconds
_LONG = 1.0  # seconds that lines wait before that is trouble


class Losses:
    """Shared memory, made before the first fork. Each process writes at a place of its own."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)

    def begin(self, place: int) -> None:
        """Take over ``place`` and the count that its last process left; no line waits yet."""
        self.wait(place, False)

    def add(self, place: int) -> None:
        """Count a line that ``place`` dropped."""
        dropped, _, since = self._at(place)
        self._put(place, dropped + 1, time.monotonic(), since)

    def wait(self, place: int, is_waiting: bool) -> None:
        """Note that lines of ``place`` wait from now on, or no longer wait."""
        dropped, last, _ = self._at(place)
        self._put(place, dropped, last, time.monotonic() if is_waiting else 0.0)

    @property
    def dropped(self) -> int:
        """How many lines all processes dropped since the start."""
        return sum(self._at(place)[0] for place in range(_PLACES))

    def trouble(self) -> str:
        """Return what is wrong with the log now, in one sentence; empty if nothing is."""
        now = time.monotonic()
        found = [self._at(place) for place in range(_PLACES)]
        recently = any(last and now - last < _RECENT for _, last, _ in found)
        if any(since and now - since > _LONG for _, _, since in found):
            return f"standard error is not read: lines wait, and {self._count()}"
        return f"standard error does not take every line: {self._count()}" if recently else ""

    def _count(self) -> str:
        return f"{self.dropped:,} {'line was' if self.dropped == 1 else 'lines were'} dropped since the start"

    def _at(self, place: int) -> tuple[int, float, float]:
        dropped, last, since = _FORM.unpack_from(self._shared, min(place, _PLACES - 1) * _FORM.size)
        return dropped, last, since

    def _put(self, place: int, *values: float) -> None:
        _FORM.pack_into(self._shared, min(place, _PLACES - 1) * _FORM.size, *values)
