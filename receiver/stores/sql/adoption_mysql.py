"""The statements that upgrade and downgrade on MariaDB and MySQL, whose DDL ends transactions."""

from collections.abc import Mapping

from receiver.stores.sql.java_table import IDS, IN_THE_CLEAR, NULLABLE, TIMES, JavaTable
from receiver.stores.sql.schema import STORE, VERSION_TABLE

_DAY = 24 * 3600 * 1_000_000  # microseconds
_TWO_DAYS = 2 * _DAY  # more than a day and the greatest offset


def statements(table: JavaTable) -> tuple[list[str], list[str]]:
    """Return the statements that upgrade ``table``, and those that downgrade it."""
    values = {name: _id(name, table) for name in IDS}
    values |= {name: f"date_format({name}, '%Y-%m-%dT%H:%i:%s.%fZ')" for name in TIMES}
    values |= {"is_done": "is_done + 0", "content": "convert(content using utf8mb4)"}
    second, nanosecond = _earliest(table, "updated_at")
    values |= {"updated_second": second, "updated_nanosecond": nanosecond}
    values |= {"expires_second": _second("expires_at")}
    upgrade = [
        "set time_zone = '+00:00'",
        "drop table if exists states_adopted",
        _TABLE,
        _insert("insert", "states_adopted", "states", values),
        "rename table states to states_java, states_adopted to states",
        *_late(table, values),
    ]
    return upgrade, _downgrade(table)


def _earliest(table: JavaTable, name: str) -> tuple[str, str]:
    return table.earliest(_second(name), f"1000 * microsecond({name})")


def _late(table: JavaTable, values: Mapping[str, str]) -> list[str]:
    """Return the statements for what a Java service that still ran changed or deleted during the copy."""
    theirs = f"select 1 from states_java as j where j.id = {_id_back('states.id', table)}"  # noqa: S608
    second, nanosecond = _earliest(table, "states_java.updated_at")
    ours = (
        f"select 1 from states as s where s.tenant_id = {_id('states_java.tenant_id', table)}"  # noqa: S608
        f" and s.id = {_id('states_java.id', table)} and s.updated_second = {second}"
        f" and s.updated_nanosecond = {nanosecond}"
        " and s.content = convert(states_java.content using utf8mb4)"
    )
    return [
        f"delete from states where not exists ({theirs})",  # noqa: S608
        _insert("replace", "states", "states_java", values) + f" where not exists ({ours})",
    ]


def _id(name: str, table: JavaTable) -> str:
    if not table.is_binary(name.rpartition(".")[2]):
        return f"lower(cast({name} as char(36)))"
    hexed = f"lower(hex({name}))"
    for position in (21, 17, 13, 9):
        hexed = f"insert({hexed}, {position}, 0, '-')"
    return hexed


def _id_back(name: str, table: JavaTable) -> str:
    return f"unhex(replace({name}, '-', ''))" if table.is_binary(name.rpartition(".")[2]) else name


def _second(name: str) -> str:
    # Without its fraction: timestampdiff rounds towards zero, which is up before 1970.
    return f"timestampdiff(second, '1970-01-01', date_format({name}, '%Y-%m-%d %H:%i:%s'))"


def _insert(how: str, table: str, source: str, values: Mapping[str, str]) -> str:
    return f"{how} into {table} ({', '.join(values)}) select {', '.join(values.values())} from {source}"  # noqa: S608


_ID = "char(36) character set ascii collate ascii_bin"
_TABLE = f"""create table states_adopted (
    tenant_id {_ID} not null, id {_ID} not null, parent_id {_ID}, flow_id {_ID} not null,
    flow_version_id {_ID} not null, is_done bool not null, current_map_element_id {_ID},
    current_user_id {_ID}, created_at varchar(40) not null, updated_at varchar(40) not null,
    updated_second bigint not null, updated_nanosecond integer not null, expires_at varchar(40),
    expires_second bigint, content longtext character set utf8mb4 collate utf8mb4_bin not null,
    content_crc32 bigint, revision integer not null default 0,
    primary key (tenant_id, id)
) engine = InnoDB, row_format = dynamic, character set utf8mb4, collate utf8mb4_bin"""


def _moment(name: str, table: JavaTable) -> str:
    """Return the time in UTC of the text in the column ``name``, rounded to the digits that the Java service's kept.

    The text may have any offset. A time that its offset or the rounding would move out of years 1 to 9999 stays within.
    """
    digits = min(table.digits(name), 6)
    unit, step = 10 ** (9 - digits), 10 ** (6 - digits)  # the last digit, in nanoseconds and in microseconds
    zulu = f"right({name}, 1) = 'Z'"
    local = f"left({name}, char_length({name}) - if({zulu}, 1, 6))"
    offset = f"(60 * substring({name}, -5, 2) + right({name}, 2)) * if(substring({name}, -6, 1) = '-', -1, 1)"
    seconds = f"time_to_sec(substring_index(substring({local}, 12), '.', 1)) - 60 * if({zulu}, 0, {offset})"
    fraction = f"if(locate('.', {name}), rpad(substring_index({local}, '.', -1), 9, '0'), '0')"
    micros = f"({fraction} + {unit // 2}) div {unit} * {step}"
    first = f"if({name} like '0001-01-01%', 0, {-_TWO_DAYS})"
    last = f"if({name} like '9999-12-31%', {_DAY - step}, {_TWO_DAYS})"
    passed = f"greatest({first}, least({last}, 1000000 * ({seconds}) + {micros}))"
    return f"timestampadd(microsecond, {passed}, cast(left({name}, 10) as date))"


def _downgrade(table: JavaTable) -> list[str]:
    values = {name: _id_back(name, table) for name in IDS}
    values |= {"is_done": "is_done", "content": "content"} | {name: _moment(name, table) for name in TIMES}
    optional = [name for name in NULLABLE if name in table.not_null]
    return [
        "set time_zone = '+00:00'",
        IN_THE_CLEAR,
        *(f"alter table states_java modify {name} {table.types[name]} null" for name in optional),
        "delete from states_java",
        _insert("insert", "states_java", "states", values),
        "rename table states to states_receiver, states_java to states",
        f"drop table states_receiver, receipts, key_uses, {STORE}, {VERSION_TABLE}",
    ]
