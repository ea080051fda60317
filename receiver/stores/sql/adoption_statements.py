"""The statements of an adoption and of its way back, for each engine.

Times of the Java service have six fraction digits and are UTC; they become the text that the platform would send.
A content that it kept as jsonb or JSON comes out as that type writes it, which is what it answered too.
"""

from collections.abc import Mapping

from receiver.stores.sql.schema import VERSION_TABLE
from receiver.stores.urls import Place

# The table that holds the states when the step is to come from which on they are the receiver's: it is counted then.
FILLED = {"postgresql": "states", "mysql": "states_adopted", "sqlserver": "states"}
SWITCH = {
    "postgresql": "alter table states drop constraint",
    "mysql": "rename table",
    "sqlserver": "alter table states drop constraint",
}
IDS = ("id", "tenant_id", "parent_id", "flow_id", "flow_version_id", "current_map_element_id", "current_user_id")
TIMES = ("created_at", "updated_at", "expires_at")
_ADDED = {
    "updated_second": "bigint",
    "updated_nanosecond": "integer",
    "expires_second": "bigint",
    "content_crc32": "bigint",
    "revision": "integer not null default 0",
}
# Fails while a state is sealed, which the Java service could not open: `receiver store reseal --open` comes first.
_IN_THE_CLEAR = "alter table states add constraint states_in_the_clear check (sealing_key is null)"


def of(place: Place, kinds: Mapping[str, str], key: str) -> tuple[list[str], list[str]]:
    """Return the statements forth and back; ``kinds`` are the types of the columns, ``key`` names the primary key."""
    forth, back = {"postgresql": _postgresql, "mysql": _mysql, "sqlserver": _sqlserver}[place.kind](kinds, key)
    if schema := place.parameters.get("search_path"):
        back.insert(1, enter_schema(schema))
    return forth, back


def enter_schema(schema: str) -> str:
    """Return what lets the names of tables mean those of ``schema`` until the transaction ends."""
    return f'set local search_path to "{schema}"'


