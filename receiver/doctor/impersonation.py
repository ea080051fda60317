"""Seeing what another process sees: its user, its environment and its working directory.

root reads files that the receiver may not read, and the receiver cannot change what root writes. So a doctor that runs
as root becomes the receiver's user for good before it uses anything of a process of that user: an environment can make
a library load code.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

_MOST = 8 << 20  # bytes of an environment; Linux gives a program no more than 6 MiB, see execve(2)


@dataclass(frozen=True)
class User:
    """A user of the system by ids, with its group and further ``groups``."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def user_of(pid: int) -> User:
    """Return the user that the process ``pid`` runs as; raises OSError."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    uid, gid = (int(status[name].split()[0]) for name in ("Uid", "Gid"))
    return User(uid, gid, tuple(map(int, status["Groups"].split())))


def owner_of(path: str) -> User | None:
    """Return the owner of ``path``; None if nothing is there, or this process may not look."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return User(status.st_uid, status.st_gid)


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that the process ``pid`` was started with; raises OSError.

    A process can overwrite that memory with anything. What no environment can hold is skipped.
    """
    with open(f"/proc/{pid}/environ", "rb") as file:
        text = os.fsdecode(file.read(_MOST))
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair[1:])


def has_other_root(pid: int) -> bool:
    """Tell whether the process ``pid`` has another root directory than this one, as in a container; raises OSError."""
    theirs, ours = os.stat(f"/proc/{pid}/root"), os.stat("/")
    return (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino)


def become(user: User) -> None:
    """Become ``user`` for good if this process is root and ``user`` is not; raises PermissionError."""
    if os.geteuid() != 0 or user.uid == 0:
        return
    os.setgroups(user.groups or [user.gid])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    try:
        os.environ["HOME"] = pwd.getpwuid(user.uid).pw_dir  # drivers look there, and may not read root's
    except KeyError:
        os.environ["HOME"] = "/"


def use_environment(environ: dict[str, str]) -> None:
    """Replace the environment of this process by ``environ``; drivers read the environment too."""
    os.environ.clear()
    os.environ.update(environ)
