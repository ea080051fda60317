"""The mark of a store on SQLite's file: an attribute of the file (xattr(7)), which outlasts what the file holds.

It tells a store that was emptied from a new file that an operator made on purpose. A copy of the file need not have it,
and some file systems keep no attributes: there an emptied file cannot be told from a new one.
"""

import contextlib
import os
from pathlib import Path

_NAME = "user.external-storage-receiver"


def put(path: Path) -> None:
    """Mark the file at ``path`` as a store, where the file system can."""
    if hasattr(os, "setxattr") and not _is_on(path):
        with contextlib.suppress(OSError):
            os.setxattr(path, _NAME, b"store")


def was_emptied(path: Path) -> bool:
    """Tell whether the file at ``path`` is empty although it has been a store, or has a log that a store left."""
    try:
        if os.stat(path).st_size:
            return False
        return _is_on(path) or bool(os.stat(f"{path}-wal").st_size)
    except OSError:
        return False


def _is_on(path: Path) -> bool:
    if not hasattr(os, "getxattr"):
        return False
    try:
        os.getxattr(path, _NAME)
    except OSError:
        return False
    return True
