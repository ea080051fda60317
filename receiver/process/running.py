"""The receivers that run on this machine, found by the folders that they keep (receiver.process.run_folder).

``receiver doctor`` and ``receiver health`` go by them. The folder lies in memory where that is possible, and only the
receiver's own user may enter it. root looks into everybody's: so whatever is in one proves nothing but what its owner
wrote, and is read so that it can neither hold nor fill nor mislead the process that reads it.
"""

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from receiver import strictjson
from receiver.process import folders
from receiver.process.run_folder import SERVICE, TRIAL, TRIAL_SECONDS, RunFolder, candidates, is_held
from receiver.settings import Settings

__all__ = ["TRIAL_SECONDS", "RunFolder", "Service", "base_of", "services", "shared_memory"]
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - what is made there has a name that nobody can guess, and mode 0700
_MOST = 64 << 10  # bytes of what a receiver says of itself; it takes some 200
_LONGEST = 300  # characters of an address
_LAST_PID = 1 << 22  # proc(5), pid_max


def shared_memory() -> str | None:
    """Return the folder that lies in memory, None where there is none that can be used."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None


def base_of(settings: Settings) -> str:
    """Return the directory in which receivers with ``settings`` make their folder."""
    of_systemd = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if settings.run_dir or of_systemd:
        return settings.run_dir or of_systemd
    return shared_memory() or tempfile.gettempdir()


@dataclass(frozen=True)
class Service:
    """A receiver that runs on this machine: its master's ``pid``, where it answers, and its folder ``path``.

    ``admin`` is the address of its admin listener, None without one; ``started`` in seconds since the epoch. ``owner``
    is the user of the process and of the folder, whose ``identity`` tells it from another one of that name.
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
        """The folder that it takes keys for a trial from."""
        return self.path / TRIAL

    @contextlib.contextmanager
    def opened_trial(self) -> Iterator[int]:
        """Yield a descriptor of ``trial``; raises OSError when the folder is another one by now."""
        with folders.opened(str(self.path)) as folder:
            status = os.fstat(folder)
            if folders.identity(status) != self.identity or not folders.is_private(status, self.owner):
                raise FileNotFoundError(f"{self.path} is gone")
            with folders.opened(TRIAL, folder) as trial:
                if not folders.is_private(os.fstat(trial), self.owner):
                    raise PermissionError(f"{self.trial} is not its own")
                yield trial

    def tried(self) -> list[str]:
        """Return the names of the files that lie in ``trial`` now."""
        found: list[str] = []
        with contextlib.suppress(OSError), self.opened_trial() as trial:
            for tenant in os.listdir(trial):
                with contextlib.suppress(OSError), folders.opened(tenant, trial) as folder:
                    found += os.listdir(folder)
        return found

    def signal(self, number: int) -> None:
        """Send the signal ``number`` to it; raises ProcessLookupError when ``pid`` is another user's process by now."""
        if not is_run_by(self.pid, self.owner):
            raise ProcessLookupError(f"process {self.pid} has ended")
        os.kill(self.pid, number)


def services(base: str) -> list[Service]:
    """Return the receivers that run now and have their folder in ``base``, those that this user may look at.

    A folder that says anything else than a receiver does, or that another user's process is one, is passed over.
    """
    found = (_service(path, folder) for path, folder in candidates(base))
    return [service for service in found if service]


def _service(path: str, folder: int) -> Service | None:
    """Return the receiver that keeps ``folder``, open here and found at ``path``; None where there is none."""
    status = os.fstat(folder)
    owner = status.st_uid
    try:
        message = strictjson.loads(folders.read(SERVICE, folder, owner, _MOST))
    except (OSError, ValueError):
        return None
    if not folders.is_private(status, owner) or not _is_message(message) or not is_run_by(message["pid"], owner):
        return None
    if not is_held(folder):
        return None
    return Service(**message, path=Path(path), owner=owner, identity=folders.identity(status))


def _is_message(message: object) -> bool:
    """Tell whether ``message`` is what a receiver says of itself, and nothing besides."""
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
