"""States, receipts and tenants that tests save, and what a SQLite file holds of them."""

import uuid

from sqlite_utils.utils import sqlite3

from receiver.idempotency import Receipt
from receiver.states import Content, Instant, State


def rows_of(path) -> dict[str, list]:
    """Return everything in the SQLite file at ``path``, read by another connection.

    It must be of the same SQLite library: two in one process undo each other's locks.
    """
    connection = sqlite3.connect(path)
    try:
        return {
            table: connection.execute(f"select * from {table} order by 1, 2").fetchall()
            for table in ("states", "receipts")
        }
    finally:
        connection.close()


NOW = 1_800_000_000


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


TENANT, OTHER = uid(1), uid(2)


def a_state(number: int = 10, updated: str = "2026-01-01T00:00:00Z", **changes) -> State:
    fields = {
        "id": uid(number),
        "tenant": TENANT,
        "parent": None,
        "flow": uid(100),
        "flow_version": uid(101),
        "is_done": False,
        "current_map_element": None,
        "current_user": None,
        "created_at": Instant.parse("2026-01-01T00:00:00.1234567+01:00"),
        "updated_at": Instant.parse(updated),
        "expires_at": None,
        "content": updated,
    }
    fields |= changes
    return State(**fields | {"content": Content(fields["content"])})


def a_receipt(jti: str = "one", **changes) -> Receipt:
    fields = {"jti": jti, "method": "POST", "digest": b"d" * 32, "now": NOW, "expires": NOW + 360}
    return Receipt(**fields | changes)
