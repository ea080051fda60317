"""SQLite's file: where it may lie, and how it is made and opened."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlite_utils import Database

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores.identity import Expected
from receiver.stores.marker import Mark
from receiver.stores.sqlite.driver import code_of, driver_errors, sqlite3
from receiver.stores.sqlite.kept import Connections
from receiver.stores.sqlite.place import Place
from receiver.stores.sqlite.schema import STEPS, id_in, mark_in, migrations
from receiver.stores.sqlite.space import Space, log_pages
from receiver.threadpool import blocking

_POLL = 0.001  # seconds; other processes rarely hold the write lock for longer
_JOURNAL_BYTES = 64 << 20  # the most that is kept of the write-ahead log after a checkpoint
_MISPLACED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}


class DatabaseFile:
    """The SQLite file at ``path``; ``timeout`` in seconds bounds every wait for its lock. It serves all threads.

    ``store_id`` is the id of the only store that is accepted there; any, if empty.
    """

    def __init__(self, path: Path, timeout: float, create: bool, store_id: str = "") -> None:
        self.path = path
        self.place = Place(path, store_id)
        self.timeout = timeout
        self.create = create
        self.space = Space(path)
        self.kept = Connections(path, self.connect, self.place.generation.check)
        self._preparing = threading.Lock()
        self._prepared: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Make the file if allowed, and upgrade its schema (Store.prepare)."""
        with self.preparing():
            self.check_location()
            if self.create:
                self.place.create()
            with self.place.generation.naming_rescued():
                self.upgrade(self.place.expected)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Keep other threads from preparing the file at the same time; turn SQLite's errors into the contract's."""
        with driver_errors(), _held(self._preparing, self.timeout):
            try:
                yield
            except sqlite3.Error as cause:
                if code_of(cause) in _MISPLACED:
                    raise StoreMisplaced(f"{self.path}: {cause.sqlite_errorname}: {cause}") from cause
                raise

    def upgrade(self, expected: Expected | None) -> Mark:
        """Upgrade the schema of the file, and return the mark of the store in it, the ``expected`` one if given."""
        deadline = time.monotonic() + self.timeout
        identity = self._identity()
        if not expected:
            self.kept.check_free()
        self.space.with_some(lambda: self.place.generation.check_before_use(self.kept.wal, expected is not None))
        with closing(self.connect()) as connection:
            if expected and os.path.getsize(self.path):
                expected.check(lambda: id_in(connection))  # before anything in it is changed
            self._enter_wal(connection, deadline)
            self._migrate(connection, deadline)
            mark = mark_in(connection)
        if expected and self.create:
            expected.settle(mark)
        self._prepared = identity
        return mark

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
        self.place.check()
        self.kept.check_free()  # it opens the index, so after the permissions

    def _identity(self) -> tuple[int, int]:
        """Return what identifies the file among others at the same path; raises OSError when it is gone."""
        status = os.stat(self.path)
        if self._prepared and not status.st_size:
            self.place.expected.check_absence(self.place.absence)
            raise StoreUnavailable(f"SQLite: {self.path} has been emptied")
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
        self.space.with_some(lambda: connection.execute("pragma schema_version").fetchone())  # opens the log
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
        """Return this thread's connection to the file that is at the path."""
        self._check_prepared()
        return self.kept.reader()

    def writer(self) -> sqlite3.Connection:
        """Return the connection for changes to the file that is at the path; for one thread at a time.

        It does not itself wait for the write lock of other processes.
        """
        self._check_prepared()
        return self.kept.writer()

    def acknowledge(self, mark: Mark) -> None:
        """Note that ``mark`` is committed, so that a log that loses it is noticed. Raises StoreUnavailable.

        It is lost at once if the log or the file was removed or replaced meanwhile: then nothing may be acknowledged.
        """
        self.kept.check_written()
        self.place.generation.note(mark)

    def _check_prepared(self) -> None:
        """Prepare the file unless this process has connections to it, which then tell whether it is still the one."""
        if not self._prepared or (self.kept.opened is None and self._identity() != self._prepared):
            self.prepare()


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