def doubts(place: Place, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return what a row may be that could not be served: what to tell of it, by its condition."""
    found = {
        f"{name} < '0001-01-01' or {name} > '9999-12-31 23:59:59'": f"have {name} outside the years 1 to 9999"
        for name in TIMES
    }
    if place.kind == "mysql":
        pattern = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
        texts = [name for name in IDS if "CHAR" in kinds[name].upper()]
        found |= {f"{name} not regexp '{pattern}'": f"have {name} that is no UUID" for name in texts}
    return found


def _postgresql(kinds: Mapping[str, str], key: str) -> tuple[list[str], list[str]]:
    def utc(name: str) -> str:
        return f"({name} at time zone 'UTC')" if "WITH TIME ZONE" in kinds[name] else name

    def second(name: str) -> str:
        return f"floor(extract(epoch from {utc(name)}))::bigint"

    changes = {name: ("uuid", f"{name}::uuid") for name in IDS if kinds[name] != "UUID"}
    changes |= {name: ("varchar(40)", f"""to_char({utc(name)}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""") for name in TIMES}
    micros = f"extract(microseconds from {utc('updated_at')})::bigint % 1000000"
    changes |= {
        "content": ("text", "content::text"),
        "updated_second": ("bigint", second("updated_at")),
        "updated_nanosecond": ("integer", f"({micros} * 1000)::integer"),
        "expires_second": ("bigint", second("expires_at")),
    }
    key = key.replace('"', '""')
    required = ("updated_second", "updated_nanosecond", "content")
    forth = [
        "lock table states in access exclusive mode",
        "alter table states " + ", ".join(f"add column {name} {kind}" for name, kind in _ADDED.items()),
        "alter table states " + ", ".join(f"alter column {name} drop default" for name in (*TIMES, "content")),
        "alter table states "
        + ", ".join(f"alter column {name} type {kind} using {value}" for name, (kind, value) in changes.items()),
        "alter table states " + ", ".join(f"alter column {name} set not null" for name in required),
        f'alter table states drop constraint "{key}", add constraint "{key}" primary key (tenant_id, id)',
    ]
    was = {name: kinds[name] for name in changes if name in kinds}
    back = [
        "begin",
        _IN_THE_CLEAR,
        f'alter table states drop constraint "{key}", add constraint "{key}" primary key (id)',
        "alter table states " + ", ".join(f"drop column {name}" for name in (*_ADDED, "sealing_key")),
        "alter table states "
        + ", ".join(f"alter column {name} type {kind} using {name}::{kind}" for name, kind in was.items()),
        f"drop table receipts, key_uses, {VERSION_TABLE}",
        "commit",
    ]
    return forth, back


def _mysql(kinds: Mapping[str, str], _key: str) -> tuple[list[str], list[str]]:
    values = {name: _mysql_id(name, kinds) for name in IDS}
    values |= {name: f"date_format({name}, '%Y-%m-%dT%H:%i:%s.%fZ')" for name in TIMES}
    values |= {"is_done": "is_done + 0", "content": "convert(content using utf8mb4)"}
    values |= {"updated_second": _second("updated_at"), "updated_nanosecond": "1000 * microsecond(updated_at)"}
    values |= {"expires_second": _second("expires_at")}
    forth = [
        "set time_zone = '+00:00'",
        "drop table if exists states_adopted",
        _MYSQL_TABLE,
        _insert("insert", "states_adopted", "states", values),
        "rename table states to states_java, states_adopted to states",
        *_mysql_late(kinds, values),
    ]
    return forth, _mysql_back(kinds)


def _mysql_late(kinds: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    """What the Java service changed or deleted while its states were copied, if somebody let it run."""
    theirs = f"select 1 from states_java as j where j.id = {_mysql_id_back('states.id', kinds)}"  # noqa: S608
    ours = (
        f"select 1 from states as s where s.tenant_id = {_mysql_id('states_java.tenant_id', kinds)}"  # noqa: S608
        f" and s.id = {_mysql_id('states_java.id', kinds)} and s.updated_second = {_second('states_java.updated_at')}"
        " and s.updated_nanosecond = 1000 * microsecond(states_java.updated_at)"
        " and s.content = convert(states_java.content using utf8mb4)"
    )
    return [
        f"delete from states where not exists ({theirs})",  # noqa: S608
        _insert("replace", "states", "states_java", values) + f" where not exists ({ours})",
    ]


def _is_binary(name: str, kinds: Mapping[str, str]) -> bool:
    return kinds[name.rpartition(".")[2]].upper().startswith(("BINARY", "VARBINARY"))


def _mysql_id(name: str, kinds: Mapping[str, str]) -> str:
    if not _is_binary(name, kinds):
        return f"lower(cast({name} as char(36)))"
    hexed = f"lower(hex({name}))"
    for position in (21, 17, 13, 9):
        hexed = f"insert({hexed}, {position}, 0, '-')"
    return hexed


def _mysql_id_back(name: str, kinds: Mapping[str, str]) -> str:
    return f"unhex(replace({name}, '-', ''))" if _is_binary(name, kinds) else name


def _second(name: str) -> str:
    return f"timestampdiff(second, '1970-01-01', {name})"


def _insert(how: str, table: str, source: str, values: Mapping[str, str]) -> str:
    return f"{how} into {table} ({', '.join(values)}) select {', '.join(values.values())} from {source}"  # noqa: S608


_MYSQL_ID = "char(36) character set ascii collate ascii_bin"
_MYSQL_TABLE = f"""create table states_adopted (
    tenant_id {_MYSQL_ID} not null, id {_MYSQL_ID} not null, parent_id {_MYSQL_ID}, flow_id {_MYSQL_ID} not null,
    flow_version_id {_MYSQL_ID} not null, is_done bool not null, current_map_element_id {_MYSQL_ID},
    current_user_id {_MYSQL_ID}, created_at varchar(40) not null, updated_at varchar(40) not null,
    updated_second bigint not null, updated_nanosecond integer not null, expires_at varchar(40),
    expires_second bigint, content longtext character set utf8mb4 collate utf8mb4_bin not null,
    content_crc32 bigint, revision integer not null default 0,
    primary key (tenant_id, id)
) engine = InnoDB, row_format = dynamic, character set utf8mb4, collate utf8mb4_bin"""


def _mysql_back(kinds: Mapping[str, str]) -> list[str]:
    def moment(second: str, micros: str = "0") -> str:
        return f"timestampadd(microsecond, {micros}, timestampadd(second, {second}, '1970-01-01'))"

    # Only the text tells when a state was created, and it may have any offset.
    offset = "if(right(created_at, 1) = 'Z', '+00:00', right(created_at, 6))"
    created = f"convert_tz(cast(replace(left(created_at, 19), 'T', ' ') as datetime), {offset}, '+00:00')"
    values = {name: _mysql_id_back(name, kinds) for name in IDS}
    values |= {"is_done": "is_done", "content": "content", "created_at": created}
    values |= {"updated_at": moment("updated_second", "updated_nanosecond div 1000")}
    values |= {"expires_at": moment("expires_second")}
    return [
        "set time_zone = '+00:00'",
        _IN_THE_CLEAR,
        "delete from states_java",
        _insert("insert", "states_java", "states", values),
        "rename table states to states_receiver, states_java to states",
        f"drop table states_receiver, receipts, key_uses, {VERSION_TABLE}",
    ]


def _sqlserver(kinds: Mapping[str, str], key: str) -> tuple[list[str], list[str]]:
    """Written, not run here: there is no such server on the machines of this project."""
    id_ = "char(36) collate Latin1_General_100_BIN2"
    required = {"id", "tenant_id", "flow_id", "flow_version_id"}
    stamp = "left(convert(varchar(33), {0} at time zone ''UTC'', 126), 27)"
    added = _ADDED | {"revision": "integer not null constraint states_revision default 0"}
    forth = ["alter table states add " + ", ".join(f"{name} {kind}" for name, kind in added.items())]
    forth.append(
        "exec('update states set updated_second = datediff_big(second, ''1970-01-01'', updated_at),"
        " updated_nanosecond = datepart(nanosecond, updated_at),"
        " expires_second = datediff_big(second, ''1970-01-01'', expires_at)')"
    )
    forth.append(f"alter table states drop constraint {key}")
    forth += [f"alter table states alter column {name} {id_}{' not null' if name in required else ''}" for name in IDS]
    for name in TIMES:
        forth.append(f"alter table states add {name}_text varchar(40)")
        text = f"replace({stamp.format(name)}, '' '', ''T'') + ''Z''"
        forth.append(f"exec('update states set {name}_text = {text}')")  # noqa: S608
        forth.append(f"alter table states drop column {name}")
        forth.append(f"exec sp_rename 'states.{name}_text', '{name}', 'COLUMN'")
    forth.append(f"alter table states add constraint {key} primary key (tenant_id, id)")
    back = [_IN_THE_CLEAR, f"alter table states drop constraint {key}, states_revision, states_in_the_clear"]
    back += [
        "drop index states_expires_second on states",
        f"alter table states drop column {', '.join(added)}, sealing_key",
    ]
    back += [f"alter table states alter column {name} {kinds[name]}" for name in TIMES]
    back += [f"alter table states alter column {name} {kinds[name]}" for name in IDS]
    back.append(f"alter table states add constraint {key} primary key (id)")
    back.append(f"drop table receipts, key_uses, {VERSION_TABLE}")
    return forth, back
