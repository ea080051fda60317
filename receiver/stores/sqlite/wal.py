"""SQLite's write-ahead log, and what becomes of a store whose log was removed by hand.

What was acknowledged stands in ``-wal`` until a checkpoint copies it into the file; ``-shm`` is the index that the
processes share. SQLite removes both when the last connection closes, the index first, so that neither disappears while
a connection is open, and no index lies there without its log. A connection does not notice when someone removes them:
it goes on writing to a file without a name, and what it commits is gone with it.
"""

import contextlib
import fcntl
import os
import struct
from pathlib import Path

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores.sqlite.driver import sqlite3

Identity = tuple[tuple[int, int], ...]
# The index's header: is it initialised, how many frames the log has, how many of them were copied into the file
# (sqlite.org/walformat.html, section 2.1).
_INDEX = struct.Struct("=12xB3xI76xI")
_FLOCK = struct.Struct("@hhqqi")  # of Linux on 64 bits: type, whence, start, length, process
_IN_USE = 128  # the byte of the index that each open connection has locked
_kept: dict[tuple[int, int], int] = {}  # descriptors of indexes: closing one would drop this process's locks on it


def identity_of(path: Path) -> Identity | None:
    """Return what tells the log of the file at ``path``, and its index, from others; None where one is missing."""
    try:
        found = os.stat(f"{path}-wal"), os.stat(f"{path}-shm")
    except FileNotFoundError:
        return None
    return tuple((status.st_dev, status.st_ino) for status in found)


def check_in_use(path: Path, connection: sqlite3.Connection, own: Identity) -> None:
    """Raise StoreUnavailable unless the log and index that ``connection`` has open, its ``own``, still lie there.

    Where they are missing, what the log holds is first copied into the file: then a restart loses nothing.
    """
    found = identity_of(path)
    if found == own:
        return
    if found is None:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("pragma wal_checkpoint")
    raise StoreUnavailable(
        f"SQLite: {path}-wal or -shm was removed while in use: stop every process of the receiver, then start it again"
    )


def check_not_lost(path: Path) -> None:
    """Raise StoreMisplaced when the log is missing although the index says that it holds what the file lacks.

    Also while another process has it open: a new log beside that one would damage the file.
    """
    log, index = f"{path}-wal", f"{path}-shm"
    if os.path.exists(log) or not os.path.exists(index):
        return
    with contextlib.suppress(FileNotFoundError):
        descriptor = _open(index)
        if os.path.exists(log):
            return
        header = os.pread(descriptor, _INDEX.size, 0)
        frames, copied = _INDEX.unpack(header)[1:] if len(header) == _INDEX.size and header[12] else (0, 0)
        if frames and _is_locked(descriptor):
            raise StoreMisplaced(
                f"{log}: was removed while in use: stop every process of the receiver, then start it again"
            )
        if frames > copied:
            raise StoreMisplaced(
                f"{log}: is missing, and with it the last states that were saved: put it back; if it is lost, remove"
                f" {index} and start with what the file holds"
            )


def _open(index: str) -> int:
    status = os.stat(index)
    key = status.st_dev, status.st_ino
    if key not in _kept:
        _kept[key] = os.open(index, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    return _kept[key]


def _is_locked(descriptor: int) -> bool:
    """Tell whether another process has the index open."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _IN_USE, 1, 0)
    answer: bytes = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
