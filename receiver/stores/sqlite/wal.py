"""SQLite's write-ahead log: what tells that the log, its index or the file is no longer the one in use.

``-wal`` holds what was acknowledged until a checkpoint copies it into the file; ``-shm`` is the index that processes
share. SQLite removes both when the last connection closes, the index first. So neither disappears while a connection
is open, and there is no index without its log. A connection does not notice when someone removes or replaces them: it
goes on writing to a file without a name, and loses what it commits.
"""

import contextlib
import fcntl
import os
import struct
import time
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from receiver.files import sync_folder
from receiver.problems import StoreMisplaced

_Node = tuple[int, int] | None  # device and inode of what lies at a path
# The index's header (sqlite.org/walformat.html, section 2.1): whether it is initialised, the size of pages, the frames
# in the log, the checksum of the last one, the salts of the log; and how many frames were copied into the file.
_INDEX = struct.Struct("=12xBxHI4x8s8s8x48xI")
_HEADER = 48  # bytes; there are two, equal unless a commit is writing them
_FRAME = struct.Struct(">8x8sII")  # of the log: salts and checksum
_FRAME_HEADER, _LOG_HEADER = 24, 32
_LOG_SALTS = 16  # where they are in the header of the log
_FLOCK = struct.Struct("@hhqqi")  # of Linux on 64 bits: type, whence, start, length, process
_INDEX_LOCK = (128, 1)  # the byte of the index that each open connection has locked
_FILE_LOCK = (0x40000002, 510)  # the bytes of the file that each connection in WAL mode has locked
_SETTLING = 1.0  # seconds; other processes may be opening or closing the file
_COARSE = 3 * 10**9  # nanoseconds; the coarsest times of change are those of FAT, two seconds
_LOOK_EVERY = 10**9  # nanoseconds
_kept: dict[tuple[int, int], int] = {}  # descriptors: closing one would drop this process's locks on its file


class Files(NamedTuple):
    """What lies at the paths of the file, its log and its index; None where there is nothing."""

    file: _Node
    log: _Node
    shm: _Node


class Index(NamedTuple):
    """What the index says of its log: ``copied`` of its ``frames`` were copied into the file."""

    page_size: int
    frames: int
    checksum: tuple[int, int]
    salts: bytes
    copied: int


