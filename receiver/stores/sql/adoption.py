"""Taking over the ``states`` table of the Java service, and the way back.

PostgreSQL and SQL Server change the table in place, in one transaction. MariaDB and MySQL cannot: there the states are
copied into a new table, which then takes over the name in one step; the old table stays as ``states_java``. Flyway's
own table is never touched.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Engine, inspect

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores.sql import adoption_statements as statements
from receiver.stores.sql import obstacles, upgrade, way_back
from receiver.stores.sql.engine import TRANSACTIONAL, make_engine
from receiver.stores.sql.errors import driver_errors
from receiver.stores.sql.java_table import COLUMNS, JavaTable
from receiver.stores.sql.obstacles import Obstacle
from receiver.stores.urls.store_url import StoreURL

_PATIENCE = 24 * 3600.0  # seconds for one statement, which may rewrite a large table


@dataclass(frozen=True)
class Plan:
    """What an adoption will do to ``states`` states: the statements that ``upgrade``, and those that ``downgrade``.

    ``check_downgrade`` are the statements that find, before a downgrade, which states stop it. ``obstacles`` stop the
    adoption itself.
    """

    states: int
    upgrade: list[str]
    downgrade: list[str]
    check_downgrade: list[str]
    obstacles: list[Obstacle]


def open_engine(store_url: StoreURL, timeout: float) -> Engine:
    """Return an engine that connects within ``timeout`` seconds and then waits as long as a large table takes."""
    return make_engine(store_url, timeout, connections=2, answer=_PATIENCE).execution_options(**TRANSACTIONAL)


def plan(engine: Engine, store_url: StoreURL) -> Plan:
    """Return what adopting the database at ``store_url`` will do; changes nothing.

    Raises StoreMisplaced when there is nothing to adopt, or the table is not exactly the Java service's.
    """
    with driver_errors(), engine.connect() as connection:
        _enter_schema(connection, store_url)
        if upgrade.revision_of(connection, store_url) is not None:
            raise StoreMisplaced("the database is the receiver's already: there is nothing to adopt")
        if not upgrade.is_of_the_java_service(connection, store_url):
            raise StoreMisplaced("the database holds no states table of the Java service: there is nothing to adopt")
        table = _table(connection, store_url)
        kept = way_back.column_of(connection, "states") if store_url.kind == "mysql" else (table.types["content"], None)
        count, found = obstacles.look(connection, store_url.kind, obstacles.doubts(table))
        if store_url.kind == "postgresql":
            found += obstacles.views(connection)
        return Plan(count, *statements.of(store_url, table), way_back.questions(store_url, *kept), found)


def adopt(engine: Engine, store_url: StoreURL, found: Plan) -> None:
    """Carry out the plan ``found``, then the migrations: all of it or nothing, where the engine can.

    ``found`` must have no obstacles. Raises StoreUnavailable when the Java service was still writing, and the errors
    of the contract.
    """
    with driver_errors():
        with engine.execution_options(no_parameters=True).begin() as connection:
            _enter_schema(connection, store_url)
            for statement in found.upgrade:
                if statement.startswith(statements.SWITCH[store_url.kind]):
                    _check_count(connection, statements.FILLED[store_url.kind], found)
                connection.exec_driver_sql(statement)
            if store_url.kind != "mysql":
                upgrade.upgrade(connection, store_url)
        upgrade.prepare(engine, store_url, _PATIENCE, create=True)


def _enter_schema(connection: Connection, store_url: StoreURL) -> None:
    """Make the statements of this transaction use the tables of ``search_path``."""
    if schema := store_url.parameters.get("search_path"):
        connection.exec_driver_sql(statements.enter_schema(schema))


def _table(connection: Connection, store_url: StoreURL) -> JavaTable:
    """Return the states table's description; raises StoreMisplaced if it is not exactly the Java service's."""
    look, schema = inspect(connection), store_url.parameters.get("search_path")
    found = {column["name"]: column for column in look.get_columns("states", schema=schema)}
    if missing := set(COLUMNS) - set(found):
        raise StoreMisplaced(f"the states table lacks the columns {', '.join(sorted(missing))}")
    for name in set(found) - set(COLUMNS):
        if not found[name]["nullable"] and found[name].get("default") is None:
            raise StoreMisplaced(f"the states table has a column {name} that a new row would have to fill")
    types = {name: found[name]["type"].compile(dialect=connection.dialect) for name in COLUMNS}
    key = look.get_pk_constraint("states", schema=schema)
    if not key["constrained_columns"]:
        raise StoreMisplaced("the states table has no primary key, so it is not quite the Java service's")
    not_null = frozenset(name for name in COLUMNS if not found[name]["nullable"])
    return JavaTable(store_url.kind, types, key["name"] or "PRIMARY", not_null)


def _check_count(connection: Connection, table: str, found: Plan) -> None:
    count = connection.exec_driver_sql(f"select count(*) from {table}").scalar()  # noqa: S608 - a name of ours
    if count != found.states:
        raise StoreUnavailable(
            f"{count} states were found instead of {found.states}: is the Java service still running?"
        )


def summary_of(found: Plan, store_url: StoreURL) -> Mapping[str, object]:
    """Return the plan ``found`` for ``store_url`` as plain values, for JSON."""
    return {
        "store": str(store_url),
        "states": found.states,
        "forth": found.upgrade,
        "back": found.downgrade,
        "check_back": found.check_downgrade,
        "obstacles": [asdict(one) for one in found.obstacles],
    }
