"""SQLite's file: where it may lie, and how it is made and opened."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from sqlite_utils import Database

from receiver.files import ownership
from receiver.problems import StoreDamaged, StoreMisplaced, StoreUnavailable
from receiver.stores.mounts import network_type
from receiver.stores.sqlite import mark
from receiver.stores.sqlite.driver import code_of, driver_errors, sqlite3
from receiver.stores.sqlite.schema import STEPS, migrations
from receiver.stores.sqlite.space import Space, log_pages
from receiver.stores.sqlite.wal import Identity, WriteAheadLog
from receiver.threadpool import blocking

_POLL = 0.001  # seconds; other processes rarely hold the write lock for longer
_JOURNAL_BYTES = 64 << 20  # the most that is kept of the write-ahead log after a checkpoint
_MISPLACED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}


Result = TypeVar("Result")
_MADE_FOR = tuple[int, tuple[int, int]]  # the process that made a connection, and the file


class _Held(NamedTuple):
    """A connection that is kept, what it was made for, and the write-ahead log that it has open."""

    connection: sqlite3.Connection
    made_for: _MADE_FOR
    log: Identity | None


class DatabaseFile:
    """The SQLite file at ``path``; ``timeout`` in seconds bounds every wait for its lock. It serves all threads."""

    def __init__(self, path: Path, timeout: float, create: bool) -> None:
        self.path = path
        self.timeout = timeout
        self.create = create
        self.space = Space(path)
        self._log = WriteAheadLog(path)
        self._mine = threading.local()
        self._writer: _Held | None = None
        self._preparing = threading.Lock()
        self._prepared: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Make the file if allowed, and upgrade its schema (Store.prepare)."""
        deadline = time.monotonic() + self.timeout
        with driver_errors(), _held(self._preparing, self.timeout):
            self.check_location()
            if self.create:
                self._create_file()
            identity = self._identity()
            try:
                self._with_some_space(lambda: self._upgrade(deadline))
            except sqlite3.Error as cause:
                if code_of(cause) in _MISPLACED:
                    raise StoreMisplaced(f"{self.path}: {cause.sqlite_errorname}: {cause}") from cause
                raise
            mark.put(self.path)
            self._prepared = identity

    def _upgrade(self, deadline: float) -> None:
        with closing(self.connect()) as connection:
            self._enter_wal(connection, deadline)
            self._migrate(connection, deadline)

    def _with_some_space(self, do: Callable[[], Result]) -> Result:
        """Return what ``do`` returns, which opens the file: the first to do so makes its log and its index."""
        try:
            return do()
        except sqlite3.Error as error:
            if not self.space.is_short(error):
                raise
        self.space.give_up_some()
        return do()

    def _migrate(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Upgrade the schema; takes the write lock only if there is something to do."""
        database = Database(connection, execute_plugins=False)
        self._check_not_newer(database)
        if migrations.pending(database):
            connection.execute("pragma busy_timeout = 0")
            begin(connection, deadline)
            migrations.apply(database)
            connection.execute("commit")

    def check_schema(self, connection: sqlite3.Connection) -> str:
        """Return the last migration of the schema (Store.schema_version)."""
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

    def check_location(self) -> None:
        """Raise StoreMisplaced when no database can lie there (Store.check_location)."""
        path, folder = self.path, self.path.parent
        if os.path.exists(path) and not os.path.isfile(
            path
        ):  # Path's own methods raise where they lack the right to look
            raise StoreMisplaced(f"{path}: is not a file")
        if mark.was_emptied(path):
            raise StoreMisplaced(
                f"{path}: is empty, and has held a store: restore a backup; if what it held is lost, remove {path}"
                " with its -wal and -shm, and the next start makes a new store"
            )
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
                # A command that root ran left more than this one: the whole folder must be the receiver's.
                owned = ownership(needed) and (ownership(folder) or ownership(needed))
                raise StoreMisplaced(f"{needed}: must be readable and writable for this user{owned}")
        self._log.check_not_lost()  # it opens the index, so after the permissions

    def _create_file(self) -> None:
        """Make the file, for its owner only, and its folder, but no folder above."""
        with suppress(FileExistsError):
            self.path.parent.mkdir(mode=0o700)
        # Open a new file only: closing any descriptor of a database drops this process's locks on it.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _identity(self) -> tuple[int, int]:
        """Return what identifies the file among others at the same path; raises OSError when it is gone."""
        status = os.stat(self.path)
        if self._prepared and not status.st_size:
            raise StoreDamaged("SQLite: the file has been emptied")
        return status.st_dev, status.st_ino

    def connect(self) -> sqlite3.Connection:
        """Return a new connection, which any thread may use; its transactions are begun explicitly."""
        connection = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False)
        for pragma in (
            "synchronous = full",  # 204 means durable: in WAL mode, normal may lose the last commits
            f"journal_size_limit = {_JOURNAL_BYTES}",
            f"wal_autocheckpoint = {log_pages(self.path)}",
        ):
            connection.execute(f"pragma {pragma}")
        return connection

    def _enter_wal(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Switch to WAL. SQLite does not wait for the lock there, so processes that start together wait here."""
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
        """Return this thread's connection to the file that is at the path now.

        A removed file stays writable through an open connection, and what is acknowledged then is lost. So each
        call looks at the file and its log; a missing one is an outage, not an empty store.
        """
        current = self._current()
        held: _Held | None = getattr(self._mine, "held", None)
        if held is None or held.made_for != current:
            held = self._mine.held = self._open(current)
        else:
            self._log.check_in_use(held.connection, held.log)
        return held.connection

    def writer(self) -> sqlite3.Connection:
        """Return the connection for changes to the file that is at the path now; for one thread at a time.

        It does not itself wait for the write lock of other processes.
        """
        current = self._current()
        if self._writer is None or self._writer.made_for != current:
            self._writer = self._open(current)
            self._writer.connection.execute("pragma busy_timeout = 0")
        else:
            self.check_written()
        return self._writer.connection

    def check_written(self) -> None:
        """Raise StoreUnavailable when the log that the connection for changes writes to is no longer there."""
        if self._writer:
            self._log.check_in_use(self._writer.connection, self._writer.log)

    def _open(self, current: _MADE_FOR) -> _Held:
        """Return a new connection to keep, beside those that this process has."""
        if self._writer and self._writer.made_for == current:
            self.check_written()
        self._log.check_not_lost()
        connection = self._with_some_space(self._connected)
        return _Held(connection, current, self._log.opened())

    def _connected(self) -> sqlite3.Connection:
        connection = self.connect()
        connection.execute("pragma schema_version").fetchone()  # opens the log
        return connection

    def _current(self) -> _MADE_FOR:
        """Return what connections must be made for, this process and the file, after preparing the file."""
        if self._prepared is None:
            self.prepare()
        identity = self._identity()
        if identity != self._prepared:
            self.prepare()
        return os.getpid(), identity

    def drop_writer(self) -> None:
        """Close the connection for changes; the next change opens another."""
        held, self._writer = self._writer, None
        if held:
            held.connection.close()

    def close(self) -> None:
        """Close the connection for changes, and this thread's."""
        self.drop_writer()
        held = self._mine.__dict__.pop("held", None)
        if held:
            held.connection.close()


@contextmanager
def _held(lock: threading.Lock, timeout: float) -> Iterator[None]:
    with blocking():
        held = lock.acquire(timeout=timeout)
    if not held:
        raise StoreUnavailable("SQLite: the file was not prepared in time")
    try:
        yield
    finally:
        lock.release()


def begin(connection: sqlite3.Connection, deadline: float) -> None:
    """Begin a transaction that may write, on a connection that does not itself wait for the lock.

    Waits for the write lock until ``deadline`` (time.monotonic); other threads compute meanwhile.
    """
    while True:
        try:
            connection.execute("begin immediate")
            return
        except sqlite3.OperationalError as busy:
            if code_of(busy) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        with blocking():
            time.sleep(_POLL)
