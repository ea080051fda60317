"""The machine: free space on its disks, who may use which files, and the versions of what runs."""

import contextlib
import os
import platform
import pwd
import shlex
import stat
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import cryptography
from cryptography.hazmat.backends.openssl import backend
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # sqlite_utils chooses which SQLite, unexported

from receiver import __version__
from receiver.doctor.checks.configuration import is_in_container
from receiver.doctor.findings import Finding, cause_text, fail, ok, warn
from receiver.doctor.subject import Subject
from receiver.process.disk import disk_space
from receiver.process.running import base_of
from receiver.stores.urls.store_url import StoreURL

_AMPLE = 4  # times STORAGE_MIN_FREE; less is worth a warning
_SPACE_TO_RUN = 8 << 20  # bytes that metrics and the trial's keys take at most
_FEW_INODES = 1000  # the filesystem store takes one for each state
_DRIVERS = {"postgresql": ("psycopg", "sqlalchemy"), "mysql": ("pymysql", "sqlalchemy"), "sqlserver": ("mssql-python",)}


def check_disk(subject: Subject) -> Iterator[Finding]:
    """Yield findings on the free space for the stores and for the folder of a running receiver."""
    settings, fine = subject.settings, []
    local = [store_url for store_url in settings.store_urls if store_url.path] if subject.has_store else []
    needs = [(str(store_url), store_url.path, settings.min_free, _fix_for(store_url)) for store_url in local]
    base = base_of(settings)
    if not subject.is_invalid("STORAGE_RUN_DIR"):
        needs.append((f"running receivers in {base}", base, _SPACE_TO_RUN, f"df -h {shlex.quote(base)}"))
    for whose, path, least, fix in needs:
        try:
            free, _, inodes = disk_space(path)
        except OSError as cause:
            yield fail("disk", f"{whose}: {cause_text(cause)}", f"ls -ld {shlex.quote(path)}")
            continue
        if free < least:
            need = "STORAGE_MIN_FREE" if least == settings.min_free else "a receiver"
            yield fail("disk", f"{free >> 20} MiB are free for {whose}: less than {need} asks for", fix)
        elif free < _AMPLE * least or inodes < _FEW_INODES:
            yield warn("disk", f"{free >> 20} MiB and {inodes} inodes are free for {whose}", fix)
        else:
            fine.append(f"{_size(free)} free for {whose}")
    if fine:
        yield ok("disk", "; ".join(fine))


def _size(count: int) -> str:
    return f"{count >> 30} GiB" if count >= 10 << 30 else f"{count >> 20} MiB"


def _fix_for(store_url: StoreURL) -> str:
    return f"receiver store purge, or more space: df -h {shlex.quote(os.path.dirname(os.path.abspath(store_url.path)))}"


def check_permissions(subject: Subject) -> Iterator[Finding]:
    """Yield findings on the receiver's user, and on files that too many or too few users may use."""
    uid = os.geteuid()
    if uid == 0:
        yield _as_root(subject)
    problems = [*_key_folders(subject), *_store_folders(subject)]
    yield from problems
    if uid and not problems:
        yield ok("permissions", f"as {_name_of(uid)}: keys and stores are readable, and writable where they must be")


def _as_root(subject: Subject) -> Finding:
    if not subject.service:
        message = "the doctor runs as root, who may do everything: it cannot tell what the receiver's user may do"
        return warn("permissions", message, "runuser -u THE-RECEIVERS-USER -- receiver doctor")
    fix = "useradd --system receiver, and User=receiver in its unit"
    if is_in_container(os.environ):
        fix = "docker run --user 10001, or runAsUser: 10001"
    return warn("permissions", "the receiver runs as root; it needs no more than its own files", fix)


def _key_folders(subject: Subject) -> Iterator[Finding]:
    keys = subject.settings.keys
    folders = [] if subject.is_invalid("STORAGE_KEYS") else [str(keys)]
    with contextlib.suppress(OSError):
        folders += [str(path) for path in keys.iterdir() if path.is_dir()] if folders else []
    for path in folders:
        if not os.path.isdir(path):
            continue
        if not os.access(path, os.R_OK | os.X_OK):
            message = f"{path} cannot be read by {_name_of(os.geteuid())}"
            yield fail("permissions", message, f"chmod u+rx {path}, or chown")
        elif os.stat(path).st_mode & stat.S_IWOTH:
            message = f"everybody on this machine may put a key into {path}, and pose as the platform with it"
            yield fail("permissions", message, f"chmod o-w {shlex.quote(path)}")


def _store_folders(subject: Subject) -> Iterator[Finding]:
    user = _name_of(os.geteuid())
    for store_url in subject.settings.store_urls if subject.has_store else []:
        folder = os.path.dirname(os.path.abspath(store_url.path)) if store_url.kind == "sqlite" else store_url.path
        if folder and os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
            yield fail("permissions", f"{folder} cannot be written by {user}", f"chown {user} {shlex.quote(folder)}")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def check_versions(subject: Subject) -> Iterator[Finding]:
    """Yield the versions of this program and of the libraries that matter when looking for a fault."""
    names = {name for store_url in subject.settings.store_urls for name in _DRIVERS.get(store_url.kind, ())}
    parts = [
        f"receiver {__version__}",
        f"Python {platform.python_version()}",
        f"gunicorn {_version_of('gunicorn')}",
        f"cryptography {cryptography.__version__} ({backend.openssl_version_text().rsplit(' ', 3)[0]})",
        f"SQLite {sqlite3.sqlite_version}",
        *(f"{name} {_version_of(name)}" for name in sorted(names)),
    ]
    yield ok("versions", ", ".join(parts))


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
