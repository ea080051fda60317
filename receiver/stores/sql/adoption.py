"""Taking over the ``states`` table of the Java service, and the way back.

PostgreSQL and SQL Server change the table in place, in one transaction. MariaDB and MySQL cannot do that in a
transaction: there the states are copied into a table of ours, which then takes the old one's name in one step, and
the old one stays as ``states_java``. Flyway's own table is never touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, inspect

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores.sql import adoption_statements as statements
from receiver.stores.sql import upgrade
from receiver.stores.sql.engine import TRANSACTIONAL, make_engine
from receiver.stores.sql.errors import driver_errors
from receiver.stores.urls import Place

_COLUMNS = {*statements.IDS, *statements.TIMES, "is_done", "content"}
_NULLABLE = {"parent_id", "current_map_element_id", "current_user_id", "expires_at"}
_PATIENCE = 24 * 3600.0  # seconds for one statement: a large table is rewritten


@dataclass(frozen=True)
class Plan:
    """What an adoption of so many ``states`` will do: the statements ``forth``, and those of the way ``back``."""

    states: int
    forth: list[str]
    back: list[str]


def open_engine(place: Place, timeout: float) -> Engine:
    """Return an engine that is reached within ``timeout`` seconds, and then waits as long as a large table takes."""
    return make_engine(place, timeout, connections=2, answer=_PATIENCE).execution_options(**TRANSACTIONAL)


def plan(engine: Engine, place: Place) -> Plan:
    """Return what adopting the database at ``place`` will do; changes nothing.

    Raises StoreMisplaced when there is nothing to adopt, or something is in the way.
    """
    with driver_errors(), engine.connect() as connection:
        _enter_schema(connection, place)
        if upgrade.revision_of(connection, place) is not None:
            raise StoreMisplaced("the database is the receiver's already: there is nothing to adopt")
        if not upgrade.is_of_the_java_service(connection, place):
            raise StoreMisplaced("the database holds no states table of the Java service: there is nothing to adopt")
        kinds, key = _columns(connection, place)
        forth, back = statements.of(place, kinds, key)
        return Plan(_check_rows(connection, statements.doubts(place, kinds)), forth, back)


def adopt(engine: Engine, place: Place, found: Plan) -> None:
    """Do what the plan ``found`` says, then what a start does on any database: all of it, where the engine can.

    Raises StoreUnavailable when the Java service was still writing, and what the driver's errors become.
    """
    with driver_errors():
        with engine.execution_options(no_parameters=True).begin() as connection:
            _enter_schema(connection, place)
            for statement in found.forth:
                if statement.startswith(statements.SWITCH[place.kind]):
                    _check_count(connection, statements.FILLED[place.kind], found)
                connection.exec_driver_sql(statement)
            if place.kind != "mysql":
                upgrade.upgrade(connection, place)
        upgrade.prepare(engine, place, _PATIENCE, create=True)


def _enter_schema(connection: Connection, place: Place) -> None:
    """Let the statements mean the tables of ``search_path`` as long as the transaction lasts."""
    if schema := place.parameters.get("search_path"):
        connection.exec_driver_sql(statements.enter_schema(schema))


def _columns(connection: Connection, place: Place) -> tuple[dict[str, str], str]:
    """Return the type of each column, as the engine writes it, and the name of the primary key.

    Raises StoreMisplaced for a table that is not quite the Java service's.
    """
    look, schema = inspect(connection), place.parameters.get("search_path")
    found = {column["name"]: column for column in look.get_columns("states", schema=schema)}
    if missing := _COLUMNS - set(found):
        raise StoreMisplaced(f"the states table lacks the columns {', '.join(sorted(missing))}")
    for name in set(found) - _COLUMNS:
        if not found[name]["nullable"] and found[name].get("default") is None:
            raise StoreMisplaced(f"the states table has a column {name} that a new row would have to fill")
    kinds = {name: found[name]["type"].compile(dialect=connection.dialect) for name in _COLUMNS}
    key = look.get_pk_constraint("states", schema=schema)
    if not key["constrained_columns"]:
        raise StoreMisplaced("the states table has no primary key, so it is not quite the Java service's")
    return kinds, key["name"] or "PRIMARY"


def _check_rows(connection: Connection, doubts: Mapping[str, str]) -> int:
    """Return the number of states; raises StoreMisplaced when some are not what every state is.

    ``doubts`` are texts by the condition of a row that they tell of.
    """
    doubts = {f"{name} is null": f"have no {name}" for name in sorted(_COLUMNS - _NULLABLE)} | dict(doubts)
    counts = [f"sum(case when {condition} then 1 else 0 end)" for condition in doubts]
    with connection.execution_options(no_parameters=True):
        count, *found = connection.exec_driver_sql(f"select count(*), {', '.join(counts)} from states").one()  # noqa: S608
    for text, number in zip(doubts.values(), found, strict=True):
        if number:
            raise StoreMisplaced(f"{number} states {text}: look at them, or delete them, first")
    return count


def _check_count(connection: Connection, table: str, found: Plan) -> None:
    count = connection.exec_driver_sql(f"select count(*) from {table}").scalar()  # noqa: S608 - a name of ours
    if count != found.states:
        raise StoreUnavailable(
            f"{count} states were found instead of {found.states}: is the Java service still running?"
        )


def summary_of(found: Plan, place: Place) -> Mapping[str, object]:
    """Return the plan ``found`` for ``place`` as plain values, for JSON."""
    return {"store": str(place), "states": found.states, "forth": found.forth, "back": found.back}
