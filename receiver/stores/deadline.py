"""The deadline of this thread's call of a store; every wait within the call obeys it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_bound = threading.local()  # until: time.monotonic() by when this thread's call must have ended


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Bound every wait of this thread for a server by ``seconds`` from now, and by any outer bound."""
    outer = getattr(_bound, "until", None)
    until = time.monotonic() + seconds
    _bound.until = until if outer is None else min(outer, until)
    try:
        yield
    finally:
        _bound.until = outer


def left(most: float) -> float:
    """Return the seconds that the next wait of this thread may last, ``most`` at most."""
    until = getattr(_bound, "until", None)
    return most if until is None else max(0.01, min(most, until - time.monotonic()))


def shorter(ours: int, theirs: str | None) -> int:
    """Return the shorter of ``ours`` and ``theirs``, a wait in a URL: 0 would be no bound, and ours holds for all."""
    return min(ours, int(theirs or 0) or ours)
