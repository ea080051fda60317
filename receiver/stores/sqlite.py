"""The embedded store: one SQLite file in WAL mode, shared by all workers of one machine.

sqlite-utils makes the schema and its migrations; the hot path is SQL of its own. Every change is one
BEGIN IMMEDIATE transaction: a deferred one that reads before it writes fails at once under load.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # pysqlite3 where it is installed: a current SQLite

from receiver.problems import StoreDamaged, StoreFull, StoreMisplaced, StoreUnavailable
from receiver.states import NANOSECONDS, State, Summary
from receiver.stores import Effect, Receipt, Store
from receiver.stores.mounts import network_type
from receiver.stores.rows import row_of, state_of, summary_of
from receiver.stores.sqlite_rows import COLUMNS, SUMMARY, UPSERT, bind, jti_was
from receiver.stores.sqlite_schema import migrations

_JOURNAL_BYTES = 64 << 20  # what is left of the write-ahead log after a checkpoint
_PAGE = 500
_MISPLACED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH}


def _code_of(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code; None when the driver itself raised ``error``."""
    extended = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF


@contextmanager
def _driver_errors() -> Iterator[None]:
    """Turn what the driver raises into the contract's errors: the one place that knows them."""
    try:
        yield
    except sqlite3.Error as cause:
        code = _code_of(cause)
        if code is None:  # raised by the driver, which could not make text of what SQLite holds
            raise StoreDamaged(f"SQLite: {type(cause).__name__}") from cause
        text = f"SQLite: {cause.sqlite_errorname}: {cause}"
        if code == sqlite3.SQLITE_FULL:
            raise StoreFull(text) from cause
        if code in _DAMAGED:
            raise StoreDamaged(text) from cause
        raise StoreUnavailable(text) from cause
    except OSError as cause:
        raise StoreUnavailable(f"SQLite's file {cause.filename}: {cause.strerror}") from cause


