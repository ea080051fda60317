"""The statements of an adoption and of its way back, for each engine.

Times of the Java service have six fraction digits and are UTC; they become the text that the platform would send.
A content that it kept as jsonb or JSON comes out as that type writes it, which is what it answered too.
"""

from collections.abc import Mapping

from receiver.stores.sql.schema import VERSION_TABLE
from receiver.stores.urls import Place

FILLED = {"postgresql": "states", "mysql": "states_adopted", "sqlserver": "states"}  # counted before the last step
_IDS = ("id", "tenant_id", "parent_id", "flow_id", "flow_version_id", "current_map_element_id", "current_user_id")
_TIMES = ("created_at", "updated_at", "expires_at")
_ADDED = {
    "updated_second": "bigint",
    "updated_nanosecond": "integer",
    "expires_second": "bigint",
    "content_crc32": "bigint",
    "revision": "integer not null default 0",
}


def of(place: Place, kinds: Mapping[str, str], key: str) -> tuple[list[str], list[str]]:
    """Return the statements forth and back; ``kinds`` are the types of the columns, ``key`` names the primary key."""
    return {"postgresql": _postgresql, "mysql": _mysql, "sqlserver": _sqlserver}[place.kind](kinds, key)


def _postgresql(kinds: Mapping[str, str], key: str) -> tuple[list[str], list[str]]:
    def utc(name: str) -> str:
        return f"({name} at time zone 'UTC')" if "WITH TIME ZONE" in kinds[name] else name

    def second(name: str) -> str:
        return f"floor(extract(epoch from {utc(name)}))::bigint"

    changes = {name: ("uuid", f"{name}::uuid") for name in _IDS if kinds[name] != "UUID"}
    changes |= {name: ("varchar(40)", f"""to_char({utc(name)}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""") for name in _TIMES}
    micros = f"extract(microseconds from {utc('updated_at')})::bigint % 1000000"
    changes |= {
        "content": ("text", "content::text"),
        "updated_second": ("bigint", second("updated_at")),
        "updated_nanosecond": ("integer", f"({micros} * 1000)::integer"),
        "expires_second": ("bigint", second("expires_at")),
    }
    forth = [
        "lock table states in access exclusive mode",
        "alter table states " + ", ".join(f"add column {name} {kind}" for name, kind in _ADDED.items()),
        "alter table states " + ", ".join(f"alter column {name} drop default" for name in (*_TIMES, "content")),
        "alter table states "
        + ", ".join(f"alter column {name} type {kind} using {value}" for name, (kind, value) in changes.items()),
        "alter table states "
        + ", ".join(
            f"alter column {name} set not null" for name in ("updated_second", "updated_nanosecond", "content")
        ),
        f'alter table states drop constraint "{key}", add constraint "{key}" primary key (tenant_id, id)',
    ]
    was = {name: kinds[name] for name in changes if name in kinds}
    back = [
        "begin",
        f'alter table states drop constraint "{key}", add constraint "{key}" primary key (id)',
        "alter table states " + ", ".join(f"drop column {name}" for name in _ADDED),
        "alter table states "
        + ", ".join(f"alter column {name} type {kind} using {name}::{kind}" for name, kind in was.items()),
        f"drop table receipts, {VERSION_TABLE}",
        "commit",
    ]
    return forth, back


def _mysql(kinds: Mapping[str, str], _key: str) -> tuple[list[str], list[str]]:
    def id_(name: str) -> str:
        if not kinds[name].upper().startswith(("BINARY", "VARBINARY")):
            return f"lower(cast({name} as char(36)))"
        hexed = f"lower(hex({name}))"
        for position in (21, 17, 13, 9):
            hexed = f"insert({hexed}, {position}, 0, '-')"
        return hexed

    def second(name: str) -> str:
        return f"timestampdiff(second, '1970-01-01', {name})"

    values = {name: id_(name) for name in _IDS}
    values |= {name: f"date_format({name}, '%Y-%m-%dT%H:%i:%s.%fZ')" for name in _TIMES}
    values |= {"is_done": "is_done + 0", "content": "convert(content using utf8mb4)"}
    values |= {"updated_second": second("updated_at"), "updated_nanosecond": "1000 * microsecond(updated_at)"}
    values |= {"expires_second": second("expires_at")}
    forth = [
        "set time_zone = '+00:00'",
        "drop table if exists states_adopted",
        _MYSQL_TABLE,
        _insert("states_adopted", "states", values),
        "rename table states to states_java, states_adopted to states",
    ]
    return forth, _mysql_back(kinds)


