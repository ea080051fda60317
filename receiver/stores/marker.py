"""The marker of a store on a disk: a small file beside it that says which store lies there, and how far it was.

A store has an identity inside. Its marker repeats it outside, so that a store that is gone, emptied or replaced by
another is noticed, and not answered by a new one. The generation grows with what the store commits; the token tells
apart two stores that reached one generation on different ways, such as an older copy that was used since.
"""

import contextlib
import fcntl
import os
import re
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from receiver.files import sync_folder
from receiver.problems import StoreMisplaced

_LINE = re.compile(rb"store ([0-9a-f-]{36}) generation ([0-9]{20}) token ([0-9a-f]{16}) crc32 ([0-9a-f]{8})\n")
_SIZE = len(b"store  generation  token  crc32 \n") + 36 + 20 + 16 + 8
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_MODE = 0o600


class Mark(NamedTuple):
    """What identifies a store and its last commit.

    ``store`` is its UUID in lower case, ``generation`` its count of commits, ``token`` 16 random hexadecimal digits of
    the last of them.
    """

    store: str
    generation: int
    token: str


class Marker:
    """The marker at ``path`` of the store at ``of``, whose owner gets it. Threads and processes may share it."""

    def __init__(self, path: str | os.PathLike[str], of: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path)
        self._of = of
        self._beside = str(self.path.with_name(f".{self.path.name}"))  # hidden, and never left behind
        self._guard = threading.Lock()
        self._opened: tuple[int, int] | None = None  # the process that opened it, and the descriptor
        self._node: tuple[int, int] | None = None  # its device and inode
        self._written: bytes | None = None  # the last line that ``advance`` wrote

    def read(self) -> Mark | None:
        """Return what the marker says; None when there is none.

        Raises StoreMisplaced when the file is not a marker, OSError when it cannot be read.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            try:
                return self._parsed(os.pread(descriptor, _SIZE + 1, 0))
            except StoreMisplaced:  # damaged, or half written: ``advance`` holds the lock while it writes
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                return self._parsed(os.pread(descriptor, _SIZE + 1, 0))
        finally:
            os.close(descriptor)

    def make(self, mark: Mark) -> Mark:
        """Make the marker say ``mark`` if there is none; return what it says then. It is durable on return.

        Raises OSError, StoreMisplaced.
        """
        with self._alone() as new:
            found = self.read()
            if found is None:
                self._put(new, mark)
            return found or mark

    def replace(self, mark: Mark) -> None:
        """Make the marker say ``mark``, whatever it said. It is whole and durable on return. Raises OSError."""
        with self._alone() as new:
            self._put(new, mark)

    def advance(self, mark: Mark) -> None:
        """Make the marker say ``mark`` unless it says a later generation; a marker that is missing is made.

        Nothing is synced: after a power cut the marker may lag behind the store, which proves nothing against it. The
        caller has committed ``mark``, so the marker is never ahead. Raises StoreMisplaced when the marker is that of
        another store, OSError when it cannot be written.
        """
        with self._guard:
            descriptor = self._own()
            if descriptor is None:
                self.make(mark)
                return
            line = _line(mark)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                before = os.pread(descriptor, _SIZE + 1, 0)
                if before != self._written:  # another process has advanced it
                    found = self._parsed(before)
                    self._check_same(found, mark)
                    if found.generation >= mark.generation:
                        return
                elif before >= line:  # of one store; the numbers have one width
                    self._check_same(self._parsed(before), mark)
                    return
                os.pwrite(descriptor, line, 0)
                self._written = line
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _check_same(self, found: Mark, mark: Mark) -> None:
        if found.store != mark.store:
            raise StoreMisplaced(
                f"{self.path}: names the store {found.store}, but the one in use is {mark.store}: restart the receiver"
            )

    def close(self) -> None:
        """Close what this process holds open of the marker; it may be used again."""
        with self._guard:
            opened, self._opened = self._opened, None
            if opened:
                os.close(opened[1])

    def _own(self) -> int | None:
        """Return a descriptor of the file that is at the path now, opened by this process; None when there is none.

        A lock on a descriptor that a parent process opened would not exclude that process.
        """
        opened = self._opened
        try:
            status = os.stat(self.path, follow_symlinks=False)
            if opened:
                if opened[0] == os.getpid() and self._node == (status.st_dev, status.st_ino):
                    return opened[1]
                self._opened = None
                os.close(opened[1])
            descriptor = os.open(self.path, _FLAGS)
        except FileNotFoundError:
            return None
        own = os.fstat(descriptor)
        self._opened, self._node, self._written = (os.getpid(), descriptor), (own.st_dev, own.st_ino), None
        return descriptor

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """Yield an empty file beside the marker, whose lock keeps others from making one at the same time."""
        beside = self._beside
        while True:
            descriptor = os.open(beside, _FLAGS | os.O_CREAT, _MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not _is_at(beside, descriptor):
                    continue  # another has made it the marker, or removed it
                try:
                    yield descriptor
                finally:
                    if _is_at(beside, descriptor):
                        os.unlink(beside)
                return
            finally:
                os.close(descriptor)

    def _put(self, new: int, mark: Mark) -> None:
        os.fchmod(new, _MODE)  # whatever the umask is
        if self._of is not None and os.geteuid() == 0:  # as SQLite does for the files beside its own
            with contextlib.suppress(OSError):
                status = os.stat(self._of)
                os.fchown(new, status.st_uid, status.st_gid)
        os.ftruncate(new, 0)  # left by a process that was killed
        os.pwrite(new, _line(mark), 0)
        os.fsync(new)
        os.rename(self._beside, self.path)
        sync_folder(self.path.parent)

    def _parsed(self, line: bytes) -> Mark:
        match = _LINE.fullmatch(line)
        if match is None or int(match[4], 16) != zlib.crc32(line[: match.start(4)]):
            raise StoreMisplaced(
                f"{self.path}: is damaged, so nothing proves which store belongs here: if the right one is there, run"
                " `receiver store accept`"
            )
        return Mark(match[1].decode(), int(match[2]), match[3].decode())


def _line(mark: Mark) -> bytes:
    text = f"store {mark.store} generation {mark.generation:020d} token {mark.token} crc32 ".encode("ascii")
    return b"%b%08x\n" % (text, zlib.crc32(text))


def _is_at(path: str, descriptor: int) -> bool:
    own = os.fstat(descriptor)
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)
