"""The statements that adopt the Java service's table, and those that give it back, for each engine.

Times of the Java service are UTC and rounded, to six digits or to whole seconds. They become text as the platform would
send it, and each row records how much earlier its updatedAt may have been (java_table.py). A content of type jsonb or
JSON becomes the text that this type writes, which the Java service answered too.
"""

from receiver.stores.sql import adoption_mysql
from receiver.stores.sql.java_table import IDS, IN_THE_CLEAR, NULLABLE, TIMES, JavaTable
from receiver.stores.sql.schema import STORE, VERSION_TABLE
from receiver.stores.urls.store_url import StoreURL

# The table that is counted before the step that makes the states the receiver's.
FILLED = {"postgresql": "states", "mysql": "states_adopted", "sqlserver": "states"}
SWITCH = {
    "postgresql": "alter table states drop constraint",
    "mysql": "rename table",
    "sqlserver": "alter table states drop constraint",
}
_ADDED = {
    "updated_second": "bigint",
    "updated_nanosecond": "integer",
    "expires_second": "bigint",
    "content_crc32": "bigint",
    "revision": "integer not null default 0",
}
# PostgreSQL rounds .NET's greatest time up, and keeps times that an offset moved out of the years 1 to 9999.
_FIRST, _AFTER_ALL = "0001-01-01 00:00:00", "10000-01-01 00:00:00"
_UNSET, _LAST = "0001-01-01T00:00:00.0000000Z", "9999-12-31T23:59:59.9999999Z"


def of(store_url: StoreURL, table: JavaTable) -> tuple[list[str], list[str]]:
    """Return the statements that upgrade the Java service's ``table`` at ``store_url``, and those that downgrade it."""
    upgrade, downgrade = {"postgresql": _postgresql, "mysql": adoption_mysql.statements, "sqlserver": _sqlserver}[
        store_url.kind
    ](table)
    if schema := store_url.parameters.get("search_path"):
        downgrade.insert(1, enter_schema(schema))
    return upgrade, downgrade


def enter_schema(schema: str) -> str:
    """Return the statement that makes table names mean those of ``schema`` until the transaction ends."""
    return f'set local search_path to "{schema}"'


def _postgresql(table: JavaTable) -> tuple[list[str], list[str]]:
    changes = _postgresql_changes(table)
    key = table.key.replace('"', '""')
    nullable = [f", alter column {name} drop not null" for name in NULLABLE if name in table.not_null]
    required = ("updated_second", "updated_nanosecond", "content")
    upgrade = [
        "lock table states in access exclusive mode",
        "alter table states " + ", ".join(f"add column {name} {kind}" for name, kind in _ADDED.items()),
        "alter table states "
        + ", ".join(f"alter column {name} drop default" for name in (*TIMES, "content"))
        + "".join(nullable),
        "alter table states "
        + ", ".join(f"alter column {name} type {kind} using {value}" for name, (kind, value) in changes.items()),
        "alter table states " + ", ".join(f"alter column {name} set not null" for name in required),
        f'alter table states drop constraint "{key}", add constraint "{key}" primary key (tenant_id, id)',
    ]
    return upgrade, _postgresql_downgrade(table, key, list(changes))


def _postgresql_changes(table: JavaTable) -> dict[str, tuple[str, str]]:
    """Return the new type and value of each column."""
    changes = {name: ("uuid", f"{name}::uuid") for name in IDS if table.types[name] != "UUID"}
    changes |= {name: ("varchar(40)", _postgresql_text(table.utc(name))) for name in TIMES}
    seconds = {
        name: f"floor(extract(epoch from {_clamped(table.utc(name))}))::bigint" for name in ("updated_at", "expires_at")
    }
    nanos = f"(extract(microseconds from {_clamped(table.utc('updated_at'))})::bigint % 1000000 * 1000)"
    second, nanosecond = table.earliest(seconds["updated_at"], nanos)
    return changes | {
        "content": ("text", "content::text"),
        "updated_second": ("bigint", second),
        "updated_nanosecond": ("integer", f"({nanosecond})::integer"),
        "expires_second": ("bigint", seconds["expires_at"]),
    }