class SqliteStore(Store):
    """States in the SQLite file at ``path``; ``timeout`` in seconds bounds every wait for its lock."""

    def __init__(self, path: str, timeout: float, create: bool = True):
        self.path = Path(path)
        self.timeout = timeout
        self.create = create
        self._mine = threading.local()
        self._writing = threading.Lock()
        self._preparing = threading.Lock()
        self._prepared: tuple[int, int] | None = None

    def prepare(self) -> None:
        deadline = time.monotonic() + self.timeout
        with _driver_errors(), _held(self._preparing, self.timeout):
            self.check_place()
            if self.create:
                self._create_file()
            identity = self._identity()
            try:
                with closing(self._connect()) as connection:
                    self._enter_wal(connection, deadline)
                    self._migrate(connection, deadline)
            except sqlite3.Error as cause:
                if _code_of(cause) in _MISPLACED:
                    raise StoreMisplaced(f"{self.path}: {cause.sqlite_errorname}: {cause}") from cause
                raise
            self._prepared = identity

    def _migrate(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Bring the schema up to date; takes the write lock only where there is something to do."""
        database = Database(connection, execute_plugins=False)
        if migrations.pending(database):
            _begin(connection, deadline)
            migrations.apply(database)
            connection.execute("commit")

    def ping(self) -> None:
        try:
            with self._reading() as connection:
                connection.execute("select 1 from states limit 1").fetchone()
        except StoreDamaged as damage:
            raise StoreUnavailable(damage.cause) from damage

    def find(self, tenant: str, id: str) -> State | None:
        with self._reading() as connection:
            row = connection.execute(
                f"select {COLUMNS} from states where tenant = :tenant and id = :id",  # noqa: S608
                {"tenant": tenant, "id": id},
            ).fetchone()
            return state_of(row) if row else None

    def repeated(self, tenant: str, receipt: Receipt) -> bool:
        with self._reading() as connection:
            return jti_was(connection, tenant, receipt) == "repeated"

    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        with self._change(tenant, receipt) as (connection, was):
            if was == "repeated":
                return Effect(jti_was=was)
            stored = sum(connection.execute(UPSERT, row_of(tenant, state)).rowcount for state in states)
            return Effect(stored, len(states) - stored, was)

    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        with self._change(tenant, receipt) as (connection, was):
            if was == "repeated":
                return Effect(jti_was=was)
            cursor = connection.executemany(
                "delete from states where tenant = ? and id = ?", ((tenant, id) for id in ids)
            )
            return Effect(max(cursor.rowcount, 0), 0, was)

    def purge(self, before: int) -> int:
        with self._change("", None) as (connection, _):
            # Whole seconds on both sides: a state goes a second late rather than early.
            return connection.execute(
                "delete from states where expires_second < :second",
                {"second": before // NANOSECONDS},
            ).rowcount

    def summaries(self, tenant: str | None = None) -> Iterator[Summary]:
        sql = f"""
            select {SUMMARY} from states
             where (tenant, id) > (:tenant, :id) and tenant between :first and :last
             order by tenant, id limit {_PAGE}
        """  # noqa: S608
        at = {"tenant": "", "id": "", "first": tenant or "", "last": tenant or "~"}
        while True:
            with self._reading() as connection:
                page = [summary_of(row) for row in connection.execute(sql, at)]
            yield from page
            if len(page) < _PAGE:
                return
            at |= {"tenant": page[-1].tenant, "id": page[-1].id}

    def scan(self, tenant: str | None = None, wanted: Callable[[Summary], bool] | None = None) -> Iterator[State]:
        where = "" if tenant is None else "where tenant = :tenant"
        keys = f"select {SUMMARY} from states {where} order by tenant, id"  # noqa: S608
        row = f"select {COLUMNS} from states where tenant = ? and id = ?"  # noqa: S608
        with _driver_errors():
            self._connection()
            # A connection of its own: an open transaction would pin this thread's to an old snapshot.
            with closing(self._connect()) as connection:
                connection.execute("begin")
                for summary in map(summary_of, connection.execute(keys, {"tenant": tenant})):
                    if wanted is None or wanted(summary):
                        yield state_of(connection.execute(row, (summary.tenant, summary.id)).fetchone())

    def close(self) -> None:
        held = self._mine.__dict__.pop("held", None)
        if held:
            held[0].close()

    def check_place(self) -> None:
        path, folder = self.path, self.path.parent
        if os.path.exists(path) and not os.path.isfile(path):  # Path's own raise where they may not look
            raise StoreMisplaced(f"{path}: is not a file")
        if not os.path.isdir(folder) and (os.path.exists(folder) or not os.access(folder.parent, os.W_OK | os.X_OK)):
            raise StoreMisplaced(f"{path}: the folder {folder} is missing (is the volume mounted?)")
        if kind := network_type(path):
            raise StoreMisplaced(
                f"{path}: lies on {kind}, a file system of the network, where SQLite would lose data:"
                " use a local disk, or file:// or a database server instead"
            )
        for needed in (path, folder):  # the write-ahead log is made beside the file
            if os.path.exists(needed) and not os.access(needed, os.R_OK | os.W_OK):
                raise StoreMisplaced(f"{needed}: must be readable and writable for this user")

    def _create_file(self) -> None:
        """Make the file, readable by its owner only, and its folder, but no folder above that one."""
        with suppress(FileExistsError):
            self.path.parent.mkdir(mode=0o700)
        # Only when it is new: closing any descriptor of a database drops this process's locks on it.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _identity(self) -> tuple[int, int]:
        """Return what tells this file from another one at the same path; raises OSError when it is gone."""
        status = os.stat(self.path)
        if self._prepared and not status.st_size:
            raise StoreDamaged("SQLite: the file has been emptied")
        return status.st_dev, status.st_ino

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False)
        for pragma in (
            "synchronous = full",  # 204 means durable: in WAL mode, normal may lose the last commits
            f"journal_size_limit = {_JOURNAL_BYTES}",
        ):
            connection.execute(f"pragma {pragma}")
        return connection

    def _enter_wal(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Switch to WAL; SQLite does not wait for a lock there, so processes starting together must."""
        while connection.execute("pragma journal_mode").fetchone()[0] != "wal":
            try:
                mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                if mode != "wal":
                    raise StoreMisplaced(f"{self.path}: this file system does not carry a write-ahead log")

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection to the file that lies at the path now.

        A file that was removed stays writable through an open connection, and what is acknowledged then is
        lost: so it is looked at each time, and a missing one is an outage rather than an empty store.
        """
        if self._prepared is None:
            self.prepare()
        current = (os.getpid(), self._identity())
        held = getattr(self._mine, "held", None)
        if held and held[1] == current:
            return held[0]
        if current[1] != self._prepared:
            self.prepare()
        self._mine.held = (self._connect(), current)
        return self._mine.held[0]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with _driver_errors():
            yield self._connection()

    @contextmanager
    def _change(self, tenant: str, receipt: Receipt | None) -> Iterator[tuple[sqlite3.Connection, str]]:
        """One durable transaction with its receipt; rolled back whole when anything raises."""
        with _driver_errors():
            connection = self._connection()
            deadline = time.monotonic() + self.timeout
            # Threads of one process queue here in order; only processes meet in SQLite's unfair busy wait.
            with _held(self._writing, self.timeout):
                _begin(connection, deadline)
                try:
                    yield connection, bind(connection, tenant, receipt) if receipt else "new"
                    connection.execute("commit")
                except BaseException:
                    with suppress(sqlite3.Error):
                        connection.execute("rollback")
                    raise


@contextmanager
def _held(lock: threading.Lock, timeout: float) -> Iterator[None]:
    if not lock.acquire(timeout=timeout):
        raise StoreUnavailable("SQLite: the write lock was not free in time")
    try:
        yield
    finally:
        lock.release()


def _begin(connection: sqlite3.Connection, deadline: float) -> None:
    """Begin a transaction that may write, and wait for the right to until ``deadline`` (time.monotonic)."""
    left = max(0, int(1000 * (deadline - time.monotonic())))
    connection.execute(f"pragma busy_timeout = {left}")
    connection.execute("begin immediate")
