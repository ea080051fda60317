"""The stores: whether they answer, how fast, their schema, and whether the sealing keys fit. Nothing is created.

The doctor leaves a schema that is older than this program as it is; a start of the receiver upgrades it.
"""

import contextlib
import os
import re
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # sqlite_utils chooses which SQLite, unexported

from receiver.doctor.checks.clock import Offset
from receiver.doctor.findings import Finding, cause_text, fail, ok, warn
from receiver.doctor.subject import Subject
from receiver.keys.keyring import Keyring
from receiver.problems import Problem, StoreMisplaced
from receiver.settings import Settings, TenantStore
from receiver.stores import open_store
from receiver.stores.contract import Store
from receiver.stores.filesystem.formats import MARK
from receiver.stores.sealed import ROLE, Sealed
from receiver.stores.sqlite.schema import STEPS, migrations
from receiver.stores.urls.store_url import SERVERS, StoreURL

TOPIC = "store"
_PATIENCE = 5.0  # seconds; somebody waits at a terminal
_AT_ONCE = 16
_SAFE_VERSION = (3, 51, 3)  # the first SQLite in which a reset of the write-ahead log cannot lose a commit
_RESTART = "stop the receiver and start it again"
_RESTORE = f"put the store back (its volume, a backup), or, for an empty one, {_RESTART}: only a start creates a store"
_OWNED = re.compile(r"as root: (chown .+)$")  # receiver.files.ownership
_FIXES = (  # the text of a problem, and its fix; {path} is that of the store
    ("was here: put it back", "mount its volume, or restore a backup and run: receiver store accept"),
    ("belongs here: put that", "put the right store back; if the one that is there is right: receiver store accept"),
    ("but STORAGE_STORE_ID names", "put that store back, or correct DATABASE_URL or STORAGE_STORE_ID"),
    ("the Java service", "receiver store adopt --plan; then: receiver store adopt"),
    ("states in the clear", "receiver store reseal, meanwhile with STORAGE_CLEAR_STATES=read"),
    ("sealed with the key", "bring the file of that sealing key into STORAGE_KEYS"),
    ("is the volume mounted", "mkdir -p {folder}, or mount the volume there"),
    ("readable and writable", "chown -R THE-RECEIVERS-USER {folder}"),
    ("file system of the network", "DATABASE_URL=postgresql://..., or a path on a local disk"),
    ("newer than this program", "run the newer receiver; nothing downgrades a schema"),
    ("check user and password", "correct DATABASE_USERNAME and DATABASE_PASSWORD, or those in DATABASE_URL"),
    ("pip install", "pip install 'external-storage-receiver[{kind}]'"),
    ("NOTADB", "name a file of the receiver's own: DATABASE_URL=sqlite:///path"),
    ("damaged", "restore the store from its backup; look first: sqlite3 {path} 'pragma integrity_check'"),
)


@dataclass
class Examined:
    """The store of ``tenant_store`` as found: a ``problem``; or the ``seconds`` of an answer, ``schema`` and ``id``.

    ``missing`` says why there is no store yet, ``outdated`` why a start would upgrade it; ``uses`` are those of keys.
    A database server has its ``version``, findings on what is ``odd`` about it, and the ``offset`` of its clock.
    """

    tenant_store: TenantStore
    tenants: tuple[str, ...] = ()
    problem: Problem | None = None
    seconds: float = 0.0
    schema: str = ""
    id: str = ""
    missing: str = ""
    outdated: str = ""
    uses: dict[tuple[str, str], int] = field(default_factory=dict)
    version: str = ""
    odd: tuple[Finding, ...] = ()
    offset: Offset | None = None

    @property
    def url(self) -> StoreURL:
        """Where it is."""
        return self.tenant_store.url

    @property
    def whose(self) -> str:
        """How messages begin: empty for the default store, else the tenants that have the store to themselves."""
        return f"of tenant {', '.join(self.tenants)}: " if self.tenants else ""


def examine(settings: Settings, ring: Keyring) -> list[Examined]:
    """Examine all stores of ``settings`` at the same time, with the sealing keys of ``ring``."""
    found: dict[tuple[object, ...], Examined] = {}
    for tenant, tenant_store in settings.all_stores.items():
        one = found.setdefault(tenant_store.url.identity, Examined(tenant_store))
        if tenant is not None and one is not found[settings.store_url.identity]:
            one.tenants += (tenant,)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda one: _examine(one, settings, ring), found.values()))
    return list(found.values())


def _examine(one: Examined, settings: Settings, ring: Keyring) -> None:
    """Fill ``one``; whatever goes wrong becomes its problem."""
    try:
        _look(one, settings, ring)
    except Problem as problem:
        one.problem = problem
    except ImportError:
        kind = one.url.kind
        one.problem = Problem(f"the driver for {kind} is missing: pip install 'external-storage-receiver[{kind}]'")
    except Exception as cause:  # noqa: BLE001 - of a driver, or a defect; neither may stop the other stores
        one.problem = Problem(f"{one.url}: {cause_text(cause)}")


def _look(one: Examined, settings: Settings, ring: Keyring) -> None:
    store_url, patience = one.url, min(settings.store_timeout, _PATIENCE)
    store_id = settings.store_id_of(store_url)
    with contextlib.closing(open_store(store_url, patience, create=False, connections=1, store_id=store_id)) as store:
        store.check_location()
        if store_url.kind in SERVERS.values():
            _ask_server(one, settings, patience)
        elif not os.path.exists(store_url.path if store_url.kind == "sqlite" else f"{store_url.path}/{MARK}"):
            one.missing = f"{store_url}: there is none yet"
        elif store_url.kind == "sqlite":
            one.outdated = _outdated(store_url.path)
        if not one.missing and not one.outdated:
            _ask(one, store, settings, ring)


