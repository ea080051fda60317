"""The schema of a database server, made and upgraded by Alembic, even if many replicas start at once.

On PostgreSQL it is one transaction under an advisory lock of that transaction, which also works through PgBouncer. On
MariaDB and MySQL, whose DDL ends transactions, it runs under a lock of the session. Each step may safely run twice; the
replica that comes second checks again.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, Engine, column, inspect, select, table, text
from sqlalchemy.exc import DBAPIError, OperationalError

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores.sql.errors import is_hopeless
from receiver.stores.sql.schema import VERSION_TABLE, key_uses, receipts, states, store
from receiver.stores.urls.store_url import StoreURL

HEAD = "0003"  # of migrations/versions; named here so that a start with nothing to do need not import Alembic
_LATER = {"sealing_key"}  # columns that a table lacks before the second step
_MIGRATIONS = Path(__file__).with_name("migrations")
_ALEMBIC = threading.Lock()  # its context is global to the process
_LOCK = 0x72656365_69766572  # an arbitrary number, the same in all receivers: "receiver"


def prepare(engine: Engine, store_url: StoreURL, timeout: float, create: bool) -> None:
    """Create or upgrade the tables, unless they are up to date.

    Raises StoreMisplaced for a schema newer than this program and for someone else's tables, StoreUnavailable for
    missing tables without ``create``.
    """
    deadline = time.monotonic() + timeout
    while not _is_at_head(engine, store_url, create, deadline):
        time.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - another replica is upgrading


def _is_at_head(engine: Engine, store_url: StoreURL, create: bool, deadline: float) -> bool:
    """Check the schema and upgrade it; return False when another replica interfered."""
    try:
        with engine.connect() as connection:
            found = revision_of(connection, store_url)
            if found == HEAD:
                return True
            _check_revision(found)
            _check_encoding(connection, store_url)
            if found is None:
                _check_tables(connection, store_url)
        if not create:
            raise StoreUnavailable("the tables of the store are missing; a start of `receiver serve` makes them")
        with engine.begin() as connection, _locked(connection, store_url):
            if revision_of(connection, store_url) == found:  # else another replica was first
                upgrade(connection, store_url)
    except DBAPIError as error:
        if is_hopeless(error) or time.monotonic() > deadline:
            raise
        return False
    return True


def revision_of(connection: Connection, store_url: StoreURL) -> str | None:
    """Return the revision of the schema in the database, such as "0001"; None if there is none."""
    schema = store_url.parameters.get("search_path")
    if not inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    return connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE, schema=schema))).scalar()


def check_revision(connection: Connection, store_url: StoreURL) -> str:
    """Return the revision of the schema; raises StoreMisplaced when it is not the one that this program needs."""
    found = revision_of(connection, store_url)
    _check_revision(found)
    if found != HEAD:
        raise StoreMisplaced(f"the schema of the database is {found}, older than this program needs ({HEAD})")
    return HEAD


def _check_revision(found: str | None) -> None:
    """Raise StoreMisplaced when the revision ``found`` is newer than this program knows."""
    if found is not None and found > HEAD:
        raise StoreMisplaced(
            f"the schema of the database is {found}, newer than this program knows ({HEAD}):"
            " run the version of the receiver that made it, or a later one"
        )


def is_of_the_java_service(connection: Connection, store_url: StoreURL) -> bool:
    """Return whether the database holds a ``states`` table of the Java service that was not adopted."""
    columns = _columns(connection, store_url, states.name)
    return {"id", "tenant_id", "content", "updated_at"} <= columns and "updated_second" not in columns


def _check_tables(connection: Connection, store_url: StoreURL) -> None:
    """Raise StoreMisplaced when someone else's tables have the names of ours."""
    if is_of_the_java_service(connection, store_url):
        raise StoreMisplaced(
            "the database holds the states of the Java service: stop that service, make a backup,"
            " then run `receiver store adopt`, which shows first what it will do"
        )
    for ours in (states, receipts, key_uses, store):
        found = _columns(connection, store_url, ours.name)
        if found and found | _LATER != {one.name for one in ours.columns} | _LATER:
            raise StoreMisplaced(
                f"the database holds a table {ours.name} that is not the receiver's:"
                " give the receiver a database, or a schema (search_path), of its own"
            )


def _check_encoding(connection: Connection, store_url: StoreURL) -> None:
    """Raise StoreMisplaced for a PostgreSQL database that cannot keep every character."""
    if store_url.kind == "postgresql":
        encoding = connection.execute(text("show server_encoding")).scalar()
        if encoding not in ("UTF8", "SQL_ASCII"):
            raise StoreMisplaced(
                f"the database is in {encoding}, which lacks characters: make one with encoding 'UTF8'"
            )


def _columns(connection: Connection, store_url: StoreURL, table: str) -> set[str]:
    look = inspect(connection)
    schema = store_url.parameters.get("search_path")
    return {one["name"] for one in look.get_columns(table, schema=schema)} if look.has_table(table, schema) else set()


def upgrade(connection: Connection, store_url: StoreURL) -> None:
    """Run the missing steps in the transaction of ``connection``."""
    from alembic import command  # noqa: PLC0415 - half a second to import, and rarely needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes |= {"connection": connection, "schema": store_url.parameters.get("search_path")}
    with _ALEMBIC:
        command.upgrade(config, "head")


@contextmanager
def _locked(connection: Connection, store_url: StoreURL) -> Iterator[None]:
    """Prevent other receivers from changing the schema meanwhile, where the engine can."""
    take = {
        "postgresql": text("select pg_advisory_xact_lock(:number)").bindparams(number=_LOCK),
        "mysql": text("select get_lock('receiver_schema', 5)"),
    }
    if store_url.kind in take:
        try:
            with connection.begin_nested():
                connection.execute(take[store_url.kind])
        except OperationalError:
            if store_url.kind == "postgresql":
                raise
            store_url = replace(store_url, kind="unlocked")  # Galera has no such locks
        except DBAPIError:  # CockroachDB has none: steps collide there and are tried again
            store_url = replace(store_url, kind="unlocked")
    try:
        yield
    finally:
        if store_url.kind == "mysql":
            with suppress(DBAPIError):
                connection.execute(text("select release_lock('receiver_schema')"))
