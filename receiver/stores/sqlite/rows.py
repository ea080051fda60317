"""The statements of the SQLite store's hot path, and its receipts."""

from receiver.idempotency import Receipt
from receiver.stores.rows import FIELDS
from receiver.stores.sqlite.driver import sqlite3

_STALE_RECEIPTS = 1024  # deleted at once; more than are added between two deletions


def forget(connection: sqlite3.Connection, now: int) -> None:
    """Delete some receipts that expired before ``now`` (seconds since the epoch); few enough to be quick."""
    connection.execute(
        "delete from receipts where rowid in (select rowid from receipts where expires < :now limit :most)",
        {"now": now, "most": _STALE_RECEIPTS},
    )


def bind(connection: sqlite3.Connection, tenant: str, receipt: Receipt) -> str:
    """Record ``receipt`` if its jti is new; return "new", "repeated" or "conflicting"."""
    values: dict[str, object] = {"tenant": tenant, "jti": receipt.jti, "method": receipt.method}
    values |= {"digest": receipt.digest, "expires": receipt.expires, "now": receipt.now}
    added = connection.execute(
        """
        insert into receipts (tenant, jti, method, digest, expires)
        values (:tenant, :jti, :method, :digest, :expires)
        on conflict (tenant, jti) do update set
            method  = excluded.method,
            digest  = excluded.digest,
            expires = excluded.expires
        where receipts.expires < :now
        """,
        values,
    ).rowcount
    return "new" if added else jti_was(connection, tenant, receipt)


def jti_was(connection: sqlite3.Connection, tenant: str, receipt: Receipt) -> str:
    """Return how the jti of ``receipt`` was used (Receipt.compare); raises ReplayRefused."""
    return receipt.compare(
        connection.execute(
            "select method, digest from receipts where tenant = :tenant and jti = :jti and expires >= :now",
            {"tenant": tenant, "jti": receipt.jti, "now": receipt.now},
        ).fetchone()
    )


COLUMNS = ", ".join(FIELDS)
# octet_length does not read the content to tell its size; SQLite has it since 3.43.
_SIZE = "octet_length(content)" if sqlite3.sqlite_version_info >= (3, 43) else "length(cast(content as blob))"
SUMMARY = f"tenant, id, updated_at, updated_nanosecond, expires_at, {_SIZE}, sealing_key"
UPSERT = """
    insert into states (
        id, tenant, parent, flow, flow_version, is_done, current_map_element, current_user,
        created_at, updated_at, updated_second, updated_nanosecond,
        expires_at, expires_second, content, content_crc32, sealing_key
    ) values (
        :id, :tenant, :parent, :flow, :flow_version, :is_done, :current_map_element, :current_user,
        :created_at, :updated_at, :updated_second, :updated_nanosecond,
        :expires_at, :expires_second, :content, :content_crc32, :sealing_key
    )
    on conflict (tenant, id) do update set
        flow                = excluded.flow,
        flow_version        = excluded.flow_version,
        is_done             = excluded.is_done,
        current_map_element = excluded.current_map_element,
        current_user        = excluded.current_user,
        updated_at          = excluded.updated_at,
        updated_second      = excluded.updated_second,
        updated_nanosecond  = excluded.updated_nanosecond,
        expires_at          = excluded.expires_at,
        expires_second      = excluded.expires_second,
        content             = excluded.content,
        content_crc32       = excluded.content_crc32,
        sealing_key         = excluded.sealing_key
    where (excluded.updated_second, excluded.updated_nanosecond)
       >= (states.updated_second, states.updated_nanosecond)
"""
REPLACE_CONTENT = """
    update states set
        content       = :content,
        content_crc32 = :content_crc32,
        sealing_key   = :sealing_key
     where tenant             = :tenant
       and id                 = :id
       and updated_second     = :updated_second
       and updated_nanosecond = :updated_nanosecond
       and content_crc32      = :crc32_before
"""
NOTE_KEY_USE = """
    insert into key_uses (role, kid, last_used) values (:role, :kid, :last_used)
    on conflict (role, kid) do update set last_used = max(last_used, excluded.last_used)
"""
