"""SQLite's file: where it may lie, how it is made and opened, and what becomes of the driver's errors."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # pysqlite3 where it is installed: a current SQLite

from receiver.files import ownership
from receiver.problems import StoreDamaged, StoreFull, StoreMisplaced, StoreUnavailable
from receiver.stores.mounts import network_type
from receiver.stores.sqlite.schema import STEPS, migrations
from receiver.threadpool import waiting

_POLL = 0.001  # seconds; another process rarely holds the write lock for longer
_CHECKPOINT_PAGES = 4000  # 16 MiB; SQLite's own 1000 writes the pages that all changes touch four times as often
_JOURNAL_BYTES = 64 << 20  # what is left of the write-ahead log after a checkpoint
_MISPLACED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH}


def _code_of(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code; None when the driver itself raised ``error``."""
    extended = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF


@contextmanager
def driver_errors() -> Iterator[None]:
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


class DatabaseFile:
    """The SQLite file at ``path``; ``timeout`` in seconds bounds every wait for its lock. One serves all threads."""

    def __init__(self, path: Path, timeout: float, create: bool):
        self.path = path
        self.timeout = timeout
        self.create = create
        self._mine = threading.local()
        self._writer: tuple[sqlite3.Connection, tuple] | None = None
        self._preparing = threading.Lock()
        self._prepared: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Make the file if that is allowed, and bring its schema up to date (Store.prepare)."""
        deadline = time.monotonic() + self.timeout
        with driver_errors(), _held(self._preparing, self.timeout):
            self.check_place()
            if self.create:
                self._create_file()
            identity = self._identity()
            try:
                with closing(self.connect()) as connection:
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
        self._check_not_newer(database)
        if migrations.pending(database):
            connection.execute("pragma busy_timeout = 0")
            begin(connection, deadline)
            migrations.apply(database)
            connection.execute("commit")

    def check_schema(self, connection: sqlite3.Connection) -> str:
        """Return the last step of the schema (Store.schema_version)."""
        database = Database(connection, execute_plugins=False)
        self._check_not_newer(database)
        if migrations.pending(database):
            raise StoreMisplaced(f"{self.path}: its schema is older than this program needs: restart the receiver")
        return STEPS[-1]

    def _check_not_newer(self, database: Database) -> None:
        if {step.name for step in migrations.applied(database)} - set(STEPS):
            raise StoreMisplaced(
                f"{self.path}: its schema is newer than this program knows: run the version of the receiver that made"
                " it, or a later one"
            )

    def check_place(self) -> None:
        """Raise StoreMisplaced when no database can lie there (Store.check_place)."""
        path, folder = self.path, self.path.parent
        if os.path.exists(path) and not os.path.isfile(path):  # Path's own raise where they may not look
            raise StoreMisplaced(f"{path}: is not a file")
        if not os.path.isdir(folder) and (os.path.exists(folder) or not os.access(folder.parent, os.W_OK | os.X_OK)):
            text = f"{path}: the folder {folder} is missing (is the volume mounted?)"
            raise StoreMisplaced(text if os.path.exists(folder) else text + ownership(folder.parent))
        if kind := network_type(path):
            raise StoreMisplaced(
                f"{path}: lies on {kind}, a file system of the network, where SQLite would lose data:"
                " use a local disk, or file:// or a database server instead"
            )
        for needed in (folder, path, f"{path}-wal", f"{path}-shm"):  # the write-ahead log is made beside the file
            if os.path.exists(needed) and not os.access(needed, os.R_OK | os.W_OK):
                # What root's command left beside the file is not all: the whole folder is the receiver's.
                owned = ownership(needed) and (ownership(folder) or ownership(needed))
                raise StoreMisplaced(f"{needed}: must be readable and writable for this user{owned}")

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

    def connect(self) -> sqlite3.Connection:
        """Return a new connection, which may go from thread to thread; its transactions are begun by hand."""
        connection = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False)
        for pragma in (
            "synchronous = full",  # 204 means durable: in WAL mode, normal may lose the last commits
            f"journal_size_limit = {_JOURNAL_BYTES}",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
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

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection to the file that lies at the path now.

        A file that was removed stays writable through an open connection, and what is acknowledged then is
        lost: so it is looked at each time, and a missing one is an outage rather than an empty store.
        """
        current = self._current()
        held = getattr(self._mine, "held", None)
        if held is None or held[1] != current:
            held = self._mine.held = (self.connect(), current)
        return held[0]

    def writer(self) -> sqlite3.Connection:
        """Return the connection for changes, to the file that lies at the path now; for one thread at a time.

        It does not wait for the write lock of other processes by itself.
        """
        current = self._current()
        if self._writer is None or self._writer[1] != current:
            connection = self.connect()
            connection.execute("pragma busy_timeout = 0")
            self._writer = connection, current
        return self._writer[0]

    def _current(self) -> tuple[int, tuple[int, int]]:
        """Return what this process's connections to the file must be made for, which is prepared."""
        if self._prepared is None:
            self.prepare()
        identity = self._identity()
        if identity != self._prepared:
            self.prepare()
        return os.getpid(), identity

    def drop_writer(self) -> None:
        """Close the connection for changes; the next one makes its own."""
        held, self._writer = self._writer, None
        if held:
            held[0].close()

    def close(self) -> None:
        """Close the connection for changes, and this thread's."""
        self.drop_writer()
        held = self._mine.__dict__.pop("held", None)
        if held:
            held[0].close()


@contextmanager
def _held(lock: threading.Lock, timeout: float) -> Iterator[None]:
    with waiting():
        held = lock.acquire(timeout=timeout)
    if not held:
        raise StoreUnavailable("SQLite: the file was not prepared in time")
    try:
        yield
    finally:
        lock.release()


def begin(connection: sqlite3.Connection, deadline: float) -> None:
    """Begin a transaction that may write, on a connection that does not wait by itself.

    Waits for the right to until ``deadline`` (time.monotonic): others compute meanwhile.
    """
    while True:
        try:
            connection.execute("begin immediate")
            return
        except sqlite3.OperationalError as busy:
            if _code_of(busy) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        with waiting():
            time.sleep(_POLL)
