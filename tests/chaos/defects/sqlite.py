"""Defects of the SQLite store."""

import threading
import time

from receiver.idempotency import Effect
from receiver.stores import sqlite
from receiver.stores.sqlite import rows
from receiver.stores.sqlite.driver import driver_errors
from receiver.stores.sqlite.file import DatabaseFile
from tests.chaos.defects import defect


@defect(
    "acknowledged-before-commit",
    "204 is sent, then the change is committed",
    "worker-kill",
    "sqlite",
    {"lost", "stale"},
)
def _acknowledged_before_commit() -> None:
    honest = sqlite.SqliteStore._change

    def hasty(self, work, large=False):
        threading.Thread(target=honest, args=(self, work, large)).start()
        return Effect(1, 0, "new")

    sqlite.SqliteStore._change = hasty


@defect("older-save-wins", "the upsert has lost its condition", "none", "sqlite", {"older wins", "stale", "lost"})
def _older_save_wins() -> None:
    condition = "where (excluded"
    assert condition in rows._UPSERT
    rows._UPSERT = rows._UPSERT.partition(condition)[0]


@defect("old-snapshot", "loads read by a connection whose transaction stays open", "none", "sqlite", {"stale", "lost"})
def _old_snapshot() -> None:
    honest, known = DatabaseFile.connection, threading.local()

    def old(file):
        connection = honest(file)
        if time.monotonic() > getattr(known, "until", 0):
            if connection.in_transaction:
                connection.execute("rollback")
            connection.execute("begin")
            known.until = time.monotonic() + 0.2
        return connection

    def find(self, tenant, id):
        with driver_errors():
            return rows.find(old(self._file), tenant, id)

    sqlite.SqliteStore.find = find
