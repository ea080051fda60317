"""Folders and files held by a descriptor, so that nobody can swap the file behind a name."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer would block for ever
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

Identity = tuple[int, int]  # device and inode; no other file has them while a descriptor is open


@contextlib.contextmanager
def opened(name: str, within: int | None = None) -> Iterator[int]:
    """Yield a descriptor of the folder ``name`` in the folder ``within``; raises OSError for a link."""
    descriptor = os.open(name, _FOLDER, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def identity(status: os.stat_result) -> Identity:
    """Return what distinguishes the file of ``status`` from every other file."""
    return status.st_dev, status.st_ino


def is_private(status: os.stat_result, owner: int) -> bool:
    """Tell whether the file of ``status`` belongs to the user ``owner``, and no other user may use it."""
    return status.st_uid == owner and not status.st_mode & _OTHERS


def read(name: str, within: int, owner: int, most: int) -> bytes:
    """Return the content of the file ``name`` in the folder ``within``, if it is a regular file of ``owner``.

    Never blocks, and reads ``most`` bytes at most. Raises OSError, and ValueError for a larger or any other file.
    """
    with open(os.open(name, _FILE, dir_fd=within), "rb") as file:
        _check(os.fstat(file.fileno()), owner)
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError("is too large")
    return data


@contextlib.contextmanager
def opened_file(name: str, within: int, owner: int) -> Iterator[int]:
    """Yield a descriptor that reads the regular file ``name`` of ``owner`` in the folder ``within``.

    Raises OSError, and ValueError for any other file.
    """
    descriptor = os.open(name, _FILE, dir_fd=within)
    try:
        _check(os.fstat(descriptor), owner)
        yield descriptor
    finally:
        os.close(descriptor)


def _check(status: os.stat_result, owner: int) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_uid != owner:
        raise ValueError("is not a regular file of that user")


def remove(name: str, within: int, descriptor: int) -> None:
    """Remove the folder open as ``descriptor`` with its content, as far as possible.

    The descriptor counts, not the name: another user's folder may have its ``name`` in the folder ``within`` by now.
    """
    with contextlib.suppress(OSError):
        for entry in os.listdir(descriptor):
            try:
                os.unlink(entry, dir_fd=descriptor)
            except OSError:  # a folder
                shutil.rmtree(entry, ignore_errors=True, dir_fd=descriptor)
        if identity(os.stat(name, dir_fd=within, follow_symlinks=False)) == identity(os.fstat(descriptor)):
            os.rmdir(name, dir_fd=within)


def path_of(descriptor: int) -> Path:
    """Return a path to the file open as ``descriptor``, for code that takes only paths; see proc(5)."""
    return Path(f"/proc/self/fd/{descriptor}")
