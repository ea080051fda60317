"""Files that last: how they are made, synced and locked, and what becomes of a file system's errors."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice

from receiver.files import ownership
from receiver.problems import Problem, StoreUnavailable
from receiver.threadpool import blocking

FILE_MODE = 0o600
FOLDER_MODE = 0o700
LOCK = ".lock"

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_LOCK = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe nobody writes to would hold for ever
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OPEN_AT_ONCE = 32  # files; a batch may have thousands, a process has descriptors for a thousand
_HAS_HINT = hasattr(os, "posix_fadvise")
_POLL = 0.001  # seconds; a lock is rarely free for longer than this while many want it


@contextmanager
def file_errors(full: type[Problem] = StoreUnavailable) -> Iterator[None]:
    """Turn what the file system raises into the contract's errors: the one place that knows them.

    ``full`` is StoreFull where want of room means that nothing was changed, and the caller should learn it.
    """
    try:
        yield
    except OSError as cause:
        kind = full if cause.errno in _FULL else StoreUnavailable
        raise kind(f"files: {cause}{_owned(cause)}") from cause


def _owned(cause: OSError) -> str:
    """Return what helps where a file of the store, or the folder that it lies in, is another user's."""
    if not isinstance(cause, PermissionError) or not isinstance(cause.filename, str):
        return ""
    return ownership(cause.filename) or ownership(os.path.dirname(cause.filename))


def read_only(path: str, _flags: int = 0) -> int:
    """Return a descriptor that reads the file at ``path``, which is no symbolic link; an opener for ``open``."""
    return os.open(path, _READ)


def write_file(path: str, *parts: bytes) -> None:
    """Make one file, as ``write_files`` makes many."""
    write_files([(path, parts, None)])


def write_files(files: Iterable[tuple[str, tuple[bytes, ...], int | None]]) -> None:
    """Make files and return when their contents last; their names do once their folder is synced.

    Each is a path, the parts of its content, and its time in seconds since the epoch, or None for now. Raises OSError,
    FileExistsError among them.
    """
    files = iter(files)
    while _write_some(islice(files, _OPEN_AT_ONCE)) == _OPEN_AT_ONCE:
        pass


def _write_some(files: Iterable[tuple[str, tuple[bytes, ...], int | None]]) -> int:
    """Make as many files as there are and return how many, all written before the first is synced.

    So the disk is at work on all of them while the first is waited for.
    """
    descriptors: list[int] = []
    with ExitStack() as closing:
        for path, parts, mtime in files:
            descriptor = os.open(path, _WRITE, FILE_MODE)
            closing.callback(os.close, descriptor)
            descriptors.append(descriptor)
            _write(descriptor, parts, mtime)
        if len(descriptors) > 1:
            for descriptor in descriptors:
                _begin_sync(descriptor)
        for descriptor in descriptors:
            os.fsync(descriptor)
    return len(descriptors)


def _write(descriptor: int, parts: tuple[bytes, ...], mtime: int | None) -> None:
    os.fchmod(descriptor, FILE_MODE)  # the umask may have taken some of it
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[os.write(descriptor, left) :]
    if mtime is not None:
        os.utime(descriptor, (mtime, mtime))


def _begin_sync(descriptor: int) -> None:
    """Have the kernel begin to write the file, without waiting for it; a hint, where there is such a one."""
    if _HAS_HINT:
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def make_folder(path: str) -> bool:
    """Make the folder ``path`` for its owner only; return whether it is new. It lasts once its parent is synced."""
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileExistsError:
        return False
    os.chmod(path, FOLDER_MODE)
    return True


def sync_folder(path: str) -> None:
    """Return when the names in the folder ``path`` last: those made, those renamed, those removed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def identity(path: str) -> tuple[int, int, int] | None:
    """Return what tells the file at ``path`` from another one there, or None when there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def make_lock(folder: str) -> None:
    """Make the file whose lock is the lock of ``folder``, if it is not there."""
    descriptor = os.open(f"{folder}/{LOCK}", _LOCK | os.O_CREAT, FILE_MODE)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != FILE_MODE:
            os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)


@contextmanager
def lock_if_free(folder: str) -> Iterator[bool]:
    """Hold the lock of ``folder`` if nobody else does, and yield whether it is held.

    Each time a descriptor of its own: so it excludes threads as well as processes. The kernel frees that of the dead.
    """
    descriptor = os.open(f"{folder}/{LOCK}", _LOCK)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing would not do while a forked process has a copy
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: str, deadline: float) -> Iterator[None]:
    """Hold the lock of ``folder``; raises StoreUnavailable when it is not free by ``deadline`` (time.monotonic)."""
    while True:
        with lock_if_free(folder) as held:
            if held:
                yield
                return
        pause(deadline)


def pause(deadline: float) -> None:
    """Wait a moment for another process; raises StoreUnavailable when ``deadline`` (time.monotonic) has passed."""
    if time.monotonic() >= deadline:
        raise StoreUnavailable("files: another change was not finished in time")
    with blocking():
        time.sleep(_POLL)