class WriteAheadLog:
    """The log of the file at ``path``, with its index."""

    def __init__(self, path: Path) -> None:
        self.file = str(path)
        self._seen: tuple[tuple[int, ...], int, Files] = ((), 0, Files(None, None, None))

    @cached_property
    def _real(self) -> str:
        """The file's path without links, which SQLite follows, too. Looks at the disk, so not before the first use."""
        return os.path.realpath(self.file)

    @cached_property
    def log(self) -> str:
        """The path of the log."""
        return f"{self._real}-wal"

    @cached_property
    def index(self) -> str:
        """The path of the index."""
        return f"{self._real}-shm"

    @cached_property
    def _folder(self) -> str:
        return os.path.dirname(self._real)

    @cached_property
    def _is_one_folder(self) -> bool:
        return self._real == os.path.abspath(self.file)

    def files(self) -> Files:
        """Return what lies at the three paths now.

        The time of change of a folder tells whether a name in it was removed or replaced. It is coarse, so it proves
        nothing soon after a change. It does not tell of mounts, so all three are looked at every second.
        """
        now = time.time_ns()
        try:
            folder = os.stat(self._folder)
        except FileNotFoundError:
            return Files(None, None, None)
        change = folder.st_mtime_ns, folder.st_ino, folder.st_dev
        seen, looked, files = self._seen
        if seen == change and looked <= now < looked + _LOOK_EVERY:
            return files
        found = Files(*[_node_at(path) for path in (self.file, self.log, self.index)])
        if self._is_one_folder and folder.st_mtime_ns + _COARSE < now:
            self._seen = change, now, found
        return found

    def check_not_lost(self) -> None:
        """Raise StoreMisplaced when the log is missing although the index says that it holds what the file lacks.

        The same while another process uses a log or an index that is no longer there, or another file: to open new
        ones beside them would damage the file.
        """
        until = time.monotonic() + _SETTLING
        while fault := self._misuse():
            if time.monotonic() >= until:
                raise StoreMisplaced(fault)
            time.sleep(0.01)
        self._check_missing()

    def _misuse(self) -> str:
        """Return why the file must not be opened beside the processes that have it open; "" when it may be."""
        with contextlib.suppress(FileNotFoundError):
            index = kept(self.index) if _node_at(self.index) else None
            in_use = index is not None and _is_locked(index, _INDEX_LOCK)
            file_in_use = bool(_node_at(self.file)) and _is_locked(kept(self.file), _FILE_LOCK)
            known = None if index is None else index_in(index)
            if in_use != file_in_use or (in_use and not self._belongs(known)):
                return (
                    f"{self.file}: it, its -wal or -shm was removed or replaced while in use: stop every process of"
                    " the receiver, then start it again"
                )
        return ""

    def _check_missing(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            known = index_in(kept(self.index)) if _node_at(self.index) else None
            if known and not os.path.exists(self.log) and known.frames > known.copied and not self._has_marker():
                raise StoreMisplaced(
                    f"{self.log}: is missing, and with it the last states that were saved: put it back; if it is lost,"
                    f" remove {self.index}, and run `receiver store accept` to go on with what the file holds"
                )

    def _has_marker(self) -> bool:
        """Return whether the store has a marker, which knows better: a power cut may leave an index of any age."""
        return os.path.exists(f"{self.file}-marker")

    def sync(self) -> None:
        """Make durable what the log holds, and its name.

        SQLite takes for committed what a killed process wrote there, synced or not, and does not sync it itself before
        the next commit. Until then, a power cut would take back what was seen and acknowledged again.
        """
        descriptor = os.open(self.log, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # SQLite has no locks on a log
        sync_folder(self._folder)

    def _belongs(self, index: Index | None) -> bool:
        """Return whether the log that is there is that of ``index``."""
        try:
            descriptor = os.open(self.log, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            return index is None or holds_last(descriptor, index)
        finally:
            os.close(descriptor)  # SQLite has no locks on a log

    def is_used_elsewhere(self, files: Files) -> bool:
        """Return whether other processes use another index than that of ``files`` for the file at the path."""
        with contextlib.suppress(FileNotFoundError):
            found = _node_at(self.index)
            return found is not None and found != files.shm and _is_locked(kept(self.index), _INDEX_LOCK)
        return False

    def put_aside(self, files: Files) -> list[str]:
        """Rename a log and an index that are not those of ``files``, so that no start uses them; return the names."""
        named = []
        for path, own in ((self.log, files.log), (self.index, files.shm)):
            found = _node_at(path)
            if found and found != own:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    os.rename(path, f"{path}.set-aside-{found[1]}")
                    named.append(f"{path}.set-aside-{found[1]}")
        return named


def index_in(descriptor: int) -> Index | None:
    """Return what the index open at ``descriptor`` says; None while it is not initialised."""
    for _ in range(100):  # a commit writes one header after the other
        header = os.pread(descriptor, _INDEX.size, 0)
        if len(header) < _INDEX.size:
            return None
        if header[:_HEADER] == header[_HEADER : 2 * _HEADER]:
            break
    initialised, size, frames, checksum, salts, copied = _INDEX.unpack(header)
    if not initialised:
        return None
    return Index(65536 if size == 1 else size, frames, struct.unpack("=II", checksum), salts, copied)


def begins_with(descriptor: int, salts: bytes) -> bool:
    """Return whether the header of the log open at ``descriptor`` has these ``salts``."""
    return os.pread(descriptor, len(salts), _LOG_SALTS) == salts


def holds_last(descriptor: int, index: Index) -> bool:
    """Return whether the log open at ``descriptor`` has the last frame that ``index`` knows."""
    if not index.frames:
        return True
    place = _LOG_HEADER + (index.frames - 1) * (_FRAME_HEADER + index.page_size)
    header = os.pread(descriptor, _FRAME_HEADER, place)
    return len(header) == _FRAME_HEADER and _FRAME.unpack(header) == (index.salts, *index.checksum)


def kept(path: str) -> int:
    """Return a descriptor of what is at ``path``, which stays open; raises FileNotFoundError."""
    node = _node_at(path)
    if node is None:
        raise FileNotFoundError(path)
    if node not in _kept:
        _kept[node] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return _kept[node]


def _node_at(path: str) -> _Node:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _is_locked(descriptor: int, place: tuple[int, int]) -> bool:
    """Return whether another process has a lock on the bytes at ``place`` of the file."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *place, 0)
    answer: bytes = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
