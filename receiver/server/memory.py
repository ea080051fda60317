"""Sets up the memory of a worker."""

import contextlib
import ctypes
import gc

_LARGE = 2 << 20  # bytes; one piece of memory of this size holds a single state
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_GARBAGE = 10_000  # objects that a worker creates between two garbage collections, some 50 requests'


def settle() -> None:
    """Prepare for requests, now that everything is loaded."""
    # What is loaded stays: to search it for garbage again and again is wasted work.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    _return_memory_early()


def _return_memory_early() -> None:
    """Make glibc return the memory of a large state once it is free, instead of keeping it and asking for more."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 8 * _LARGE)