def _postgresql_text(time: str) -> str:
    return (
        f"case when {time} >= '{_AFTER_ALL}' then '{_LAST}' when {time} < '{_FIRST}' then '{_UNSET}'"
        f""" else to_char({time}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end"""
    )


def _clamped(time: str) -> str:
    # least() and greatest() ignore nulls
    return f"case when {time} is not null then least(greatest({time}, '{_FIRST}'), '{_AFTER_ALL}') end"


def _postgresql_downgrade(table: JavaTable, key: str, changed: list[str]) -> list[str]:
    types = {name: table.types[name] for name in changed if name in table.types}
    values = {name: f"{name}::{kind}" for name, kind in types.items()}
    # A cast to a time without a zone would ignore the text's offset.
    local = [name for name in TIMES if "WITH TIME ZONE" not in types[name]]
    values |= {name: f"({name}::timestamptz at time zone 'UTC')" for name in local}
    return [
        "begin",
        IN_THE_CLEAR,
        f'alter table states drop constraint "{key}", add constraint "{key}" primary key (id)',
        "alter table states " + ", ".join(f"drop column {name}" for name in (*_ADDED, "sealing_key")),
        "alter table states "
        + ", ".join(f"alter column {name} type {types[name]} using {value}" for name, value in values.items()),
        f"drop table receipts, key_uses, {STORE}, {VERSION_TABLE}",
        "commit",
    ]


def _sqlserver(table: JavaTable) -> tuple[list[str], list[str]]:
    """Written, not run here: there is no such server on the machines of this project."""
    kinds, key = table.types, table.key
    id_ = "char(36) collate Latin1_General_100_BIN2"
    required = {"id", "tenant_id", "flow_id", "flow_version_id"}
    stamp = "left(convert(varchar(33), {0} at time zone ''UTC'', 126), 27)"
    added = _ADDED | {"revision": "integer not null constraint states_revision default 0"}
    upgrade = ["alter table states add " + ", ".join(f"{name} {kind}" for name, kind in added.items())]
    upgrade.append(
        "exec('update states set updated_second = datediff_big(second, ''1970-01-01'', updated_at),"
        " updated_nanosecond = datepart(nanosecond, updated_at),"
        " expires_second = datediff_big(second, ''1970-01-01'', expires_at)')"
    )
    upgrade.append(f"alter table states drop constraint {key}")
    upgrade += [
        f"alter table states alter column {name} {id_}{' not null' if name in required else ''}" for name in IDS
    ]
    for name in TIMES:
        upgrade.append(f"alter table states add {name}_text varchar(40)")
        text = f"replace({stamp.format(name)}, '' '', ''T'') + ''Z''"
        upgrade.append(f"exec('update states set {name}_text = {text}')")  # noqa: S608
        upgrade.append(f"alter table states drop column {name}")
        upgrade.append(f"exec sp_rename 'states.{name}_text', '{name}', 'COLUMN'")
    upgrade.append(f"alter table states add constraint {key} primary key (tenant_id, id)")
    downgrade = [IN_THE_CLEAR, f"alter table states drop constraint {key}, states_revision, states_in_the_clear"]
    downgrade += [
        "drop index states_expires_second on states",
        f"alter table states drop column {', '.join(added)}, sealing_key",
    ]
    downgrade += [f"alter table states alter column {name} {kinds[name]}" for name in TIMES]
    downgrade += [f"alter table states alter column {name} {kinds[name]}" for name in IDS]
    downgrade.append(f"alter table states add constraint {key} primary key (id)")
    downgrade.append(f"drop table receipts, key_uses, {STORE}, {VERSION_TABLE}")
    return upgrade, downgrade
