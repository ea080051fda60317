"""The SQLite schema, as sqlite-utils migrations: each runs once, in order, and is never edited afterwards.

Look at a store with ``sqlite-utils rows var/receiver.db states --limit 3 -c id -c updated_at``.
"""

from sqlite_utils import Database, Migrations

migrations = Migrations("receiver")


@migrations(name="0001_states_and_receipts")
def _states_and_receipts(db: Database) -> None:
    db["states"].create(
        {
            "tenant": str,
            "id": str,
            "parent": str,
            "flow": str,
            "flow_version": str,
            "is_done": int,
            "current_map_element": str,
            "current_user": str,
            # Times are kept as they came; the order is by whole seconds since 1970, UTC, and nanoseconds:
            # years 1 to 9999 do not fit into one 64-bit number of nanoseconds.
            "created_at": str,
            "updated_at": str,
            "updated_second": int,
            "updated_nanosecond": int,
            "expires_at": str,
            "expires_second": int,
            "content": str,
            "content_crc32": int,  # SQLite has no checksums: without one, a flipped bit is served as content
        },
        pk=("tenant", "id"),
        not_null={
            "tenant",
            "id",
            "flow",
            "flow_version",
            "is_done",
            "created_at",
            "updated_at",
            "updated_second",
            "updated_nanosecond",
            "content",
            "content_crc32",
        },
    )
    db["states"].create_index(["expires_second"])
    db["receipts"].create(
        {"tenant": str, "jti": str, "method": str, "digest": bytes, "expires": int},
        pk=("tenant", "jti"),
        not_null={"method", "digest", "expires"},
    )
    db["receipts"].create_index(["expires"])
