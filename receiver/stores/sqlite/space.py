"""Space for SQLite's files: a reserve, so that a full disk still lets states be deleted, and limits on a file's size.

On a full disk SQLite can change nothing, since even a delete is first written to the log. So ``-reserve`` beside the
file holds some blocks, a few more than the log: given up, they suffice to copy the log into the file. Then the log is
cut, and the reserve is made again of the blocks that this sets free.
"""

import contextlib
import errno
import math
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from receiver.problems import Problem, StoreFull
from receiver.stores.sqlite.driver import code_of, sqlite3

PAGE = 4096  # bytes, SQLite's default
MOST_LOG_PAGES = 4000  # 16 MiB; SQLite's own 1000 writes the pages that all changes touch four times as often
_LEAST_LOG_PAGES = 64
_SHARE = 20  # the reserve is the 20th part of a small disk
_FOR_DELETES = 64  # pages that saves leave free in a file whose size is limited
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TO_OPEN = 128 << 10  # bytes
_MINE = 64 << 10  # bytes; a disk that has no room for them is full
_STEP = 128 << 10  # bytes of the reserve that are taken at once
_EVERY = 1.0  # seconds between attempts to make the reserve whole
_NO_LIMIT = 0xFFFFFFFE  # pages, SQLite's own
_PATIENCE, _PAUSE = 0.05, 0.001  # seconds for readers to leave the log
Result = TypeVar("Result")


def log_pages(path: Path) -> int:
    """Return how many pages the log of the file at ``path`` may have before it is copied into the file."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return MOST_LOG_PAGES
    return max(_LEAST_LOG_PAGES, min(MOST_LOG_PAGES, disk.f_blocks * disk.f_frsize // _SHARE // PAGE))


class Space:
    """The space around the file at ``path``, which the processes that use it share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reserve = f"{path}-reserve"
        self._covered: float = 0  # bytes of a log that the reserve suffices for, as far as this process knows
        self._tried = 0.0
        self._is_bound = False

    def make_reserve(self) -> None:
        """Make the reserve as large as the log is, and a little more, or as large as the disk allows."""
        self._covered, self._tried = 0, time.monotonic()
        most = log_pages(self._path) * PAGE
        log = min(-(-self._log_size() // _STEP) * _STEP, most)
        with contextlib.suppress(OSError):
            descriptor = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                for start in range(os.fstat(descriptor).st_size // _STEP * _STEP, log + _FOR_DELETES * PAGE, _STEP):
                    os.posix_fallocate(descriptor, start, _STEP)
            finally:
                os.close(descriptor)
            self._covered = max(log, 1) if log < most else math.inf

    def restore(self) -> None:
        """Make the reserve again if the log has outgrown it; if it is not whole, try that once a second."""
        if self._covered < self._log_size() and (self._covered or time.monotonic() - self._tried > _EVERY):
            self.make_reserve()

    def _log_size(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0

    def give_up_reserve(self) -> None:
        """Set the blocks of the reserve free."""
        self._covered = 0
        with contextlib.suppress(OSError):
            os.truncate(self._reserve, 0)

    def with_some(self, do: Callable[[], Result]) -> Result:
        """Return what ``do`` returns, which opens the file; whoever does that first needs room for log and index."""
        try:
            return do()
        except sqlite3.Error as error:
            if not self.is_short(error):
                raise
        self._covered = 0
        with contextlib.suppress(OSError):
            os.truncate(self._reserve, max(0, os.stat(self._reserve).st_size - _TO_OPEN))
        return do()

    def bound(self, connection: sqlite3.Connection, only_frees: bool) -> None:
        """Keep the file within the limit on file sizes: a log that outgrew it could never be copied into the file."""
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        is_bound, self._is_bound = self._is_bound, limit != resource.RLIM_INFINITY
        if self._is_bound:
            pages = limit // PAGE
            pages -= 0 if only_frees else min(_FOR_DELETES, pages // 8)
            connection.execute(f"pragma max_page_count = {max(1, pages)}")
        elif is_bound:  # the limit was taken away
            connection.execute(f"pragma max_page_count = {_NO_LIMIT}")

    def is_short(self, error: sqlite3.Error) -> bool:
        """Tell whether ``error`` says that there is no space: by itself, or by a failed write on a full disk."""
        code = code_of(error)
        if code == sqlite3.SQLITE_FULL:
            return True
        # It has no code of its own for a limit on file sizes, a quota, or an index (-shm) that cannot grow.
        return code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and (self._is_at_limit() or not self._has_room())

    def again(self, attempt: Callable[[], Result], writer: Callable[[], sqlite3.Connection], frees: bool) -> Result:
        """Return what ``attempt`` returns, which has found no space before; raises StoreFull if there is none.

        What ``frees`` space may use the reserve. Anything else may use it too, as room for the log, if the file has
        enough free pages, so that the reserve can be made again afterwards.
        """
        try:
            is_emptied = self.empty_log(writer())
            if not frees and is_emptied:
                try:
                    return attempt()
                except sqlite3.Error as error:
                    if not self.is_short(error) or not _value(writer(), "freelist_count"):
                        raise
            if not frees:
                writer().execute(f"pragma max_page_count = {_value(writer(), 'page_count')}")
            self.give_up_reserve()
            return attempt()
        except sqlite3.Error as error:
            if self.is_short(error):
                raise StoreFull(f"SQLite: {error.sqlite_errorname}: {error}") from error
            raise
        finally:
            with contextlib.suppress(sqlite3.Error, Problem):
                writer().execute(f"pragma max_page_count = {_NO_LIMIT}")
                self.empty_log(writer())
            self.make_reserve()

    def empty_log(self, connection: sqlite3.Connection) -> bool:
        """Copy the log into the file and cut it, at the cost of the reserve if need be; return whether it is empty."""
        try:
            return _emptied(connection)
        except sqlite3.Error as error:
            if not self.is_short(error):
                raise
        self.give_up_reserve()
        try:
            return _emptied(connection)
        except sqlite3.Error:
            return False
        finally:
            self.make_reserve()

    def _is_at_limit(self) -> bool:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit == resource.RLIM_INFINITY:
            return False
        sizes = [os.stat(f"{self._path}{end}").st_size for end in ("", "-wal") if os.path.exists(f"{self._path}{end}")]
        return max(sizes, default=0) + 16 * PAGE > limit

    def _has_room(self) -> bool:
        """Try to write a little: a quota shows in no other way."""
        name = f"{self._path}-{os.getpid()}"
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _MINE)
            finally:
                os.close(descriptor)
        except OSError as cause:
            return cause.errno not in _FULL  # a broken or read-only disk is no lack of space
        finally:
            with contextlib.suppress(OSError):
                os.unlink(name)
        return True


def _value(connection: sqlite3.Connection, pragma: str) -> int:
    number: int = connection.execute(f"pragma {pragma}").fetchone()[0]
    return number


def _emptied(connection: sqlite3.Connection) -> bool:
    """Copy the log into the file and cut it; return whether no reader prevented that."""
    until = time.monotonic() + _PATIENCE
    while connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0]:
        if time.monotonic() > until:
            return False
        time.sleep(_PAUSE)
    return True
