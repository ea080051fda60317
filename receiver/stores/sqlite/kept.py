"""The connections that a process keeps to SQLite's file: one for each thread, and one for changes."""

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from receiver.problems import Problem, StoreMisplaced, StoreUnavailable
from receiver.stores.sqlite.driver import driver_errors, sqlite3
from receiver.stores.sqlite.rescue import Opened
from receiver.stores.sqlite.wal import WriteAheadLog

# What this process has open at each path, as long as any of its connections lives.
_opened: "weakref.WeakValueDictionary[tuple[int, str], Opened]" = weakref.WeakValueDictionary()

_LAST_PATIENCE = 1.0  # seconds


class _Held(NamedTuple):
    """A connection that is kept, and what it has open."""

    connection: sqlite3.Connection
    opened: Opened


class Connections:
    """The connections to the file at ``path`` that ``connect`` makes, once ``check`` has accepted them.

    A removed file stays writable through an open connection, and what is acknowledged then is lost. So each use looks
    at the file, its log and its index; a missing or another one is an outage, not an empty store.
    """

    def __init__(
        self, path: Path, connect: Callable[[], sqlite3.Connection], check: Callable[[sqlite3.Connection], None]
    ) -> None:
        self.wal = WriteAheadLog(path)
        self._connect, self._accept = connect, check
        self._mine = threading.local()
        self._writer: _Held | None = None
        self._last: _Held | None = None  # stays open when its thread ends: the last one that looks
        atexit.register(_at_exit, weakref.ref(self))

    @property
    def opened(self) -> Opened | None:
        """What this process has open, through whatever store at the same path."""
        return _opened.get((os.getpid(), self.wal.file))

    def reader(self) -> sqlite3.Connection:
        """Return this thread's connection."""
        held: _Held | None = getattr(self._mine, "held", None)
        if held is None or held.opened.process != os.getpid():
            held = self._mine.held = self._open()
            if self._last is None or self._last.opened.process != os.getpid():
                self._last = held
        else:
            self._check(held)
        return held.connection

    def writer(self) -> sqlite3.Connection:
        """Return the connection for changes; for one thread at a time. It does not wait for the write lock."""
        if self._writer is None or self._writer.opened.process != os.getpid():
            self._writer = self._open()
            self._writer.connection.execute("pragma busy_timeout = 0")
        else:
            self._check(self._writer)
        return self._writer.connection

    def check_written(self) -> None:
        """Raise StoreUnavailable when what the connection for changes has written to is no longer there."""
        if self._writer:
            self._check(self._writer)

    def check_free(self) -> None:
        """Raise StoreMisplaced when the file must not be opened: what is in use elsewhere is no longer there."""
        opened = self.opened
        if opened and self.wal.files() != opened.files:
            raise StoreMisplaced(
                f"{self.wal.file}: it, its -wal or -shm was removed or replaced while in use: stop every process of the"
                " receiver, then start it again"
            )
        self.wal.check_not_lost()

    def drop_writer(self) -> None:
        """Close the connection for changes; the next change opens another."""
        held, self._writer = self._writer, None
        if self._last is None:  # no other is open
            _opened.pop((os.getpid(), self.wal.file), None)
        self._close(held)

    def close(self) -> None:
        """Close the connection for changes, this thread's, and the one that outlives its thread."""
        held = {id(one): one for one in (self._mine.__dict__.pop("held", None), self._last, self._writer) if one}
        self._last = self._writer = None
        _opened.pop((os.getpid(), self.wal.file), None)
        for one in held.values():
            self._close(one)

    @property
    def is_open(self) -> bool:
        """Whether this process has a connection that outlives its thread."""
        return self._last is not None and self._last.opened.process == os.getpid()

    def check_last(self) -> None:
        """Write out what the log holds if anything was removed or replaced; the process is about to end."""
        if self._last and self.is_open:
            with suppress(Problem), driver_errors():
                self._check(self._last)

    def _close(self, held: _Held | None) -> None:
        if held is None:
            return
        if held.opened.process == os.getpid():
            with suppress(Problem), driver_errors():
                self._check(held)
        held.connection.close()

    def _check(self, held: _Held) -> None:
        if self.wal.files() != held.opened.files:
            raise StoreUnavailable(held.opened.write_out(held.connection))
        if path := held.opened.emptied():
            raise StoreUnavailable(
                f"SQLite: {path} was emptied while in use, so states are lost: stop every process of the receiver, then"
                " restore a backup, or start it again, which says what is missing"
            )

    def _open(self) -> _Held:
        """Return a new connection to keep, beside those that this process has."""
        others = next((one for one in (self._writer, self._last) if one and one.opened.process == os.getpid()), None)
        if others:
            self._check(others)
        self.check_free()
        connection = self._connect()
        self._accept(connection)  # which opens the log
        opened, files = self.opened, self.wal.files()
        if opened is None:
            if None in files:
                raise StoreUnavailable(f"SQLite: {self.wal.file} or its log was removed a moment ago")
            self.wal.sync()
            opened = _opened[os.getpid(), self.wal.file] = Opened(self.wal, files)
        if files != opened.files:
            raise StoreUnavailable(f"SQLite: {self.wal.file} or its log was replaced a moment ago")
        return _Held(connection, opened)


def _at_exit(connections: "weakref.ref[Connections]") -> None:
    """Let ``connections`` look once more, but not for longer than a frozen disk may delay the end of a process."""
    if (found := connections()) and found.is_open:
        looking = threading.Thread(target=found.check_last, daemon=True)
        try:
            looking.start()
        except RuntimeError:  # Python 3.12 starts none any more
            found.check_last()
        else:
            looking.join(_LAST_PATIENCE)
