"""The machine: room on its disks, who may do what with the files, and which versions run."""

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
from sqlite_utils.utils import sqlite3

from receiver import __version__
from receiver.doctor.case import Case
from receiver.doctor.configuration import is_in_container
from receiver.doctor.findings import Finding, fail, ok, told_cause, warn
from receiver.process.disk import disk_space
from receiver.process.running import base_of
from receiver.stores.urls.store_url import StoreURL

_AMPLE = 4  # times STORAGE_MIN_FREE, below which somebody should think of it
_ROOM_TO_RUN = 8 << 20  # bytes that metrics and the trial's keys take at most
_FEW_NAMES = 1000  # inodes; the store of files takes one for each state
_DRIVERS = {"postgresql": ("psycopg", "sqlalchemy"), "mysql": ("pymysql", "sqlalchemy"), "sqlserver": ("mssql-python",)}


def check_disk(case: Case) -> Iterator[Finding]:
    """Yield how much room there is where stores lie, and where a running receiver keeps what ends with it."""
    settings, told = case.settings, []
    store_urls = [store_url for store_url in settings.store_urls if store_url.path] if case.has_store else []
    wanted = [(str(store_url), store_url.path, settings.min_free, _mend_of(store_url)) for store_url in store_urls]
    base = base_of(settings)
    if not case.is_mistaken("STORAGE_RUN_DIR"):
        wanted.append((f"running receivers in {base}", base, _ROOM_TO_RUN, f"df -h {shlex.quote(base)}"))
    for whose, path, least, mend in wanted:
        try:
            free, _, names = disk_space(path)
        except OSError as cause:
            yield fail("disk", f"{whose}: {told_cause(cause)}", f"ls -ld {shlex.quote(path)}")
            continue
        if free < least:
            need = "STORAGE_MIN_FREE" if least == settings.min_free else "a receiver"
            yield fail("disk", f"{free >> 20} MiB are free for {whose}: fewer than {need} asks for", mend)
        elif free < _AMPLE * least or names < _FEW_NAMES:
            yield warn("disk", f"{free >> 20} MiB and {names} names of files are free for {whose}", mend)
        else:
            told.append(f"{_size(free)} free for {whose}")
    if told:
        yield ok("disk", "; ".join(told))


def _size(count: int) -> str:
    return f"{count >> 30} GiB" if count >= 10 << 30 else f"{count >> 20} MiB"


def _mend_of(store_url: StoreURL) -> str:
    return f"receiver store purge, or more room: df -h {shlex.quote(os.path.dirname(os.path.abspath(store_url.path)))}"


def check_permissions(case: Case) -> Iterator[Finding]:
    """Yield who the receiver is to the system, and which files are for more people than they should be."""
    uid = os.geteuid()
    if uid == 0:
        yield _as_root(case)
    problems = list(_folders(case))
    yield from problems
    if uid and not problems:
        yield ok("permissions", f"as {_name_of(uid)}: keys and stores are readable, and writable where they must be")


def _as_root(case: Case) -> Finding:
    if not case.service:
        told = "this looks as root, who may do everything: what the receiver's user may do is not known"
        return warn("permissions", told, "runuser -u THE-RECEIVERS-USER -- receiver doctor")
    mend = "useradd --system receiver, and User=receiver in its unit"
    if is_in_container(os.environ):
        mend = "docker run --user 10001, or runAsUser: 10001"
    return warn("permissions", "the receiver runs as root; it needs no more than its own files", mend)


def _folders(case: Case) -> Iterator[Finding]:
    keys = case.settings.keys
    folders = [] if case.is_mistaken("STORAGE_KEYS") else [str(keys)]
    with contextlib.suppress(OSError):
        folders += [str(path) for path in keys.iterdir() if path.is_dir()] if folders else []
    for path in folders:
        if not os.path.isdir(path):
            continue
        if not os.access(path, os.R_OK | os.X_OK):
            yield fail(
                "permissions", f"{path} cannot be read by {_name_of(os.geteuid())}", f"chmod u+rx {path}, or chown"
            )
        elif os.stat(path).st_mode & stat.S_IWOTH:
            told = f"everybody on this machine may put a key into {path}, and be the platform with it"
            yield fail("permissions", told, f"chmod o-w {shlex.quote(path)}")
    for store_url in case.settings.store_urls if case.has_store else []:
        folder = os.path.dirname(os.path.abspath(store_url.path)) if store_url.kind == "sqlite" else store_url.path
        if folder and os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
            told = f"{folder} cannot be written by {_name_of(os.geteuid())}"
            yield fail("permissions", told, f"chown {_name_of(os.geteuid())} {shlex.quote(folder)}")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def check_versions(case: Case) -> Iterator[Finding]:
    """Yield what this program is made of, as far as it matters to whoever looks for a fault."""
    names = {name for store_url in case.settings.store_urls for name in _DRIVERS.get(store_url.kind, ())}
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
