"""SQLite's driver, and the contract's errors for what it raises."""

from collections.abc import Iterator
from contextlib import contextmanager

# pysqlite3 where it is installed: a current SQLite
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # it declares no exports

from receiver.problems import StoreDamaged, StoreFull, StoreUnavailable

__all__ = ["code_of", "driver_errors", "sqlite3"]

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH}


def code_of(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code; None when the driver itself raised ``error``."""
    extended = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turn the driver's errors into those of the contract. Only this module knows the driver's."""
    try:
        yield
    except sqlite3.Error as cause:
        code = code_of(cause)
        if code is None:  # raised by the driver itself, which could not decode what SQLite holds
            raise StoreDamaged(f"SQLite: {type(cause).__name__}") from cause
        text = f"SQLite: {cause.sqlite_errorname}: {cause}"
        if code == sqlite3.SQLITE_FULL:
            raise StoreFull(text) from cause
        if code in _DAMAGED:
            raise StoreDamaged(text) from cause
        raise StoreUnavailable(text) from cause
    except OSError as cause:
        raise StoreUnavailable(f"SQLite's file {cause.filename}: {cause.strerror}") from cause
