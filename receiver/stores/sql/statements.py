"""The upserts of each dialect; all other statements are the same for every server.

Citus, CockroachDB and YugabyteDB accept the statements for PostgreSQL: values come from us, the key is (tenant_id, id),
and each column is set to a value of the new row or a sum.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Executable, Table, and_, bindparam, case, or_, text
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.elements import KeyedColumnElement

from receiver.stores.rows import REPLACED
from receiver.stores.sql.schema import key_uses, receipts, states

Columns = ReadOnlyColumnCollection[str, KeyedColumnElement[Any]]


@dataclass(frozen=True)
class Upsert:
    """When a new row replaces the one with its key, and in which columns.

    ``condition`` takes the new row and returns the condition; ``condition_text`` is the same for SQL Server, which
    calls the rows s (new) and t (kept). ``counted`` names a column that each replacement increments.
    """

    table: Table
    replaced: tuple[str, ...]
    condition: Callable[[Columns], ColumnElement[bool]]
    condition_text: str
    counted: str | None = None

    def values(self, new: Columns) -> dict[str, ColumnElement[Any]]:
        """Return the new value of each column, in the order of assignment."""
        counted = {self.counted: self.table.c[self.counted] + 1} if self.counted else {}
        return counted | {name: getattr(new, name) for name in self.replaced}


def _newer(new: Columns) -> ColumnElement[bool]:
    second, nanosecond = states.c.updated_second, states.c.updated_nanosecond
    return or_(
        new.updated_second > second,
        and_(new.updated_second == second, new.updated_nanosecond >= nanosecond),
    )


# "Newer wins" (protocol, section 5.7): equal or later than what is stored.
_STATE = Upsert(
    states,
    REPLACED,
    _newer,
    "(s.updated_second > t.updated_second"
    " or s.updated_second = t.updated_second and s.updated_nanosecond >= t.updated_nanosecond)",
    counted="revision",
)
# An expired receipt is replaced; its ``jti`` is then as good as new.
_RECEIPT = Upsert(
    receipts,
    ("method", "digest", "expires"),
    lambda _new: receipts.c.expires < bindparam("now"),
    "t.expires < :now",
)

_KEY_USE = Upsert(
    key_uses,
    ("last_used",),
    lambda new: new.last_used > key_uses.c.last_used,
    "s.last_used > t.last_used",
)


def _on_conflict(upsert: Upsert) -> Executable:
    insert = postgresql.insert(upsert.table)
    return insert.on_conflict_do_update(
        index_elements=list(upsert.table.primary_key.columns),
        set_=upsert.values(insert.excluded),
        where=upsert.condition(insert.excluded),
    )


def _on_duplicate_key(upsert: Upsert) -> Executable:
    # There is no WHERE: each column has its own condition, in this order, and sees the new values of those before.
    # So the columns that the condition compares come last, the nanosecond before the second.
    insert = mysql.insert(upsert.table)
    newer = upsert.condition(insert.inserted)
    return insert.on_duplicate_key_update(
        [
            (name, case((newer, value), else_=upsert.table.c[name]))
            for name, value in upsert.values(insert.inserted).items()
        ]
    )


def _merge(upsert: Upsert) -> Executable:
    """Return SQL Server's statement. Without HOLDLOCK, two inserts of the same key at once would collide."""
    columns = [column for column in upsert.table.columns if column.key != upsert.counted]
    names = ", ".join(column.name for column in columns)
    new = ", ".join(f"s.{column.name}" for column in columns)
    keys = " and ".join(f"t.{column.name} = s.{column.name}" for column in upsert.table.primary_key)
    replaced = [upsert.table.c[name].name for name in upsert.replaced]
    changes = [f"{name} = s.{name}" for name in replaced]
    if upsert.counted:
        changes.append(f"{upsert.counted} = t.{upsert.counted} + 1")
    return text(f"""
        merge into {upsert.table.name} with (holdlock) as t
        using (values ({", ".join(f":{column.key}" for column in columns)})) as s ({names})
           on {keys}
         when matched and {upsert.condition_text} then update set {", ".join(changes)}
         when not matched then insert ({names}) values ({new});
    """)  # noqa: S608 - names of our own


_BUILDERS = {"postgresql": _on_conflict, "mysql": _on_duplicate_key, "sqlserver": _merge}


def upserts(kind: str) -> tuple[Executable, Executable, Executable]:
    """Return the upserts of a state (``rows.row_of``), of a receipt and of a key's use for a ``StoreURL.kind``.

    The row count is 1 for a new row, 1 or 2 (MySQL) for a replaced one and 0 when the kept one stays.
    """
    build = _BUILDERS[kind]
    return build(_STATE), build(_RECEIPT), build(_KEY_USE)
