"""The SQLite schema, as sqlite-utils migrations: each runs once, in order, and is never edited afterwards.

Look at a store with ``sqlite-utils rows var/receiver.db states --limit 3 -c id -c updated_at``.
"""

import secrets
import uuid

from sqlite_utils import Database, Migrations

from receiver.stores.marker import Mark
from receiver.stores.sqlite.driver import sqlite3

migrations = Migrations("receiver")
STEPS = ("0001_states_and_receipts", "0002_sealing_keys", "0003_store", "0004_row_checksums")


# Why times are two integers and a text: rows.py.
_IDS = {"tenant": str, "id": str, "parent": str, "flow": str, "flow_version": str}
_STATUS = {"is_done": int, "current_map_element": str, "current_user": str}
_TIMES = {"created_at": str, "updated_at": str, "updated_second": int, "updated_nanosecond": int}
_EXPIRY = {"expires_at": str, "expires_second": int}
_CONTENT = {"content": str, "content_crc32": int}
_NULLABLE = {"parent", "current_map_element", "current_user", "expires_at", "expires_second"}


@migrations(name=STEPS[0])
def _states_and_receipts(db: Database) -> None:
    columns = _IDS | _STATUS | _TIMES | _EXPIRY | _CONTENT
    db.table("states").create(columns, pk=("tenant", "id"), not_null=set(columns) - _NULLABLE)
    db.table("states").create_index(["expires_second"])
    receipts = {"tenant": str, "jti": str, "method": str, "digest": bytes, "expires": int}
    db.table("receipts").create(receipts, pk=("tenant", "jti"), not_null=set(receipts))
    db.table("receipts").create_index(["expires"])


@migrations(name=STEPS[1])
def _sealing_keys(db: Database) -> None:
    db.table("states").add_column("sealing_key", str)
    db.table("key_uses").create({"role": str, "kid": str, "last_used": int}, pk=("role", "kid"), not_null={"last_used"})


@migrations(name=STEPS[2])
def _store(db: Database) -> None:
    columns = {"id": str, "generation": int, "token": str}
    db.table("store").create(columns, not_null=set(columns))
    # What identifies this store: marker.py. Always one row.
    db.execute("insert into store values (?, 0, ?)", [str(uuid.uuid4()), secrets.token_hex(8)])


@migrations(name=STEPS[3])
def _row_checksums(db: Database) -> None:
    db.table("states").add_column("row_crc32", int)


def mark_in(connection: sqlite3.Connection) -> Mark:
    """Return the mark of the store that ``connection`` has open; raises sqlite3.Error for one that has none."""
    id, generation, token = connection.execute("select id, generation, token from store").fetchone()
    return Mark(id, generation, token)


def id_in(connection: sqlite3.Connection) -> str:
    """Return the id of the store that ``connection`` has open; "" when it has none yet."""
    if not Database(connection, execute_plugins=False).table("store").exists():
        return ""
    return mark_in(connection).store
