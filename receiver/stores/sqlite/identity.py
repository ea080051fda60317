"""A new store on SQLite's file that is made on purpose, and one that is taken as it is."""

import os
from contextlib import closing, suppress

from receiver.problems import StoreMisplaced
from receiver.stores.marker import Mark
from receiver.stores.sqlite.driver import sqlite3
from receiver.stores.sqlite.file import DatabaseFile
from receiver.stores.sqlite.schema import id_in


def init(file: DatabaseFile) -> Mark:
    """Make a new store in ``file`` (Store.init)."""
    with file.preparing():
        file.place.check_fitness()
        if os.path.exists(file.path) and os.path.getsize(file.path):
            raise StoreMisplaced(f"{file.path}: {_what_it_holds(file)}: move it away first, with its -wal and -shm")
        for beside in (f"{file.path}-wal", f"{file.path}-shm"):
            if os.path.exists(beside):
                raise StoreMisplaced(f"{beside}: belongs to the store that was here: move it away first")
        file.place.create()
        mark = file.upgrade(None)
        if file.place.expected.pinned:
            mark = mark._replace(store=file.place.expected.pinned)
            with closing(file.connect()) as connection:
                connection.execute("update store set id = ?", [mark.store])
        file.place.marker.replace(mark)
        return mark


def accept(file: DatabaseFile) -> Mark:
    """Take the store in ``file`` as the one that belongs there (Store.accept)."""
    with file.preparing():
        file.place.check_fitness()
        if not os.path.exists(file.path) or not os.path.getsize(file.path):
            raise StoreMisplaced(f"{file.path}: there is no store to accept; `receiver store init` makes a new one")
        mark = file.upgrade(None)
        file.place.marker.replace(mark)
        return mark


def _what_it_holds(file: DatabaseFile) -> str:
    with suppress(sqlite3.Error), closing(file.connect()) as connection:
        if found := id_in(connection):
            return f"holds the store {found}"
    return "is not empty"
