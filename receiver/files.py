"""Reads and replaces the small files that configure a receiver: keys and settings."""

import codecs
import contextlib
import errno
import functools
import os
import pwd
import re
import shlex
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_MOST = 64 << 10  # bytes; a JWK has some 300
_OTHERS = stat.S_IRWXO  # the permissions of everybody on the machine
_NOT_OTHERS = 0o660
# Folders of the system, even where others may write to them: a receiver should never own one.
_OF_THE_SYSTEM = re.compile(
    r"/|/(?:bin|boot|dev|etc|home|lib|media|mnt|opt|proc|root|run|sbin|srv|sys|tmp|usr|var)|/dev/shm"
    r"|/var/(?:cache|lib|log|run|tmp)"
)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PRIVATE = 0o600


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of the file at ``path``, a regular file of at most 64 KiB in UTF-8; a byte order mark is skipped.

    Raises ValueError, which says what is wrong and repeats nothing of the text. It never blocks: opening a pipe that
    nobody writes to would stop the start for ever.
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
    """Return a warning, with its fix, when everybody on the machine may use the file at ``path``; else None.

    The file itself counts, not the symbolic links to it. A file that cannot be examined is not judged here.
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
    """Replace what the file at ``path`` holds by ``text``: whole or not at all, also after a power cut.

    Its owner and group keep their rights; everybody else has none. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    former = target.stat()
    with _opened(target.parent) as folder:
        beside = f".{target.name}.new"
        replace_in(folder, target.name, text.encode("utf-8"), beside, lambda file: _let_use(file, former))


def replace_file(path: str, data: bytes) -> None:
    """Replace the file at ``path`` by one that holds ``data``, for its owner only; durable when this returns."""
    folder, name = os.path.split(path)
    with _opened(folder) as opened:
        replace_in(opened, name, data)


def replace_in(
    folder: int,
    name: str,
    data: bytes,
    beside: str | None = None,
    permit: Callable[[int], None] = lambda file: os.fchmod(file, PRIVATE),  # the umask may have taken some of it
    durable: bool = True,
) -> None:
    """Replace the file ``name`` in the open ``folder`` by one that holds ``data``: whole or not at all.

    The new one is written as ``beside``, ``.name`` by default: hidden, so that nobody takes it for a key. ``permit``
    sets who may use it. With ``durable``, it outlasts a power cut when this returns. Nothing is left behind, not even
    what a killed process left the last time. Raises OSError.
    """
    beside = beside or f".{name}"
    _unlink(beside, folder)
    try:
        with open(os.open(beside, _NEW, PRIVATE, dir_fd=folder), "wb") as file:
            permit(file.fileno())
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _unlink(beside, folder)
        raise
    if durable:
        os.fsync(folder)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make the names in the folder ``path`` durable, whether created, renamed or removed. Raises OSError.

    Some file systems sync no folders (squashfs, 9p, some of FUSE) and say EINVAL; there is nothing more to be done.
    """
    with _opened(path) as folder:
        try:
            os.fsync(folder)
        except OSError as cause:
            if cause.errno != errno.EINVAL:
                raise


@contextlib.contextmanager
def _opened(folder: str | os.PathLike[str]) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _unlink(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _let_use(file: int, former: os.stat_result) -> None:
    """Give the open ``file`` the owner, group and mode of the ``former`` one, but no rights for everybody."""
    mode = stat.S_IMODE(former.st_mode) & _NOT_OTHERS
    try:
        os.fchown(file, former.st_uid if os.geteuid() == 0 else -1, former.st_gid)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        mode &= PRIVATE  # we may not set the group, and our own must not get its rights
    os.fchmod(file, mode)


def ownership(path: str | os.PathLike[str]) -> str:
    """Return the end of a message: the command with which root gives ``path`` to this user; "" if that would not help.

    A start as root, or a backup that root restored, leaves files that the receiver's own user may not use.
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


@functools.cache
def real_path(path: str) -> str:
    """Return the real path of a store's ``path``, asked once and before any fork: its disk may hang later."""
    return os.path.realpath(path)
