"""The space on the disk of a path."""

import os
from pathlib import Path
from typing import NamedTuple


class DiskSpace(NamedTuple):
    """The ``free`` and all the bytes (``size``) of a disk, and its free inodes, infinite where nobody counts them."""

    free: int
    size: int
    free_inodes: float


def disk_space(path: str) -> DiskSpace:
    """Return the space on the disk where ``path`` lies, or would lie once it is created; raises OSError."""
    found = Path(os.path.abspath(path))
    while not os.path.exists(found) and found != found.parent:
        found = found.parent
    status = os.statvfs(found)
    free_inodes = status.f_favail if status.f_files else float("inf")  # some file systems do not count them
    return DiskSpace(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize, free_inodes)
