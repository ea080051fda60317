"""Rows of the SQLite store: states and receipts ↔ columns, and the statements of the hot path."""

import zlib

from sqlite_utils.utils import sqlite3

from receiver.problems import ReplayRefused, StoreDamaged
from receiver.states import NANOSECONDS, Instant, State, Summary
from receiver.stores import Receipt

_STALE_RECEIPTS_PER_CHANGE = 16  # more than one change adds, so the table shrinks back after a burst


def bind(connection: sqlite3.Connection, tenant: str, receipt: Receipt) -> str:
    """Record ``receipt`` if its jti is new; return "new", "repeated" or "conflicting". Drops stale ones."""
    connection.execute(
        "delete from receipts where rowid in (select rowid from receipts where expires < :now limit :most)",
        {"now": receipt.now, "most": _STALE_RECEIPTS_PER_CHANGE},
    )
    values = {"tenant": tenant, "jti": receipt.jti, "method": receipt.method}
    values |= {"digest": receipt.digest, "expires": receipt.expires}
    added = connection.execute(
        "insert into receipts (tenant, jti, method, digest, expires)"
        " values (:tenant, :jti, :method, :digest, :expires) on conflict do nothing",
        values,
    ).rowcount
    return "new" if added else jti_was(connection, tenant, receipt)


def jti_was(connection: sqlite3.Connection, tenant: str, receipt: Receipt) -> str:
    """Return how the jti of ``receipt`` was used: "new", "repeated" or "conflicting".

    Raises ReplayRefused for a conflict under ``enforce``; without it, a repetition counts as new.
    """
    first = connection.execute(
        "select method, digest from receipts where tenant = :tenant and jti = :jti",
        {"tenant": tenant, "jti": receipt.jti},
    ).fetchone()
    same = first is None or tuple(first) == (receipt.method, receipt.digest)
    if receipt.enforce and not same:
        raise ReplayRefused("jti: used before for another change")
    if receipt.enforce and first is not None:
        return "repeated"
    return "new" if same else "conflicting"


COLUMNS = (
    "id, tenant, parent, flow, flow_version, is_done, current_map_element, current_user,"
    " created_at, updated_at, expires_at, content, content_crc32"
)
# octet_length does not read the content to tell its size; SQLite has it since 3.43.
_SIZE = "octet_length(content)" if sqlite3.sqlite_version_info >= (3, 43) else "length(cast(content as blob))"
SUMMARY = f"tenant, id, updated_at, expires_at, {_SIZE}"
UPSERT = """
    insert into states (
        id, tenant, parent, flow, flow_version, is_done, current_map_element, current_user,
        created_at, updated_at, updated_second, updated_nanosecond,
        expires_at, expires_second, content, content_crc32
    ) values (
        :id, :tenant, :parent, :flow, :flow_version, :is_done, :current_map_element, :current_user,
        :created_at, :updated_at, :updated_second, :updated_nanosecond,
        :expires_at, :expires_second, :content, :content_crc32
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
        content_crc32       = excluded.content_crc32
    where (excluded.updated_second, excluded.updated_nanosecond)
       >= (states.updated_second, states.updated_nanosecond)
"""


def row_of(tenant: str, state: State) -> dict[str, object]:
    """Return the named parameters of ``state``. An integer of SQLite has 64 bits, nanoseconds need two."""
    second, nanosecond = divmod(state.updated_at.nanoseconds, NANOSECONDS)
    expires = state.expires_at
    return {
        "id": state.id,
        "tenant": tenant,
        "parent": state.parent,
        "flow": state.flow,
        "flow_version": state.flow_version,
        "is_done": int(state.is_done),
        "current_map_element": state.current_map_element,
        "current_user": state.current_user,
        "created_at": state.created_at.text,
        "updated_at": state.updated_at.text,
        "updated_second": second,
        "updated_nanosecond": nanosecond,
        "expires_at": expires.text if expires else None,
        "expires_second": expires.nanoseconds // NANOSECONDS if expires else None,
        "content": state.content,
        "content_crc32": zlib.crc32(state.content.encode("utf-8")),
    }


def state_of(row: tuple) -> State:
    """Return the State in ``row`` (COLUMNS); raises StoreDamaged when it is not one."""
    *ids, is_done, element, user, created, updated, expires, content, crc32 = row
    try:
        if zlib.crc32(content.encode("utf-8")) != crc32:
            raise ValueError("the content is not what was saved")
        return State(
            *ids,
            bool(is_done),
            element,
            user,
            Instant.parse(created),
            Instant.parse(updated),
            Instant.parse(expires) if expires else None,
            content,
        )
    except (AttributeError, TypeError, ValueError) as cause:
        raise StoreDamaged(f"SQLite: state {ids[0]!s:.36} cannot be read back") from cause


def summary_of(row: tuple) -> Summary:
    """Return the Summary in ``row`` (SUMMARY); raises StoreDamaged when it is not one."""
    tenant, id, updated, expires, size = row
    try:
        return Summary(tenant, id, Instant.parse(updated), Instant.parse(expires) if expires else None, size)
    except (AttributeError, TypeError, ValueError) as cause:
        raise StoreDamaged(f"SQLite: state {id!s:.36} cannot be read back") from cause
