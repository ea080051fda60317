"""Writes out what the log of a running receiver holds, once the log, its index or the file was removed or replaced.

The open connections still reach all three, whatever lies at their paths. What only the log holds is copied into the
open file by a checkpoint. If that file has no name any more, a backup is written beside the place where it was.
"""

import fcntl
import logging
import os
import threading
import time
import weakref
from contextlib import closing

from receiver.files import sync_folder
from receiver.stores.sqlite.driver import sqlite3
from receiver.stores.sqlite.generation import marked
from receiver.stores.sqlite.wal import Files, WriteAheadLog, begins_with, holds_last, index_in, kept

_PATIENCE = 1.5  # seconds for a checkpoint, while other processes are in the way
_NOT_WRITTEN = (
    "what only its log holds could not be written out yet: do not end the receiver, which tries again at each request,"
    " but end other programs that use the file"
)


class Opened:
    """What the connections of one process have open: the ``files`` of ``wal``. Raises FileNotFoundError."""

    def __init__(self, wal: WriteAheadLog, files: Files) -> None:
        self.process = os.getpid()
        self.files = files
        self._wal, self._file, self._index = wal, kept(wal.file), kept(wal.index)
        self._log = os.open(wal.log, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        weakref.finalize(self, os.close, self._log).atexit = False
        self._guard = threading.Lock()
        self._found: Files | None = None  # what was at the paths when it was written out
        self._outcome = ""
        self._is_done = False

    def write_out(self, connection: sqlite3.Connection) -> str:
        """Write out what the log holds; return a sentence with what was found and the remedy."""
        found = self._wal.files()
        if found != self._found and self._guard.acquire(blocking=False):
            try:
                self._outcome = self._written_out(connection, found)
                self._found = self._wal.files() if self._is_done else None  # others were put aside
            finally:
                self._guard.release()
            logging.getLogger("receiver").error("%s", self._outcome)
        return self._outcome or f"SQLite: {self._what(found)}: stop every process of the receiver"

    def emptied(self) -> str:
        """Return the path of the file or the log if it was emptied in place; "" if neither was.

        SQLite goes on behind the hole, and loses all of it at the next start.
        """
        if not os.fstat(self._file).st_size:
            return self._wal.file
        index = index_in(self._index)
        while index and index.frames and not begins_with(self._log, index.salts):
            before, index = index, index_in(self._index)
            if index == before:  # else the log has just begun anew, which changes the index first
                return self._wal.log
        return ""

    def _what(self, found: Files) -> str:
        wal = self._wal
        for path, there, own in zip((wal.file, wal.log, wal.index), found, self.files, strict=True):
            if there != own:
                return f"{path} was {'replaced' if there else 'removed'} while in use"
        return f"{wal.file} was removed for a moment while in use"

    def _written_out(self, connection: sqlite3.Connection, found: Files) -> str:
        what, stop = f"SQLite: {self._what(found)}", "stop every process of the receiver, then"
        if self._wal.is_used_elsewhere(self.files):
            return f"{what}, and another process uses others: stop every process of the receiver, then start it again"
        is_whole = self._is_done = self._checkpoint(connection)
        if found.file == self.files.file:
            if not is_whole:
                return f"{what}, and {_NOT_WRITTEN}"
            aside = self._wal.put_aside(self.files)
            moved = f" (what lay there is {', '.join(aside)} now)" if aside else ""
            return f"{what}; all that was acknowledged is in {self._wal.file}{moved}: {stop} start it again"
        if is_whole and os.fstat(self._file).st_nlink:
            place = os.readlink(f"/proc/self/fd/{self._file}")
            return f"{what}; all that was acknowledged is in {place}: {stop} put that back, without -wal and -shm"
        name = self._back_up(connection)
        self._is_done = bool(name)
        if not name:
            return f"{what}; another process writes all that was acknowledged to a backup beside it: {stop} see its log"
        return f"{what}; all that was acknowledged is in {name}: {stop} put that in its place, without -wal and -shm"

    def _checkpoint(self, connection: sqlite3.Connection) -> bool:
        """Copy the log into the open file; return whether all of it is there.

        Not if another process has written to the log that was put in place of this one: the index tells of frames that
        this one has not.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            index = index_in(self._index)
            if index is None or index.copied >= index.frames:
                return True
            if holds_last(self._log, index):
                busy, frames, copied = connection.execute("pragma wal_checkpoint(passive)").fetchone()
                if not busy and frames == copied:
                    return True
            if time.monotonic() > until:
                return False
            time.sleep(0.01)

    def _back_up(self, connection: sqlite3.Connection) -> str:
        """Write the whole store to a file beside; return its name, or "" while another process writes it."""
        mark = marked(connection)
        name = f"{self._wal.file}.rescued-{mark.generation if mark else 0}"
        if os.path.exists(name):
            return name
        part = os.open(f"{name}.part", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return name if os.path.exists(name) else ""
            with closing(sqlite3.connect(f"{name}.part", isolation_level=None)) as target:
                connection.backup(target)
            os.fsync(part)
            os.rename(f"{name}.part", name)
            sync_folder(os.path.dirname(os.path.abspath(name)))
        finally:
            os.close(part)
        return name