def _ask_server(one: Examined, settings: Settings, patience: float) -> None:
    from receiver.doctor.checks import servers  # noqa: PLC0415 - needs what only installations for servers have
    from receiver.stores.sql import inspection  # noqa: PLC0415

    server = inspection.ask(one.url, patience)
    one.missing, one.outdated = servers.missing(server), servers.outdated(server)
    if one.missing and (store_id := settings.store_id_of(one.url)):
        raise StoreMisplaced(f"{one.url}: {one.missing}, but STORAGE_STORE_ID names {store_id}")
    one.version = server.variables.get("version", "")
    one.odd = tuple(servers.judged(server, one.url, settings, one.whose))
    if server.ahead is not None:
        one.offset = Offset(f"the database server ({one.url.hosts[0][0]})", server.ahead, server.unsure)


def _ask(one: Examined, store: Store, settings: Settings, ring: Keyring) -> None:
    store.ping()  # connects
    began = time.perf_counter()
    store.ping()
    one.seconds = time.perf_counter() - began
    one.schema = store.schema_version()
    one.id = store.mark().store
    one.uses = store.key_uses()
    if any(role == ROLE for role, _ in one.uses):  # without any, checking the keys would write the first one
        Sealed(store, lambda: ring.sealing, settings.clear_states).check_keys()


def _outdated(path: str) -> str:
    """Return why a start would change the SQLite file at ``path``, empty if it would not; this only reads the file."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=2)) as connection:
            database = Database(connection, execute_plugins=False)
            if not database.table_names():
                return "the file is empty"
            waiting = [step.name for step in migrations.pending(database)]
            known = {step.name for step in migrations.applied(database)} <= set(STEPS)
            mode = connection.execute("pragma journal_mode").fetchone()[0]
    except sqlite3.Error as cause:
        raise StoreMisplaced(f"{path}: SQLite: {getattr(cause, 'sqlite_errorname', type(cause).__name__)}") from cause
    if waiting and known:
        return f"its schema lacks {', '.join(waiting)}"
    return "" if mode == "wal" else f"its journal mode is {mode}, not that of a write-ahead log"


def check(subject: Subject, examined: list[Examined]) -> Iterator[Finding]:
    """Yield findings on the stores."""
    if not subject.has_store:
        yield warn(TOPIC, "the store is not known: its settings are invalid", "see settings")
    for one in examined:
        yield _judged(one, runs=subject.service is not None)
        yield from one.odd
        if one.url.kind == "sqlite":
            yield from _sqlite(one.url)


def _judged(one: Examined, runs: bool) -> Finding:
    if one.problem:
        fix = _fix_for(one.problem.cause, one.url)
        restart = f", then {_RESTART}" if runs and fix.startswith("mkdir") else ""  # a running one creates no store
        return fail(TOPIC, f"{one.whose}{one.problem.cause}", fix + restart)
    if one.missing and runs:
        return fail(TOPIC, f"{one.whose}{one.missing}, and a receiver runs", _RESTORE)
    if one.missing:
        fix = _fix_for(one.missing, one.url) if "Java" in one.missing else "receiver serve, which creates it"
        return warn(TOPIC, f"{one.whose}{one.missing}", fix)
    if one.outdated:
        message = f"{one.whose}{one.url}: {one.outdated}; the next start of this program upgrades it"
        return warn(TOPIC, message, "make a backup, then stop the receiver and start it again")
    message = f"{one.whose}{one.url}: answers in {1000 * one.seconds:.2f} ms, schema {one.schema}"
    return ok(TOPIC, message + (f", server {one.version}" if one.version else "") + f", id {one.id}")


def _fix_for(cause: str, store_url: StoreURL) -> str:
    if match := _OWNED.search(cause):
        return match[1]
    folder = os.path.dirname(os.path.abspath(store_url.path)) if store_url.kind == "sqlite" else store_url.path
    for text, fix in _FIXES:
        if text in cause:
            return fix.format(path=shlex.quote(store_url.path), folder=shlex.quote(folder), kind=store_url.kind)
    if store_url.hosts:
        name, port = store_url.hosts[0]
        tool = {"postgresql": f"pg_isready -h {name} -p {port}", "mysql": f"mariadb-admin -h {name} -P {port} ping"}
        return f"start the server, or correct DATABASE_URL; look: {tool.get(store_url.kind, f'nc -z {name} {port}')}"
    return f"look at it: ls -la {shlex.quote(folder)}"


def _sqlite(store_url: StoreURL) -> Iterator[Finding]:
    """Yield findings on SQLite alone: its version, and who may read its file."""
    if sqlite3.sqlite_version_info < _SAFE_VERSION:
        least = ".".join(map(str, _SAFE_VERSION))
        message = f"SQLite {sqlite3.sqlite_version} can lose a commit when it resets its log; {least} and later cannot"
        yield warn(TOPIC, message, "pip install --upgrade pysqlite3")
    files = [store_url.path + ending for ending in ("", "-wal", "-shm")]
    with contextlib.suppress(OSError):
        files = [path for path in files if os.path.exists(path) and Path(path).stat().st_mode & 0o007]
        if files:
            message = f"everybody on this machine may use {', '.join(files)}"
            yield warn(TOPIC, message, f"chmod o= {' '.join(map(shlex.quote, files))}")
