"""SQLite's write-ahead log: protects a store whose log was removed by hand.

``-wal`` holds what was acknowledged until a checkpoint copies it into the file; ``-shm`` is the index that processes
share. SQLite removes both when the last connection closes, the index first. So neither disappears while a connection
is open, and there is no index without its log. A connection does not notice when someone removes them: it goes on
writing to a file without a name, and loses what it commits.
"""

import contextlib
import fcntl
import os
import struct
from pathlib import Path

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores.sqlite.driver import sqlite3

Identity = tuple[int, int, int]  # of the log: its device, its inode, and that of its index
# The index's header: how many frames the log has, how many of them were copied into the file; byte 12 tells whether it
# is initialised (sqlite.org/walformat.html, section 2.1).
_INDEX = struct.Struct("=16xI76xI")
_FLOCK = struct.Struct("@hhqqi")  # of Linux on 64 bits: type, whence, start, length, process
_IN_USE = 128  # the byte of the index that each open connection has locked
_in_use: dict[str, tuple[int, int]] = {}  # the index at each path that a connection of this process had open last
_kept: dict[tuple[int, int], int] = {}  # descriptors of indexes: closing one would drop this process's locks on it


class WriteAheadLog:
    """The log of the file at ``path``, with its index."""

    def __init__(self, path: Path) -> None:
        self._log, self._index = f"{path}-wal", f"{path}-shm"

    def identity(self) -> Identity | None:
        """Return what identifies this log and its index among others at the same paths; None when one is missing."""
        try:
            log, index = os.stat(self._log), os.stat(self._index)
        except FileNotFoundError:
            return None
        return log.st_dev, log.st_ino, index.st_ino

    def opened(self) -> Identity | None:
        """Return the identity of the log that a connection to keep has just opened."""
        found = self.identity()
        if found:
            _in_use[self._index] = found[0], found[2]
        return found

    def check_in_use(self, connection: sqlite3.Connection, own: Identity | None) -> None:
        """Raise StoreUnavailable unless the log and index that ``connection`` has open, its ``own``, are still there.

        If they are missing, it first copies the log into the file, so that a restart loses nothing.
        """
        found = self.identity()
        if found == own:
            return
        if found is None:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("pragma wal_checkpoint")
        raise StoreUnavailable(
            f"SQLite: {self._log} or -shm was removed while in use: stop every process of the receiver, then start it"
            " again"
        )

    def check_not_lost(self) -> None:
        """Raise StoreMisplaced when the log is missing although the index says that it holds what the file lacks.

        The same while any process has the log open: writing to a new one beside it would damage the file.
        """
        if os.path.exists(self._log) or not os.path.exists(self._index):
            return
        with contextlib.suppress(FileNotFoundError):
            descriptor = _open(self._index)
            if os.path.exists(self._log):
                return
            header = os.pread(descriptor, _INDEX.size, 0)
            frames, copied = _INDEX.unpack(header) if len(header) == _INDEX.size and header[12] else (0, 0)
            if frames and (_is_locked(descriptor) or _key_of(self._index) == _in_use.get(self._index)):
                raise StoreMisplaced(
                    f"{self._log}: was removed while in use: stop every process of the receiver, then start it again"
                )
            if frames > copied:
                raise StoreMisplaced(
                    f"{self._log}: is missing, and with it the last states that were saved: put it back; if it is lost,"
                    f" remove {self._index} and start with what the file holds"
                )


def _open(index: str) -> int:
    key = _key_of(index)
    if key not in _kept:
        _kept[key] = os.open(index, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    return _kept[key]


def _key_of(index: str) -> tuple[int, int]:
    status = os.stat(index)
    return status.st_dev, status.st_ino


def _is_locked(descriptor: int) -> bool:
    """Return whether another process has the index open."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _IN_USE, 1, 0)
    answer: bytes = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
