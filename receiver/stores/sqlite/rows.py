"""The statements of the SQLite store's hot path, and its receipts.

``row_crc32`` covers ids, all metadata and the content's own checksum: SQLite has no checksums of pages, so a flipped
bit in one would be answered as what was saved. Rows from before it was added have none until they are saved again.
"""

import zlib
from typing import Any

from receiver.idempotency import Receipt
from receiver.problems import StoreDamaged
from receiver.states import State, Summary
from receiver.stores.rows import FIELDS, Row, replacement_of, row_of, state_of
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


_COVERED = (*(name for name in FIELDS if name != "content"), "updated_second", "expires_second")
COLUMNS = ", ".join((*FIELDS, "updated_second", "expires_second", "row_crc32"))
_CONTENT = FIELDS.index("content")
# octet_length does not read the content to tell its size; SQLite has it since 3.43.
_SIZE = "octet_length(content)" if sqlite3.sqlite_version_info >= (3, 43) else "length(cast(content as blob))"
SUMMARY = f"tenant, id, updated_at, updated_nanosecond, expires_at, {_SIZE}, sealing_key"
_UPSERT = """
    insert into states (
        id, tenant, parent, flow, flow_version, is_done, current_map_element, current_user,
        created_at, updated_at, updated_second, updated_nanosecond,
        expires_at, expires_second, content, content_crc32, sealing_key, row_crc32
    ) values (
        :id, :tenant, :parent, :flow, :flow_version, :is_done, :current_map_element, :current_user,
        :created_at, :updated_at, :updated_second, :updated_nanosecond,
        :expires_at, :expires_second, :content, :content_crc32, :sealing_key, :row_crc32
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
        sealing_key         = excluded.sealing_key,
        row_crc32           = excluded.row_crc32
    where (excluded.updated_second, excluded.updated_nanosecond)
       >= (states.updated_second, states.updated_nanosecond)
      and states.parent is excluded.parent
      and states.created_at = excluded.created_at
"""
REPLACE_CONTENT = """
    update states set
        content       = :content,
        content_crc32 = :content_crc32,
        sealing_key   = :sealing_key,
        row_crc32     = :row_crc32
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
_ROW = f"""
    select {COLUMNS} from states
     where rowid = (select rowid from states where tenant = :tenant and id = :id)
"""  # noqa: S608 - the ids come from the row, and not from the index that led to it
_ROW_WITHOUT_SEARCH = f"""
    select {COLUMNS} from states
     where rowid = (select rowid from states where +tenant = :tenant and +id = :id)
"""  # noqa: S608 - reads the whole index
_NEIGHBOURS = """
    select there.tenant, there.id, states.tenant, states.id from (
        select * from (
            select rowid as place, tenant, id from states
             where (tenant, id) <= (:tenant, :id) order by tenant desc, id desc limit 2
        )
        union all
        select * from (
            select rowid as place, tenant, id from states
             where (tenant, id) > (:tenant, :id) order by tenant, id limit 2
        )
    ) as there
    left join states on states.rowid = there.place
"""


def find(connection: sqlite3.Connection, tenant: str, id: str) -> State | None:
    """Return the state ``id`` of ``tenant``, or None; raises StoreDamaged when it cannot be read back whole."""
    asked = {"tenant": tenant, "id": id}
    row = connection.execute(_ROW, asked).fetchone()
    if row is None:
        if (damage := damage_at(connection, tenant, id)) is None:
            return None
        row = connection.execute(_ROW_WITHOUT_SEARCH, asked).fetchone()
        if row is None:
            raise damage
    if row[0] != id or row[1] != tenant:
        raise StoreDamaged(f"state {id} of tenant {tenant}: the index of the states leads to another row")
    return state_in(row)


def listed(connection: sqlite3.Connection, one: Summary) -> State:
    """Return the state that ``one``, which the same transaction has read, is about; raises StoreDamaged."""
    state = find(connection, one.tenant, one.id)
    if state is None:
        raise StoreDamaged(f"state {one.id!s:.36} of tenant {one.tenant!s:.36}: the index of the states is damaged")
    return state


def state_in(row: Row) -> State:
    """Return the State in ``row`` (COLUMNS); raises StoreDamaged when it is not what was saved."""
    *fields, second, expires_second, crc32 = row
    if crc32 is not None and crc32 != _crc32((*fields[:_CONTENT], *fields[_CONTENT + 1 :], second, expires_second)):
        raise StoreDamaged(f"state {fields[0]!s:.36} of tenant {fields[1]!s:.36} is not what was saved")
    return state_of(fields)


def damage_at(connection: sqlite3.Connection, tenant: str, id: str) -> StoreDamaged | None:
    """Return the damage to the index of the states because of which a state may not have been found.

    A search ends beside the entry that led it astray, or beside the damaged entry of what was asked for.
    """
    for *there, own_tenant, own_id in connection.execute(_NEIGHBOURS, {"tenant": tenant, "id": id}):
        if there != [own_tenant, own_id]:
            return StoreDamaged(
                f"state {id} of tenant {tenant} was not found where the index of the states is damaged: stop every"
                " process of the receiver, and run `sqlite3 FILE reindex`"
            )
    return None


def save(connection: sqlite3.Connection, row: dict[str, Any]) -> int:
    """Save ``row`` unless a newer one is stored; return how many were stored."""
    stored = connection.execute(_UPSERT, row).rowcount
    return stored or _merge(connection, row)


def _merge(connection: sqlite3.Connection, row: dict[str, Any]) -> int:
    """Do the same for a row whose predecessor is newer, or began with another ``parent`` or ``created_at``.

    Raises StoreDamaged when the stored row cannot tell: a save must not be dropped as older then.
    """
    names = (*_COVERED, "row_crc32")
    sql = f"""
        select {", ".join(names)} from states
         where rowid = (select rowid from states where tenant = :tenant and id = :id)
    """  # noqa: S608
    found = connection.execute(sql, row).fetchone()
    if found is None or found[:2] != (row["id"], row["tenant"]) or found[-1] not in (None, _crc32(found[:-1])):
        raise StoreDamaged(f"state {row['id']} of tenant {row['tenant']} is damaged, its age is unknown: delete it")
    was = dict(zip(names, found, strict=True))
    if (row["updated_second"], row["updated_nanosecond"]) < (was["updated_second"], was["updated_nanosecond"]):
        return 0
    merged = row | {"parent": was["parent"], "created_at": was["created_at"]}
    return connection.execute(_UPSERT, with_crc32(merged)).rowcount


def with_crc32(row: dict[str, Any]) -> dict[str, Any]:
    """Return ``row`` with the checksum of what it holds."""
    row["row_crc32"] = _crc32(tuple([row[name] for name in _COVERED]))
    return row


def saved(tenant: str, state: State) -> dict[str, Any]:
    """Return the values of ``state`` of ``tenant``, by the names of the columns."""
    row = row_of(tenant, state)
    row["is_done"] = int(state.is_done)  # as SQLite answers it
    return with_crc32(row)


def replaced(tenant: str, old: State, new: State) -> dict[str, Any]:
    """Return the values that replace ``old``'s content by ``new``'s (REPLACE_CONTENT)."""
    return replacement_of(tenant, old, new) | {"row_crc32": saved(tenant, new)["row_crc32"]}


def _crc32(values: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(values).encode("utf-8"))
