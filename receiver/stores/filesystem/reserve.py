"""A little free space of the disk that the store keeps for itself: a delete works even when the disk is full.

The reserve is a folder of files that hold nothing. A change that frees space, or that is already committed, gives it up
when the disk is full. A save needs the whole reserve, so saves cannot eat what was given up; the first save for which
there is space again makes it anew. It is not durable, and need not be.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from receiver.stores.filesystem import durable

_FOLDER = ".reserve"
_FILES = 16  # inodes; each file of a change needs one, on tmpfs each name
_LEAST, _MOST = 64 << 10, 1 << 20  # bytes
_SHARE = 256  # one part in so many of the disk
_PATIENCE = 2.0  # seconds to wait for the lock of the store, which is held for a few syncs at most
Result = TypeVar("Result")


class Reserve:
    """The reserve of the store in the folder ``root``."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._folder = f"{root}/{_FOLDER}"
        self._names = [f"{self._folder}/{number:x}" for number in range(_FILES)]

    def ensure(self) -> None:
        """Make the reserve if it was given up; raises OSError where the disk is full, and then takes nothing."""
        if durable.identity(self._names[-1]) is None:
            with durable.locked(self._root, time.monotonic() + _PATIENCE):
                try:
                    self._make()
                except OSError as cause:
                    with suppress(OSError):
                        self._give_up()
                    if durable.is_full(cause):  # where a limit on the size of a file refuses it, there is none
                        raise

    def lending(self, action: Callable[[], Result]) -> Result:
        """Return what ``action`` returns; where it finds the disk full, give up the reserve and call it once more."""
        try:
            return action()
        except OSError as cause:
            if not durable.is_full(cause):
                raise
        with durable.locked(self._root, time.monotonic() + _PATIENCE):
            self._give_up()
            return action()

    def _make(self) -> None:
        durable.make_folder(self._folder)
        disk = os.statvfs(self._root)
        size = min(max(disk.f_blocks * disk.f_frsize // _SHARE, _LEAST), _MOST)
        for name in self._names:
            durable.make_empty(name, size // _FILES)

    def _give_up(self) -> None:
        for name in reversed(self._names):
            with suppress(FileNotFoundError):
                os.unlink(name)
        with suppress(OSError):
            durable.sync_folder(self._root)  # some file systems free the blocks only then
