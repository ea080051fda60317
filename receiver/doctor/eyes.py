"""Looking with the eyes of another process: its user, its environment, the folder that it works in.

root sees files that the receiver may not read, and what root writes the receiver may not change. So a doctor that is
root becomes the receiver's user for good, before it takes anything over from a process of that user: an environment
can make a library load code.
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
    told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    uid, gid = (int(told[name].split()[0]) for name in ("Uid", "Gid"))
    return User(uid, gid, tuple(map(int, told["Groups"].split())))


def owner_of(path: str) -> User | None:
    """Return the owner of ``path``; None where there is nothing, or it may not be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return User(status.st_uid, status.st_gid)


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that the process ``pid`` was started with; raises OSError.

    A process may have written anything there meanwhile: what no environment can hold is passed over.
    """
    with open(f"/proc/{pid}/environ", "rb") as file:
        text = os.fsdecode(file.read(_MOST))
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair[1:])


def has_other_root(pid: int) -> bool:
    """Tell whether the process ``pid`` sees other files than this one, as in a container; raises OSError."""
    theirs, ours = os.stat(f"/proc/{pid}/root"), os.stat("/")
    return (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino)


def become(user: User) -> None:
    """Be ``user`` from now on and for good, if this is root and ``user`` is not; raises PermissionError."""
    if os.geteuid() != 0 or user.uid == 0:
        return
    os.setgroups(user.groups or [user.gid])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    try:
        os.environ["HOME"] = pwd.getpwuid(user.uid).pw_dir  # drivers look there, and must not stumble over root's
    except KeyError:
        os.environ["HOME"] = "/"


def take_over(environ: dict[str, str]) -> None:
    """Let this process have the environment ``environ``, as drivers look into it as well."""
    os.environ.clear()
    os.environ.update(environ)
