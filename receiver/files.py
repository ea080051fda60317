"""Reading and replacing the small files that configure a receiver: keys and settings."""

import codecs
import contextlib
import os
import pwd
import re
import shlex
import stat
from pathlib import Path

_MOST = 64 << 10  # bytes; a JWK has some 300
_OTHERS = stat.S_IRWXO  # what everybody on the machine may do with a file
_NOT_OTHERS = 0o660
# Folders that belong to the system whoever may write to them: no receiver should own one.
_OF_THE_SYSTEM = re.compile(
    r"/|/(?:bin|boot|dev|etc|home|lib|media|mnt|opt|proc|root|run|sbin|srv|sys|tmp|usr|var)|/dev/shm"
    r"|/var/(?:cache|lib|log|run|tmp)"
)
PRIVATE = 0o600


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of the file at ``path``, a regular file of at most 64 KiB in UTF-8; a byte order mark is skipped.

    Raises ValueError that says what is wrong with it and repeats nothing of it. Never waits: opening a pipe
    nobody writes to would hold the start for ever.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is not a regular file")
            data = file.read(_MOST + 1)
    except OSError as cause:
        raise ValueError(f"cannot be read ({cause.strerror}){ownership(path)}") from None
    if len(data) > _MOST:
        raise ValueError(f"is larger than {_MOST >> 10} KiB")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("is text in UTF-16, as PowerShell writes it: save it in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8") from None


def check_private(path: str | os.PathLike[str]) -> str | None:
    """Return what is wrong when everybody on the machine may use the file at ``path``, and what mends it; else None.

    The file itself counts, not the symbolic links that lead to it. One that cannot be looked at is not judged here.
    """
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError):
        return None
    if not mode & _OTHERS:
        return None
    return (
        f"everybody on this machine may use the private key in {path} (mode {mode:04o}): chmod o= "
        f"{shlex.quote(os.fspath(path))}; in Kubernetes set defaultMode: 0440, for a Docker secret mode: 0440"
    )


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Put ``text`` in the place of what the file at ``path`` holds: whole or not at all, also after a power cut.

    Owner, group and what they may do stay; everybody else may do nothing. Nothing else is left behind, not even what
    a kill left behind the last time; raises OSError.
    """
    target = Path(os.path.realpath(path))
    former = target.stat()
    beside = target.with_name(f".{target.name}.new")  # hidden: nobody takes it for a key
    beside.unlink(missing_ok=True)
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "w", encoding="utf-8") as file:
            _let_use(file.fileno(), former)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _let_use(file: int, former: os.stat_result) -> None:
    """Let those use the open ``file`` who may use the ``former`` one, except everybody."""
    mode = stat.S_IMODE(former.st_mode) & _NOT_OTHERS
    try:
        os.fchown(file, former.st_uid if os.geteuid() == 0 else -1, former.st_gid)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        mode &= PRIVATE  # the group is one that is not ours to give, and ours is another
    os.fchmod(file, mode)


def ownership(path: str | os.PathLike[str]) -> str:
    """Return the command by which root gives ``path`` to this user, for the end of a message; empty if it is no help.

    A start as root, or a backup that root has brought back, leaves files that the receiver's own user may not use.
    """
    found = os.path.abspath(path)
    try:
        status = os.stat(found)
    except (OSError, ValueError):
        return ""
    uid = os.geteuid()
    if uid in (0, status.st_uid) or _OF_THE_SYSTEM.fullmatch(os.path.realpath(found)):
        return ""
    recursive = "-R " if stat.S_ISDIR(status.st_mode) else ""
    return f"; it is {_name_of(status.st_uid)}'s, as root: chown {recursive}{_name_of(uid)} {shlex.quote(found)}"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
