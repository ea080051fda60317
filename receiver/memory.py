"""How a process that serves requests treats its memory, once all is loaded."""

import contextlib
import ctypes
import gc

_LARGE = 2 << 20  # bytes of a piece of memory that is for one state alone
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_GARBAGE = 10_000  # objects that a worker makes before it looks for rings among them, some 50 requests'


def settle() -> None:
    """Keep what is there now for good, look for garbage more rarely, and give large pieces back as soon as possible."""
    gc.freeze()  # looking for garbage in it, again and again, is work for nothing
    gc.set_threshold(_GARBAGE)
    # glibc would keep what a large state took, and take more for the next.
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 8 * _LARGE)
