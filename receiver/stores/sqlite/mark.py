"""The mark of a store on SQLite's file: an attribute of the file (xattr(7)), which stays when the file is emptied.

It distinguishes a store that was emptied from an empty file that an operator made on purpose. Some file systems keep no
attributes: there the two look the same.
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
    """Return whether the file at ``path`` is empty although it has held a store, or a store's log lies beside it."""
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
