"""By when this thread's call of a store must have ended: a bound that every wait within it obeys."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_bound = threading.local()  # until: time.monotonic() by when this thread's call must have ended


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Let no wait of this thread for a server last longer than ``seconds`` from now, nor than a bound around it."""
    outer = getattr(_bound, "until", None)
    until = time.monotonic() + seconds
    _bound.until = until if outer is None else min(outer, until)
    try:
        yield
    finally:
        _bound.until = outer


def left(most: float) -> float:
    """Return how many seconds, ``most`` at most, the next wait of this thread may last."""
    until = getattr(_bound, "until", None)
    return most if until is None else max(0.01, min(most, until - time.monotonic()))


def shorter(ours: int, theirs: str | None) -> int:
    """Return the shorter wait of ``ours`` and that of a URL: STORAGE_STORE_TIMEOUT bounds all; 0 would be no bound."""
    return min(ours, int(theirs or 0) or ours)
