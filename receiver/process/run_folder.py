"""The run folder of a receiver: its metrics, its identity and trial keys. It exists while the receiver runs.

Other users may create files beside it, so a name proves nothing. The code uses the folder that it created, or one whose
owner it checked, by a descriptor (receiver.process.folders).
"""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from receiver import files
from receiver.process import folders

PREFIX = "receiver-"
LOCK, SERVICE, METRICS, TRIAL = "lock", "service.json", "metrics", "trial"
TRIAL_SECONDS = 120.0  # for which trial keys are accepted; older ones were left behind by a process that was killed
_CURRENT = struct.Struct("<QQ64s")  # device, inode and name of the folder


class RunFolder:
    """Creates the folder of this process in ``base``, and removes what killed receivers left there. Raises OSError.

    The process and its forks hold a lock as long as any of them lives; a folder without that lock is a leftover.
    Shared memory holds the current folder, so that processes forked before a new one was created use it as well. The
    master's descriptor keeps the inode from being reused for another file.
    """

    def __init__(self, base: str) -> None:
        self._base = os.path.abspath(base)
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._held: tuple[int, int] | None = None  # descriptors of the folder and of its lock
        self._message = b""
        _remove_leftovers(self._base)
        self._make()

    @property
    def path(self) -> Path:
        """Its path; ``opened`` checks that the folder is still the same."""
        return Path(self._base, self._current()[1])

    @property
    def trial(self) -> Path:
        """The folder for trial keys; read them by ``trial_keys``."""
        return self.path / TRIAL

    def _current(self) -> tuple[folders.Identity, str]:
        device, inode, name = _CURRENT.unpack_from(self._shared)
        return (device, inode), os.fsdecode(name.rstrip(b"\0"))

    @contextlib.contextmanager
    def opened(self, name: str = "") -> Iterator[int]:
        """Yield a descriptor of the folder, or of the folder ``name`` in it.

        Raises OSError when it is gone, is not the one that was created, or is open to other users.
        """
        made, own = self._current()
        with folders.opened(os.path.join(self._base, own)) as folder:
            status = os.fstat(folder)
            if folders.identity(status) != made or not folders.is_private(status, os.geteuid()):
                raise OSError(errno.ESTALE, "is not the folder that was made", str(self.path))
            if not name:
                yield folder
                return
            with folders.opened(name, folder) as inner:
                if not folders.is_private(os.fstat(inner), os.geteuid()):
                    raise OSError(errno.ESTALE, "is not the folder that was made", f"{self.path}/{name}")
                yield inner

    @contextlib.contextmanager
    def opened_metrics(self) -> Iterator[Path]:
        """Yield a path to the metrics folder, valid within this context; raises OSError as ``opened`` does."""
        with self.opened(METRICS) as descriptor:
            yield folders.path_of(descriptor)

    @contextlib.contextmanager
    def trial_keys(self) -> Iterator[Path | None]:
        """Yield a path to the trial keys, valid within this context; None when the folder is gone or was swapped."""
        with contextlib.ExitStack() as closing:
            try:
                found = folders.path_of(closing.enter_context(self.opened(TRIAL)))
            except OSError:
                found = None
            yield found

    def _make(self) -> None:
        """Create the folder under a random name, and remove the one before."""
        path = tempfile.mkdtemp(prefix=PREFIX, dir=self._base)
        with contextlib.ExitStack() as undoing:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            undoing.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            if not folders.is_private(status, os.geteuid()):
                raise OSError(errno.ESTALE, "is not the folder that was made", path)
            undoing.callback(_remove, path, descriptor)
            lock = _furnish(descriptor)
            undoing.callback(os.close, lock)
            self._write(descriptor)
            undoing.pop_all()
        self.remove()
        self._held = descriptor, lock
        _CURRENT.pack_into(self._shared, 0, *folders.identity(status), os.fsencode(os.path.basename(path)))

    def restore(self) -> bool:
        """Create a new folder if this one was removed or changed; return whether it did. Raises OSError."""
        wanted = {LOCK, METRICS, TRIAL} | ({SERVICE} if self._message else set())
        with contextlib.suppress(OSError), self.opened() as folder:
            if wanted <= set(os.listdir(folder)):
                return False
        self._make()
        return True

    def introduce(self, addresses: list[str], admin: str | None) -> None:
        """Write this process, its ``addresses`` and the one of its ``admin`` listener into the folder."""
        message = {"pid": os.getpid(), "addresses": addresses, "admin": admin, "started": time.time()}
        self._message = json.dumps(message).encode("ascii")
        with self.opened() as folder:
            self._write(folder)

    def _write(self, folder: int) -> None:
        if self._message:
            files.replace_in(folder, SERVICE, self._message, durable=False)

    def end_trials(self) -> bool:
        """Remove expired trial keys; return whether there were any. Raises OSError."""
        with self.opened(TRIAL) as trial:
            over = [name for name in os.listdir(trial) if _age(name, trial) > TRIAL_SECONDS]
            for name in over:
                shutil.rmtree(name, ignore_errors=True, dir_fd=trial)
            return bool(over) and not set(over) <= set(os.listdir(trial))

    def remove(self) -> None:
        """Remove the folder when the receiver ends. Another folder of that name stays."""
        if self._held:
            (folder, lock), self._held = self._held, None
            _remove(str(self.path), folder)
            os.close(folder)
            os.close(lock)


def _furnish(folder: int) -> int:
    """Create the content of the folder; return the descriptor of its lock, which is held."""
    beside = f".{LOCK}"
    lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(beside, LOCK, src_dir_fd=folder, dst_dir_fd=folder)  # no other process ever sees it unlocked
        os.mkdir(METRICS, 0o700, dir_fd=folder)
        os.mkdir(TRIAL, 0o700, dir_fd=folder)
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove(path: str, folder: int) -> None:
    """Remove the folder that is open as ``folder`` and was created at ``path``."""
    with contextlib.suppress(OSError):
        base = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            folders.remove(os.path.basename(path), base, folder)
        finally:
            os.close(base)


def _remove_leftovers(base: str) -> None:
    for path, folder in candidates(base):
        if os.fstat(folder).st_uid == os.geteuid() and not is_held(folder):
            _remove(path, folder)


def candidates(base: str) -> Iterator[tuple[str, int]]:
    """Yield path and descriptor of each possible run folder in ``base``: this user's, and for root every user's.

    Each step closes the descriptor of the step before.
    """
    try:
        names = sorted(name for name in os.listdir(base) if name.startswith(PREFIX))
    except OSError:
        return
    for name in names:
        path = os.path.join(base, name)
        with contextlib.suppress(OSError), folders.opened(path) as folder:
            owner = os.fstat(folder).st_uid
            if os.geteuid() in (0, owner) and _has_lock(folder):
                yield path, folder


def _has_lock(folder: int) -> bool:
    try:
        with folders.opened_file(LOCK, folder, os.fstat(folder).st_uid):
            return True
    except (OSError, ValueError):
        return False


def is_held(folder: int) -> bool:
    """Tell whether the receiver lives whose folder is open as ``folder``."""
    try:
        with folders.opened_file(LOCK, folder, os.fstat(folder).st_uid) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ValueError):  # for example, another start has just removed the folder
        return True
    return False


def _age(name: str, folder: int) -> float:
    try:
        return time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return 0.0
