"""The stores: reachable, how fast, of which schema, and whether what they hold fits the sealing keys. Nothing is made.

A schema that is older than this program is left as it is: a start of the receiver upgrades it, not a look at it.
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
from sqlite_utils.utils import sqlite3

from receiver.doctor.case import Case
from receiver.doctor.clock import Offset
from receiver.doctor.findings import Finding, fail, ok, told_cause, warn
from receiver.keys.keyring import Keyring
from receiver.problems import Problem, StoreMisplaced
from receiver.settings import Settings, TenantStore
from receiver.stores import open_store
from receiver.stores.contract import Store
from receiver.stores.filesystem.formats import MARK
from receiver.stores.sealed import ROLE, Sealed
from receiver.stores.sqlite.schema import STEPS, migrations
from receiver.stores.urls.store_url import SERVERS, StoreURL

SUBJECT = "store"
_PATIENCE = 5.0  # seconds; somebody waits at a terminal
_AT_ONCE = 16
_FIXED = (3, 51, 3)  # the version of SQLite since which a reset of the write-ahead log cannot lose a commit
_AGAIN = "stop the receiver and start it again"
_BACK = f"put the store back (its volume, a backup), or, for an empty one, {_AGAIN}: only a start makes a store"
_OWNED = re.compile(r"as root: (chown .+)$")  # receiver.files.ownership
_MENDS = (  # what a problem says, and what mends it; {path} is that of the store
    ("the Java service", "receiver store adopt --plan; then: receiver store adopt"),
    ("states in the clear", "receiver store reseal, meanwhile with STORAGE_CLEAR_STATES=read"),
    ("sealed with the key", "bring the file of that sealing key into STORAGE_KEYS"),
    ("is the volume mounted", "mkdir -p {folder}, or mount the volume there"),
    ("readable and writable", "chown -R THE-RECEIVERS-USER {folder}"),
    ("file system of the network", "DATABASE_URL=postgresql://..., or a path on a local disk"),
    ("newer than this program", "run the newer receiver; a newer schema is never taken back"),
    ("check user and password", "correct DATABASE_USERNAME and DATABASE_PASSWORD, or those in DATABASE_URL"),
    ("pip install", "pip install 'external-storage-receiver[{kind}]'"),
    ("NOTADB", "name a file of the receiver's own: DATABASE_URL=sqlite:///path"),
    ("damaged", "restore the store from its backup; look first: sqlite3 {path} 'pragma integrity_check'"),
)


@dataclass
class Examined:
    """The store of ``tenant_store``, as it was found: a ``problem``; or ``seconds`` for an answer, its ``schema``.

    ``missing`` tells why there is none yet, ``outdated`` that a start would upgrade it; ``uses`` are those of keys.
    Of a database server there are its ``version``, what is ``odd`` about it, and its clock's ``offset``.
    """

    tenant_store: TenantStore
    tenants: tuple[str, ...] = ()
    problem: Problem | None = None
    seconds: float = 0.0
    schema: str = ""
    missing: str = ""
    outdated: str = ""
    uses: dict[tuple[str, str], int] = field(default_factory=dict)
    version: str = ""
    odd: tuple[Finding, ...] = ()
    offset: Offset | None = None

    @property
    def url(self) -> StoreURL:
        """Where it lies."""
        return self.tenant_store.url

    @property
    def whose(self) -> str:
        """What to call it: nothing for the store of the rest, else the tenants that have it for themselves."""
        return f"of tenant {', '.join(self.tenants)}: " if self.tenants else ""


def examine(settings: Settings, ring: Keyring) -> list[Examined]:
    """Return each store that ``settings`` name, looked at with the sealing keys of ``ring``; silent ones together."""
    found: dict[tuple, Examined] = {}
    for tenant, tenant_store in settings.all_stores.items():
        one = found.setdefault(tenant_store.url.identity, Examined(tenant_store))
        if tenant is not None and one is not found[settings.store_url.identity]:
            one.tenants += (tenant,)

    def look(one: Examined) -> None:
        try:
            _look(one, settings, ring)
        except Problem as problem:
            one.problem = problem
        except ImportError:
            kind = one.url.kind
            one.problem = Problem(
                f"what {kind} needs is not installed: pip install 'external-storage-receiver[{kind}]'"
            )
        except Exception as cause:  # of a driver, or a defect; the others are looked at all the same
            one.problem = Problem(f"{one.url}: {told_cause(cause)}")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(look, found.values()))
    return list(found.values())


def _look(one: Examined, settings: Settings, ring: Keyring) -> None:
    store_url, patience = one.url, min(settings.store_timeout, _PATIENCE)
    with contextlib.closing(open_store(store_url, patience, create=False, connections=1)) as store:
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
    from receiver.doctor import servers  # noqa: PLC0415 - needs what only installations for servers have
    from receiver.stores.sql import inspection  # noqa: PLC0415

    said = inspection.ask(one.url, patience)
    one.missing, one.outdated = servers.missing(said), servers.outdated(said)
    one.version = said.variables.get("version", "")
    one.odd = tuple(servers.judged(said, one.url, settings, one.whose))
    if said.ahead is not None:
        one.offset = Offset(f"the database server ({one.url.hosts[0][0]})", said.ahead, said.unsure)


def _ask(one: Examined, store: Store, settings: Settings, ring: Keyring) -> None:
    store.ping()  # connects
    began = time.perf_counter()
    store.ping()
    one.seconds = time.perf_counter() - began
    one.schema = store.schema_version()
    one.uses = store.key_uses()
    if any(role == ROLE for role, _ in one.uses):  # else a look at whether keys fit would begin the list of them
        Sealed(store, lambda: ring.sealing, settings.clear_states).check_keys()


def _outdated(path: str) -> str:
    """Return why a start would change the SQLite file at ``path``, empty if it would not; it is only read."""
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
    return "" if mode == "wal" else f"it is in the mode {mode}, and not in that of a write-ahead log"


def check(case: Case, examined: list[Examined]) -> Iterator[Finding]:
    """Yield what there is to say of the stores."""
    if not case.has_store:
        yield warn(SUBJECT, "which store is meant is not known: its settings are wrong", "see settings")
    for one in examined:
        yield from _judged(one, runs=case.service is not None)
        yield from one.odd
        if one.url.kind == "sqlite":
            yield from _sqlite(one.url)


def _judged(one: Examined, runs: bool) -> Iterator[Finding]:
    if one.problem:
        mend = _mend_of(one.problem.cause, one.url)
        again = f", then {_AGAIN}" if runs and mend.startswith("mkdir") else ""  # a running one makes no store
        yield fail(SUBJECT, f"{one.whose}{one.problem.cause}", mend + again)
    elif one.missing and runs:
        yield fail(SUBJECT, f"{one.whose}{one.missing}, and a receiver runs", _BACK)
    elif one.missing:
        mend = _mend_of(one.missing, one.url) if "Java" in one.missing else "receiver serve, which makes it"
        yield warn(SUBJECT, f"{one.whose}{one.missing}", mend)
    elif one.outdated:
        told = f"{one.whose}{one.url}: {one.outdated}; the next start of this program brings it up to date"
        yield warn(SUBJECT, told, "make a backup, then stop the receiver and start it again")
    else:
        told = f"{one.whose}{one.url}: answers in {1000 * one.seconds:.2f} ms, schema {one.schema}"
        yield ok(SUBJECT, told + (f", server {one.version}" if one.version else ""))


def _mend_of(cause: str, store_url: StoreURL) -> str:
    if match := _OWNED.search(cause):
        return match[1]
    folder = os.path.dirname(os.path.abspath(store_url.path)) if store_url.kind == "sqlite" else store_url.path
    for said, mend in _MENDS:
        if said in cause:
            return mend.format(path=shlex.quote(store_url.path), folder=shlex.quote(folder), kind=store_url.kind)
    if store_url.hosts:
        name, port = store_url.hosts[0]
        tool = {"postgresql": f"pg_isready -h {name} -p {port}", "mysql": f"mariadb-admin -h {name} -P {port} ping"}
        return f"start the server, or correct DATABASE_URL; look: {tool.get(store_url.kind, f'nc -z {name} {port}')}"
    return f"look at it: ls -la {shlex.quote(folder)}"


def _sqlite(store_url: StoreURL) -> Iterator[Finding]:
    """Yield what is special about SQLite: its version, and who may read its file."""
    if sqlite3.sqlite_version_info < _FIXED:
        least = ".".join(map(str, _FIXED))
        told = f"SQLite {sqlite3.sqlite_version} may lose a commit when its log begins anew; {least} does not"
        yield warn(SUBJECT, told, "pip install --upgrade pysqlite3")
    files = [store_url.path + ending for ending in ("", "-wal", "-shm")]
    with contextlib.suppress(OSError):
        files = [path for path in files if os.path.exists(path) and Path(path).stat().st_mode & 0o007]
        if files:
            told = f"everybody on this machine may use {', '.join(files)}"
            yield warn(SUBJECT, told, f"chmod o= {' '.join(map(shlex.quote, files))}")
