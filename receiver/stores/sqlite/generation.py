"""The generation of SQLite's store: grows with each commit, inside the file and in its marker (marker.py).

A log that lost its end, or an older copy of the file, is behind the marker. An older copy that was put beside the log
of a newer file is found by the page of the table ``store``: the log goes on where the file was at its last checkpoint.
"""

import logging
import os
import re
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from receiver.problems import StoreMisplaced
from receiver.stores.marker import Mark, Marker
from receiver.stores.sqlite.driver import code_of, sqlite3
from receiver.stores.sqlite.schema import mark_in
from receiver.stores.sqlite.wal import WriteAheadLog, kept

_ADVANCE = """
    update store set generation = generation + 1, token = lower(hex(randomblob(8)))
    returning id, generation, token
"""
_FRAME = struct.Struct(">I4x8s8x")  # of the log: the number of its page, salts
_LOG_SALTS = slice(16, 24)
# A page with the one row of ``store`` (sqlite.org/fileformat.html, sections 1.6 and 2.1): its type, the number of its
# rows, where the row begins; the row's two sizes, then its header: the types of its three values.
_PAGE = struct.Struct(">B2xH3xH")
_LEAF = 13
_ROW = re.compile(rb"..\x04\x55([\x01-\x09])\x2d([0-9a-f-]{36})", re.DOTALL)
_WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}  # bytes of an integer, by its type; 8 is 0, and 9 is 1


def advance(connection: sqlite3.Connection) -> Mark:
    """Count the transaction that ``connection`` is about to commit; return the store's mark after it."""
    return Mark(*connection.execute(_ADVANCE).fetchone())


class Generation:
    """The generation of the store at ``place``, by its ``marker``."""

    def __init__(self, place: str, marker: Marker) -> None:
        self.place = place
        self._marker = marker
        self._is_told = False

    def note(self, mark: Mark) -> None:
        """Note ``mark``, which is committed, in the marker, before anything of it is acknowledged.

        If it cannot be written, the log says so once: it lags then, and notices less. Raises StoreMisplaced.
        """
        try:
            self._marker.advance(mark)
        except OSError as cause:
            if not self._is_told:
                self._is_told = True
                text = "%s cannot be written (%s): a log that loses its end will not be noticed"
                logging.getLogger("receiver").warning(text, self._marker.path, cause.strerror)

    def check(self, connection: sqlite3.Connection) -> None:
        """Raise StoreMisplaced when the store is behind its marker."""
        known = self._marker.read()  # first: another process may commit meanwhile
        found = marked(connection)
        if known is None or found is None or known.store != found.store:  # identity.py
            return
        if found.generation < known.generation:
            raise StoreMisplaced(
                f"{self.place}: commits {found.generation + 1} to {known.generation} are missing, which were"
                f" acknowledged: its -wal is missing or lost its end, or an older copy was put back: {self._remedy()}"
            )
        if found.generation == known.generation and found.token != known.token:
            raise StoreMisplaced(
                f"{self.place}: commit {known.generation} is not the one that was acknowledged: an older copy was put"
                f" back and used since: {self._remedy()}"
            )

    def check_before_use(self, log: WriteAheadLog, is_expected: bool) -> None:
        """Raise StoreMisplaced when the file and its log are not of one store, or not ``is_expected``'s last state.

        Changes neither: a connection that may write would copy a wrong log into the file when it closes.
        """
        if not os.path.getsize(self.place) or os.path.exists(f"{self.place}-journal"):
            return  # the journal of a first start that was cut off: only a connection that may write can undo that
        with closing(_read_only(self.place)) as connection:
            if marked(connection) is None:
                return
            if is_expected:
                self.check(connection)
            root = connection.execute("select rootpage from sqlite_master where name = 'store'").fetchone()[0]
            size = connection.execute("pragma page_size").fetchone()[0]
        first = _first_in_log(log.log, root, size)  # before the file: its generation only grows
        own = _mark_on(os.pread(kept(self.place), size, (root - 1) * size))
        if own and first and (own.store != first.store or own.generation + 1 < first.generation):
            raise StoreMisplaced(
                f"{self.place}: is not the file that its log {log.log} belongs to, which begins after commit"
                f" {first.generation - 1}: if it is a whole backup, move the log away; {self._remedy()}"
            )

    @contextmanager
    def naming_rescued(self) -> Iterator[None]:
        """Add to the remedy of a StoreMisplaced the newest backup that a receiver wrote when files were removed."""
        try:
            yield
        except StoreMisplaced as fault:
            path = Path(self.place)
            found = sorted(path.parent.glob(f"{path.name}.rescued-*[0-9]"), key=lambda one: one.stat().st_mtime)
            if not found:
                raise
            text = f"{fault.cause}; what was there when the file was removed is in {found[-1]}: to go on with it, put"
            raise StoreMisplaced(f"{text} it there as {path}, without the old -wal and -shm") from fault

    def _remedy(self) -> str:
        return (
            "stop every process of the receiver and put the right files back; or put the last backup there, or leave"
            " what is there, and run `receiver store accept`, which goes on with that"
        )


def marked(connection: sqlite3.Connection) -> Mark | None:
    """Return the mark of the store; None for one of an older version, which has none."""
    try:
        return mark_in(connection)
    except sqlite3.OperationalError as cause:
        if code_of(cause) == sqlite3.SQLITE_ERROR:  # there is no such table
            return None
        raise


def _read_only(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True, timeout=5, isolation_level=None)


def _first_in_log(path: str, root: int, size: int) -> Mark | None:
    """Return the mark on the first page ``root`` in the log."""
    with suppress(FileNotFoundError), open(path, "rb") as log:
        salts, place = log.read(32)[_LOG_SALTS], 32
        while len(frame := log.read(_FRAME.size)) == _FRAME.size:
            number, found = _FRAME.unpack(frame)
            if found != salts:  # left from before the log began anew
                return None
            if number == root:
                return _mark_on(log.read(size))
            place += _FRAME.size + size
            log.seek(place)
    return None


def _mark_on(page: bytes) -> Mark | None:
    """Return the mark on the page of the table ``store``; None when it is not on it."""
    if len(page) < _PAGE.size:
        return None
    kind, rows, place = _PAGE.unpack_from(page)
    row = _ROW.match(page, place)
    if kind != _LEAF or rows != 1 or row is None or (width := _WIDTHS.get(row[1][0])) is None:
        return None
    generation = int.from_bytes(page[row.end() : row.end() + width], "big") if width else row[1][0] - 8
    return Mark(row[2].decode(), generation, page[row.end() + width : row.end() + width + 16].decode("latin-1"))
