"""How a worker deals with memory."""

import contextlib
import ctypes
import gc

_LARGE = 2 << 20  # bytes of a piece of memory that is for one state alone
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_GARBAGE = 10_000  # objects that a worker makes before it looks for rings among them, some 50 requests'


def settle() -> None:
    """Prepare for requests, now that all is loaded."""
    # What is there now stays: looking for garbage in it, again and again, is work for nothing.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    _give_memory_back()


def _give_memory_back() -> None:
    """Have glibc return what a large state took as soon as it is free; it would keep it, and take more for the next."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 8 * _LARGE)
