"""The receivers that run on this machine, found by their run folders (receiver.process.run_folder).

``receiver doctor`` and ``receiver health`` use them. A run folder lies in memory where possible, and only its owner may
enter it. root reads the folders of all users, so this code does not trust their content: no file can block the reader,
exhaust its memory, or pass for a receiver of another user.
"""

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeGuard

from receiver import strictjson
from receiver.process import folders
from receiver.process.run_folder import SERVICE, TRIAL, candidates, is_held
from receiver.settings import Settings

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - folders made there have unpredictable names and mode 0700
_MOST = 64 << 10  # bytes of a receiver's description of itself; it takes some 200
_LONGEST = 300  # characters of an address
_LAST_PID = 1 << 22  # proc(5), pid_max


def shared_memory() -> str | None:
    """Return a folder that lies in memory; None where none is usable."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None


def base_of(settings: Settings) -> str:
    """Return the directory in which receivers with these ``settings`` create their run folder."""
    of_systemd = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if settings.run_dir or of_systemd:
        return settings.run_dir or of_systemd
    return shared_memory() or tempfile.gettempdir()


@dataclass(frozen=True)
class Service:
    """A receiver that runs on this machine: its master's ``pid``, its ``addresses``, and its run folder ``path``.

    ``admin`` is the address of its admin listener, None without one; ``started`` is in seconds since the epoch.
    ``owner`` is the user of the process and of the folder; ``identity`` distinguishes the folder from another one of
    the same name.
    """

    pid: int
    addresses: list[str]
    admin: str | None
    started: float
    path: Path
    owner: int
    identity: folders.Identity

    @property
    def trial(self) -> Path:
        """The folder from which it reads trial keys."""
        return self.path / TRIAL

    @contextlib.contextmanager
    def opened_trial(self) -> Iterator[int]:
        """Yield a descriptor of ``trial``; raises OSError when the folder was replaced."""
        with folders.opened(str(self.path)) as folder:
            status = os.fstat(folder)
            if folders.identity(status) != self.identity or not folders.is_private(status, self.owner):
                raise FileNotFoundError(f"{self.path} is gone")
            with folders.opened(TRIAL, folder) as trial:
                if not folders.is_private(os.fstat(trial), self.owner):
                    raise PermissionError(f"{self.trial} is not its own")
                yield trial

    def tried(self) -> list[str]:
        """Return the names of the files in ``trial``."""
        found: list[str] = []
        with contextlib.suppress(OSError), self.opened_trial() as trial:
            for tenant in os.listdir(trial):
                with contextlib.suppress(OSError), folders.opened(tenant, trial) as folder:
                    found += os.listdir(folder)
        return found

    def signal(self, number: int) -> None:
        """Send it the signal ``number``; raises ProcessLookupError when ``pid`` is now another user's process."""
        if not is_run_by(self.pid, self.owner):
            raise ProcessLookupError(f"process {self.pid} has ended")
        os.kill(self.pid, number)


def services(base: str) -> list[Service]:
    """Return the running receivers whose run folder is in ``base`` and readable for this user.

    Folders whose content is malformed, or names a process of another user, are skipped.
    """
    found = (_service(path, folder) for path, folder in candidates(base))
    return [service for service in found if service]


def _service(path: str, folder: int) -> Service | None:
    """Return the receiver of the run folder ``path``, open as ``folder``; None where none runs."""
    status = os.fstat(folder)
    owner = status.st_uid
    try:
        message = strictjson.loads(folders.read(SERVICE, folder, owner, _MOST))
    except (OSError, ValueError):
        return None
    if not folders.is_private(status, owner) or not _is_description(message) or not is_run_by(message["pid"], owner):
        return None
    if not is_held(folder):
        return None
    return Service(**message, path=Path(path), owner=owner, identity=folders.identity(status))


class _Description(TypedDict):
    """What a receiver writes about itself (RunFolder.introduce)."""

    pid: int
    addresses: list[str]
    admin: str | None
    started: float


def _is_description(message: object) -> TypeGuard[_Description]:
    """Tell whether ``message`` is a receiver's description of itself, and nothing else."""
    if not isinstance(message, dict) or message.keys() != {"pid", "addresses", "admin", "started"}:
        return False
    pid, addresses, started = message["pid"], message["addresses"], message["started"]
    return (
        type(pid) is int
        and 0 < pid <= _LAST_PID
        and isinstance(addresses, list)
        and 0 < len(addresses) <= _LONGEST
        and all(map(_is_address, addresses))
        and (message["admin"] is None or _is_address(message["admin"]))
        and type(started) in (int, float)
        and math.isfinite(started)
    )


def _is_address(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= _LONGEST and text.isprintable()


def is_run_by(pid: int, owner: int) -> bool:
    """Tell whether the process ``pid`` runs as the user ``owner`` in every respect (proc(5), status: Uid)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
        ids = next(line.split()[1:] for line in lines if line.startswith(b"Uid:"))
    except (OSError, StopIteration):
        return False
    return set(map(int, ids)) == {owner}
