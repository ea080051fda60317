"""What stops an adoption: rows that could not be served, by cause, with a query and a statement that fixes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from receiver.stores.sql.java_table import COLUMNS, IDS, NULLABLE, TIMES, JavaTable

IDS_SHOWN = 20
_PATTERN = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
_POSTGRESQL_PATTERN = "^[{]?([0-9A-Fa-f]{4}-?){8}[}]?$"  # what its type uuid accepts
_IDENTITY = ("id", "tenant_id")
_KEPT_IDS = ("flow_id", "flow_version_id")  # the receiver keeps them, and never queries by them
# A database rounds .NET's greatest time up, and an offset may move a time out of the years 1 to 9999.
_EARLIEST, _LATEST = "0001-12-31 06:00:00 BC", "10000-01-01 18:00:00"


_VIEWS = """
    select distinct c.oid::regclass::text, case c.relkind when 'm' then 'materialized view' else 'view' end
      from pg_depend d
      join pg_rewrite r on r.oid = d.objid
      join pg_class c on c.oid = r.ev_class
     where d.classid = 'pg_rewrite'::regclass
       and d.refobjid = 'states'::regclass
       and c.oid <> d.refobjid
     order by 1
"""


@dataclass(frozen=True)
class Doubt:
    """A possible obstacle: ``what`` is wrong with a row, its SQL ``condition``, and the statement that fixes it."""

    what: str
    condition: str
    fix: str


@dataclass
class Obstacle:
    """``count`` rows have the fault ``what``; ``ids`` lists some, ``query`` finds all, ``fix`` fixes them.

    If ``unit`` is not "state", ``ids`` are names.
    """

    what: str
    count: int
    query: str
    fix: str
    ids: list[str] = field(default_factory=list)
    unit: str = "state"

    def lines(self) -> list[str]:
        """Return the lines that describe it to people."""
        more = f", and {self.count - len(self.ids):,} more" if self.count > len(self.ids) else ""
        label = "ids" if self.unit == "state" else "names"
        title = f"  {self.what}: {self.count:,} {self.unit}{'' if self.count == 1 else 's'}"
        return [title, f"    {label}: {', '.join(self.ids)}{more}", f"    all: {self.query}", f"    fix: {self.fix}"]


def doubts(table: JavaTable) -> list[Doubt]:
    """Return everything that may stop the adoption of ``table``."""
    found = [_missing(table, name) for name in COLUMNS if name not in NULLABLE]
    if table.kind == "mysql":
        return found + _mysql_times(table) + _mysql_ids(table)
    if table.kind == "postgresql":
        return found + _postgresql_times(table) + _postgresql_ids(table)
    return found


def look(connection: Connection, kind: str, asked: Sequence[Doubt]) -> tuple[int, list[Obstacle]]:
    """Return the number of states, and an Obstacle for each of ``asked`` that holds; reads the table once."""
    counts = [f"sum(case when {doubt.condition} then 1 else 0 end)" for doubt in asked]
    connection.execution_options(no_parameters=True)
    count, *found = connection.exec_driver_sql(f"select count(*), {', '.join(counts)} from states").one()  # noqa: S608
    held = [(doubt, int(number)) for doubt, number in zip(asked, found, strict=True) if number]
    return count, [_obstacle(connection, kind, doubt, number) for doubt, number in held]


def views(connection: Connection) -> list[Obstacle]:
    """Return the views that read PostgreSQL's table, which stop a change of it; ``query`` shows them."""
    found = connection.execution_options(no_parameters=True).exec_driver_sql(_VIEWS).all()
    if not found:
        return []
    names = [name for name, _ in found]
    shown = ", ".join(f"pg_get_viewdef('{name}'::regclass)" for name in names)
    drops = "; ".join(f"drop {kind} {name}" for name, kind in found)
    fix = f"{drops}; note first how to make them again"
    return [Obstacle("read the table states", len(names), f"select {shown}", fix, names[:IDS_SHOWN], "view")]


def _obstacle(connection: Connection, kind: str, doubt: Doubt, count: int) -> Obstacle:
    top, limit = (f"top ({IDS_SHOWN}) ", "") if kind == "sqlserver" else ("", f" limit {IDS_SHOWN}")
    query = f"select id, tenant_id from states where {doubt.condition}"  # noqa: S608
    some = f"select {top}id from states where {doubt.condition} order by id{limit}"  # noqa: S608
    ids = [id.hex() if isinstance(id, bytes) else str(id) for (id,) in connection.exec_driver_sql(some)]
    return Obstacle(doubt.what, count, query, doubt.fix, ids)


def _doubt(what: str, condition: str, name: str, value: str | None) -> Doubt:
    """Return the Doubt whose fix sets the column ``name`` to ``value``, or deletes the row if that is None."""
    change = f"update states set {name} = {value}" if value else "delete from states"  # noqa: S608 - names of ours
    return Doubt(what, condition, f"{change} where {condition}")


def _missing(table: JavaTable, name: str) -> Doubt:
    values = {id: table.nil(id) for id in _KEPT_IDS}
    values |= {"is_done": "false" if table.kind == "postgresql" else "0"}
    values |= {"created_at": "coalesce(updated_at, current_timestamp)"}
    values |= {"updated_at": "coalesce(created_at, current_timestamp)"}
    return _doubt(f"no {name}", f"{name} is null", name, values.get(name))


def _postgresql_times(table: JavaTable) -> list[Doubt]:
    found = []
    for name in TIMES:
        what, time = f"{name} outside the years 1 to 9999", table.utc(name)
        late = "'9999-12-31 23:59:59.999999+00'" if name == "expires_at" else "current_timestamp"
        found.append(_doubt(f"{what} (too early)", f"{time} < '{_EARLIEST}'", name, "'0001-01-01 00:00:00+00'"))
        found.append(_doubt(f"{what} (too late)", f"{time} > '{_LATEST}'", name, late))
    return found


def _mysql_times(table: JavaTable) -> list[Doubt]:
    """Years end at 9999 there, but a date may be 0000-00-00, or lack a month or day."""
    found = []
    for name in TIMES:
        lasting = "null" if "TIMESTAMP" in table.types[name].upper() else "'9999-12-31 23:59:59'"
        condition = f"({name} < '0001-01-01' or month({name}) = 0 or dayofmonth({name}) = 0)"
        value = lasting if name == "expires_at" else "utc_timestamp()"
        found.append(_doubt(f"{name} that is no date", condition, name, value))
    return found


def _mysql_ids(table: JavaTable) -> list[Doubt]:
    texts = [name for name in IDS if "CHAR" in table.types[name].upper()]
    return [_no_uuid(table, name, f"{name} not regexp '{_PATTERN}'") for name in texts]


def _postgresql_ids(table: JavaTable) -> list[Doubt]:
    texts = [name for name in IDS if table.types[name] != "UUID"]
    return [_no_uuid(table, name, f"{name}::text !~ '{_POSTGRESQL_PATTERN}'") for name in texts]


def _no_uuid(table: JavaTable, name: str, condition: str) -> Doubt:
    value = None if name in _IDENTITY else table.nil(name) if name in _KEPT_IDS else "null"
    return _doubt(f"{name} that is no UUID", condition, name, value)