def _insert(table: str, source: str, values: Mapping[str, str]) -> str:
    return f"insert into {table} ({', '.join(values)}) select {', '.join(values.values())} from {source}"  # noqa: S608


_MYSQL_ID = "char(36) character set ascii collate ascii_bin"
_MYSQL_TABLE = f"""create table states_adopted (
    tenant_id {_MYSQL_ID} not null, id {_MYSQL_ID} not null, parent_id {_MYSQL_ID}, flow_id {_MYSQL_ID} not null,
    flow_version_id {_MYSQL_ID} not null, is_done bool not null, current_map_element_id {_MYSQL_ID},
    current_user_id {_MYSQL_ID}, created_at varchar(40) not null, updated_at varchar(40) not null,
    updated_second bigint not null, updated_nanosecond integer not null, expires_at varchar(40),
    expires_second bigint, content longtext character set utf8mb4 collate utf8mb4_bin not null,
    content_crc32 bigint, revision integer not null default 0,
    primary key (tenant_id, id)
) engine = InnoDB, character set utf8mb4, collate utf8mb4_bin"""


def _mysql_back(kinds: Mapping[str, str]) -> list[str]:
    def id_(name: str) -> str:
        binary = kinds[name].upper().startswith(("BINARY", "VARBINARY"))
        return f"unhex(replace({name}, '-', ''))" if binary else name

    def moment(second: str, micros: str = "0") -> str:
        return f"timestampadd(microsecond, {micros}, timestampadd(second, {second}, '1970-01-01'))"

    # Only the text tells when a state was created, and it may have any offset.
    offset = "if(right(created_at, 1) = 'Z', '+00:00', right(created_at, 6))"
    created = f"convert_tz(cast(replace(left(created_at, 19), 'T', ' ') as datetime), {offset}, '+00:00')"
    values = {name: id_(name) for name in _IDS} | {"is_done": "is_done", "content": "content", "created_at": created}
    values |= {"updated_at": moment("updated_second", "updated_nanosecond div 1000")}
    values |= {"expires_at": moment("expires_second")}
    return [
        "set time_zone = '+00:00'",
        "delete from states_java",
        _insert("states_java", "states", values),
        "rename table states to states_receiver, states_java to states",
        f"drop table states_receiver, receipts, {VERSION_TABLE}",
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
    forth += [f"alter table states alter column {name} {id_}{' not null' if name in required else ''}" for name in _IDS]
    for name in _TIMES:
        forth.append(f"alter table states add {name}_text varchar(40)")
        text = f"replace({stamp.format(name)}, '' '', ''T'') + ''Z''"
        forth.append(f"exec('update states set {name}_text = {text}')")  # noqa: S608
        forth.append(f"alter table states drop column {name}")
        forth.append(f"exec sp_rename 'states.{name}_text', '{name}', 'COLUMN'")
    forth.append(f"alter table states add constraint {key} primary key (tenant_id, id)")
    back = [f"alter table states drop constraint {key}, states_revision"]
    back += ["drop index states_expires_second on states", f"alter table states drop column {', '.join(added)}"]
    back += [f"alter table states alter column {name} {kinds[name]}" for name in _TIMES]
    back += [f"alter table states alter column {name} {kinds[name]}" for name in _IDS]
    back.append(f"alter table states add constraint {key} primary key (id)")
    back.append(f"drop table receipts, {VERSION_TABLE}")
    return forth, back
