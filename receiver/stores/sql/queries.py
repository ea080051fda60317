"""The statements that are the same for all database servers, and what their answers mean."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, or_, select, update

from receiver.idempotency import Receipt
from receiver.problems import TooLarge
from receiver.states import Summary
from receiver.stores.contract import OnDamage
from receiver.stores.rows import FIELDS, readable, summary_of
from receiver.stores.sql.schema import receipts, states

PAGE = 500
Ask = Callable[[Select[Any]], Sequence[Any]]
_STATEMENT_OVERHEAD = 8192  # bytes around a content
_RECEIPTS_FORGOTTEN = 1024  # at once; four times as many as are added between two deletions
ROW = [states.c[name] for name in FIELDS]
SUMMARY = [states.c[name] for name in ("tenant", "id", "updated_at", "updated_nanosecond", "expires_at")]
# Built once: building a statement takes longer than running it.
FIND = select(*ROW).where(states.c.tenant == bindparam("tenant"), states.c.id == bindparam("id"))
_RECEIPT = select(receipts.c.method, receipts.c.digest).where(
    receipts.c.tenant == bindparam("tenant"),
    receipts.c.jti == bindparam("jti"),
    receipts.c.expires >= bindparam("now"),
)
# A row adopted from the Java service has no checksum to compare; its content is in the clear.
_REPLACE_CONTENT = (
    update(states)
    .where(
        states.c.tenant == bindparam("of_tenant"),
        states.c.id == bindparam("of_id"),
        states.c.updated_second == bindparam("of_second"),
        states.c.updated_nanosecond == bindparam("of_nanosecond"),
        or_(states.c.content_crc32 == bindparam("of_crc32"), states.c.content_crc32.is_(None)),
    )
    .values(
        content=bindparam("content"), content_crc32=bindparam("content_crc32"), sealing_key=bindparam("sealing_key")
    )
)


def replace_content(connection: Connection, row: Mapping[str, object]) -> int:
    """Replace the content of a state (``rows.replacement_of``); return 1, or 0 when it has changed since."""
    names = {
        "of_tenant": "tenant",
        "of_id": "id",
        "of_second": "updated_second",
        "of_nanosecond": "updated_nanosecond",
        "of_crc32": "crc32_before",
    }
    values = {name: row[key] for name, key in names.items()}
    values |= {name: row[name] for name in ("content", "content_crc32", "sealing_key")}
    return connection.execute(_REPLACE_CONTENT, values).rowcount


def check_size(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise TooLarge for a content that MariaDB or MySQL would refuse by closing the connection without a message."""
    largest = connection.info.get("largest_statement")
    for row in rows if largest else ():
        content = row["content"].encode("utf-8")
        escaped = sum(content.count(byte) for byte in (b'"', b"'", b"\\", b"\n", b"\r", b"\x1a"))  # as PyMySQL escapes
        if len(content) + escaped + _STATEMENT_OVERHEAD > largest:
            raise TooLarge(
                f"state {row['id']}: {len(content)} bytes of content are more than max_allowed_packet of the database"
                f" server lets through ({largest})",
                "A state is larger than the database of this store accepts.",
            )


def was(connection: Connection, tenant: str, receipt: Receipt) -> str:
    """Return how the jti of ``receipt`` was used (Receipt.compare); raises ReplayRefused."""
    key = {"tenant": tenant, "jti": receipt.jti.encode(), "now": receipt.now}
    return receipt.compare(connection.execute(_RECEIPT, key).one_or_none())


def delete_states(
    connection: Connection, tenant: str, ids: Sequence[str], condition: ColumnElement[bool] | None = None
) -> int:
    """Delete the states ``ids`` of ``tenant`` that meet ``condition``; return how many were deleted."""
    statement = delete(states).where(states.c.tenant == tenant, states.c.id.in_(ids))
    return connection.execute(statement if condition is None else statement.where(condition)).rowcount


def forget_receipts(connection: Connection, now: int) -> None:
    """Delete some receipts that expired before ``now`` (seconds since the epoch); few enough to be quick."""
    key, expired = (receipts.c.tenant, receipts.c.jti), receipts.c.expires < now
    for tenant, jti in connection.execute(select(*key).where(expired).order_by(*key).limit(_RECEIPTS_FORGOTTEN)).all():
        connection.execute(delete(receipts).where(key[0] == tenant, key[1] == jti, expired))


def walk(ask: Ask, columns: Sequence[Any], only: str | None, on_damage: OnDamage) -> Iterator[Summary]:
    """Yield what ``ask`` returns of ``columns`` for queries of a page each, as summaries: by tenant, by index."""
    tenants = select(states.c.tenant).order_by(states.c.tenant).limit(1)
    tenant = only or next(iter(ask(tenants)), [None])[0]
    while tenant:
        page = select(*columns).where(states.c.tenant == tenant).order_by(states.c.id).limit(PAGE)
        rows = ask(page)
        yield from readable(map(tuple, rows), summary_of, on_damage)
        while len(rows) == PAGE:
            rows = ask(page.where(states.c.id > rows[-1].id))
            yield from readable(map(tuple, rows), summary_of, on_damage)
        tenant = None if only else next(iter(ask(tenants.where(states.c.tenant > tenant))), [None])[0]
