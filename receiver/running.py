"""The folder that a running receiver keeps while it runs: its metrics, who it is, and keys for a trial.

``receiver doctor`` and ``receiver health`` find the receiver by it. It lies in memory where that is possible, and only
the receiver's own user may enter it.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from receiver.settings import Settings

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - what is made there has a name that nobody can guess, and mode 0700
_PREFIX = "receiver-"
_LOCK, _SERVICE = "lock", "service.json"
TRIAL_SECONDS = 120.0  # that keys of a trial are accepted: who left them behind was killed


def shared_memory() -> str | None:
    """Return the folder that lies in memory, None where there is none that can be used."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None


def base_of(settings: Settings) -> str:
    """Return the directory in which receivers with ``settings`` make their folder."""
    of_systemd = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if settings.run_dir or of_systemd:
        return settings.run_dir or of_systemd
    return shared_memory() or tempfile.gettempdir()


class RunFolder:
    """The folder of this process, made anew; what receivers left in ``base`` that did not end by themselves goes.

    A lock that is held as long as the process or one that it forked lives tells it from a leftover. Raises OSError.
    """

    def __init__(self, base: str):
        for path in _folders(base):
            if _is_ours(path) and not _is_held(path):
                shutil.rmtree(path, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self.metrics = self.path / "metrics"
        self.trial = self.path / "trial"
        self._said = ""
        self._furnish()

    def _furnish(self) -> None:
        beside = self.path / f".{_LOCK}"
        self._lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(beside, self.path / _LOCK)  # nobody ever sees it without a holder
        self.metrics.mkdir(mode=0o700)
        self.trial.mkdir(mode=0o700)

    def restore(self) -> bool:
        """Make the folder anew if somebody, such as what tidies up, took it away; return whether. Raises OSError."""
        if self.trial.is_dir():
            return False
        shutil.rmtree(self.path, ignore_errors=True)  # what is left of it
        self.path.mkdir(mode=0o700)
        os.close(self._lock)
        self._furnish()
        self._write()
        return True

    def introduce(self, addresses: list[str], admin: str | None) -> None:
        """Write down who this is: the process, its ``addresses``, and that of its ``admin`` listener."""
        said = {"pid": os.getpid(), "addresses": addresses, "admin": admin, "started": time.time()}
        self._said = json.dumps(said)
        self._write()

    def _write(self) -> None:
        beside = self.path / f".{_SERVICE}"
        beside.write_text(self._said)
        os.replace(beside, self.path / _SERVICE)

    def end_trials(self) -> bool:
        """Take away the keys of trials whose time is over; return whether there were any."""
        over = [path for path in self.trial.iterdir() if _age(path) > TRIAL_SECONDS]
        for path in over:
            shutil.rmtree(path, ignore_errors=True)
        return any(not path.exists() for path in over)

    def remove(self) -> None:
        """Take the folder away: the receiver ends."""
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class Service:
    """A receiver that runs on this machine: its master's ``pid``, where it answers, and its folder ``path``.

    ``admin`` is the address of its admin listener, None without one; ``started`` in seconds since the epoch.
    """

    pid: int
    addresses: list[str]
    admin: str | None
    started: float
    path: Path

    @property
    def trial(self) -> Path:
        """The folder that it takes keys for a trial from."""
        return self.path / "trial"


def services(base: str) -> list[Service]:
    """Return the receivers that run now and have their folder in ``base``, those that this user may look at."""
    found = []
    for path in _folders(base):
        with contextlib.suppress(OSError, ValueError, TypeError):
            said = json.loads((path / _SERVICE).read_text())
            if _is_held(path):
                found.append(Service(path=path, **said))
    return found


def _folders(base: str) -> Iterator[Path]:
    """Yield what may be folders of receivers in ``base``: this user's, and to root everybody's.

    Whoever goes by what stands in another user's has to see to it that he is not led on (receiver.doctor.case).
    """
    for path in Path(base).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if os.geteuid() in (0, path.lstat().st_uid) and not path.is_symlink() and (path / _LOCK).is_file():
                yield path


def _is_ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def _is_held(path: Path) -> bool:
    try:
        with open(path / _LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is, or another start has just taken the folder away
        return True
    return False


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
