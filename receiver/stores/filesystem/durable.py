"""Durable files: how they are made, synced and locked, and the contract's errors for those of a file system."""

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
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe that nobody writes to would block for ever
_FULL = {errno.ENOSPC, errno.EDQUOT}
_TOO_LARGE = {*_FULL, errno.EFBIG}
_KEPT = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR}
_OPEN_AT_ONCE = 32  # files; a batch may have thousands, a process a thousand descriptors
_CAN_ALLOCATE = hasattr(os, "posix_fallocate")
_HAS_HINT = hasattr(os, "posix_fadvise")
_POLL = 0.001  # seconds; a contended lock is rarely free for longer


@contextmanager
def file_errors(full: type[Problem] = StoreUnavailable) -> Iterator[None]:
    """Turn the file system's errors into those of the contract.

    ``full`` is StoreFull where a lack of free space means that nothing was changed, and the caller should know.
    """
    try:
        yield
    except OSError as cause:
        kind = full if cause.errno in _TOO_LARGE else StoreUnavailable
        raise kind(f"files: {cause}{_owned(cause)}") from cause


def is_full(cause: OSError) -> bool:
    """Return whether ``cause`` says that the disk, or the quota on it, has no block or inode left."""
    return cause.errno in _FULL


def _owned(cause: OSError) -> str:
    """Return the fix if a file of the store, or its folder, belongs to another user; else ""."""
    if not isinstance(cause, PermissionError) or not isinstance(cause.filename, str):
        return ""
    return ownership(cause.filename) or ownership(os.path.dirname(cause.filename))


def read_only(path: str, _flags: int = 0) -> int:
    """Open the file at ``path``, which must not be a symbolic link, for reading; an opener for ``open``."""
    return os.open(path, _READ)


def write_file(path: str, *parts: bytes) -> None:
    """Make one file as ``write_files`` does."""
    write_files([(path, parts, None)])


def write_files(files: Iterable[tuple[str, tuple[bytes, ...], int | None]]) -> None:
    """Make files whose contents are durable on return; their names are once their folder is synced.

    Each is a path, the parts of its content, and its modification time in seconds since the epoch, None for now.
    Raises OSError, such as FileExistsError.
    """
    files = iter(files)
    while _write_some(islice(files, _OPEN_AT_ONCE)) == _OPEN_AT_ONCE:
        pass


def _write_some(files: Iterable[tuple[str, tuple[bytes, ...], int | None]]) -> int:
    """Make ``files`` and return how many; all are written before the first is synced.

    So the disk works on all of them during the first sync.
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
    os.fchmod(descriptor, FILE_MODE)  # whatever the umask is
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[os.write(descriptor, left) :]
    if mtime is not None:
        os.utime(descriptor, (mtime, mtime))


def _begin_sync(descriptor: int) -> None:
    """Ask the kernel to begin writing the file, without waiting; a hint, where the system has one."""
    if _HAS_HINT:
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def make_folder(path: str) -> bool:
    """Make the folder ``path`` for its owner only; return whether it is new. Durable once its parent is synced."""
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileExistsError:
        return False
    os.chmod(path, FOLDER_MODE)
    return True


def remove_empty_folder(path: str) -> None:
    """Remove the folder ``path`` if it exists and is empty."""
    try:
        os.rmdir(path)
    except OSError as cause:
        if cause.errno not in _KEPT:
            raise


def make_empty(path: str, size: int) -> None:
    """Make the file ``path`` if it is missing, and give it ``size`` bytes of the disk; not durable."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
        if _CAN_ALLOCATE:
            os.posix_fallocate(descriptor, 0, size)
        else:
            _write(descriptor, (bytes(size),), None)
    finally:
        os.close(descriptor)


def sync_folder(path: str) -> None:
    """Make the names in the folder ``path`` durable, whether created, renamed or removed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def identity(path: str) -> tuple[int, int, int] | None:
    """Return what identifies the file at ``path`` among others there; None when there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def make_lock(folder: str) -> None:
    """Make the lock file of ``folder`` if it is missing."""
    descriptor = os.open(f"{folder}/{LOCK}", _LOCK | os.O_CREAT, FILE_MODE)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != FILE_MODE:
            os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)


@contextmanager
def lock_if_free(folder: str) -> Iterator[bool]:
    """Take the lock of ``folder`` if it is free, and yield whether it was.

    Each call opens the file anew, so the lock excludes threads as well as processes. The kernel releases the lock of a
    process that dies.
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
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough while a forked process has a copy
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
