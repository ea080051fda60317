"""Which store a database server holds: its row in the table ``receiver_store``.

With STORAGE_STORE_ID, each new connection looks first: a server that was emptied, restored into another database or
replaced by another one serves nothing.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from sqlalchemy import Connection, Engine, inspect, select, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from receiver.problems import StoreMisplaced
from receiver.stores.deadline import bounded
from receiver.stores.identity import Expected
from receiver.stores.logins import Logins
from receiver.stores.marker import Mark
from receiver.stores.sql import errors, upgrade
from receiver.stores.sql.engine import TRANSACTIONAL, make_engine
from receiver.stores.sql.schema import STORE, states, store
from receiver.stores.urls.store_url import StoreURL

_MISSING = {"42P01", "3F000", "1146", "208", "42S02"}  # there is no such table
FIND_ID = select(store.c.id)
_ANY_STATE = select(states.c.id).limit(1)


def mark_of(connection: Connection) -> Mark:
    """Return the mark of the store that ``connection`` leads to."""
    row = connection.execute(select(store.c.id, store.c.generation, store.c.token)).one()
    return Mark(str(row.id), row.generation, row.token)


def _renew(connection: Connection, id: str) -> Mark:
    """Note that the store was made, or accepted, with ``id`` or its own; return its new mark."""
    before = mark_of(connection)
    mark = Mark(id or before.store, before.generation + 1, secrets.token_hex(8))
    connection.execute(update(store).values(id=mark.store, generation=mark.generation, token=mark.token))
    return mark


def init(store_url: StoreURL, timeout: float, logins: Logins, id: str) -> Mark:
    """Make a new store at ``store_url``, with ``id`` or a random one (Store.init)."""
    with _at(store_url, timeout, logins) as engine:
        with engine.connect() as connection:
            if upgrade.revision_of(connection, store_url) is not None:
                found = str(connection.execute(FIND_ID).scalar()) if _has_id(connection, store_url) else ""
                what = f"the store {found}" if found else "a store"
                raise StoreMisplaced(f"{store_url}: holds {what}: name another database, or drop its tables first")
        upgrade.prepare(engine, store_url, 0.8 * timeout, create=True)
        with engine.begin() as connection:
            return _renew(connection, id)


def accept(store_url: StoreURL, timeout: float, logins: Logins) -> Mark:
    """Take the store at ``store_url`` as the one that belongs there (Store.accept)."""
    with _at(store_url, timeout, logins) as engine:
        upgrade.prepare(engine, store_url, 0.8 * timeout, create=False)
        with engine.begin() as connection:
            return _renew(connection, "")


@contextmanager
def _at(store_url: StoreURL, timeout: float, logins: Logins) -> Iterator[Engine]:
    """Yield an engine that asks for no id."""
    engine = make_engine(store_url, timeout, 1, logins=logins)
    try:
        with errors.driver_errors(), bounded(timeout):
            yield engine.execution_options(**TRANSACTIONAL)
    finally:
        engine.dispose()


def _has_id(connection: Connection, store_url: StoreURL) -> bool:
    return inspect(connection).has_table(STORE, schema=store_url.parameters.get("search_path"))


def look(connection: Connection, expected: Expected) -> None:
    """Look at the states; raise StoreMisplaced when the store that ``connection`` leads to is not the ``expected`` one.

    A proxy may lead a connection that was right to another server.
    """
    connection.execute(_ANY_STATE).first()
    if expected.pinned:
        row = connection.execute(FIND_ID).first()
        _compare(expected, str(row.id) if row else "")


def checker(store_url: StoreURL, expected: Expected) -> Callable[[DBAPIConnection, ConnectionPoolEntry], None]:
    """Return a listener that checks the id for a new connection of the driver, before anything else uses it."""
    schema = store_url.parameters.get("search_path")
    statement = f"select id from {f'{schema}.' if schema else ''}{STORE}"  # noqa: S608 - names of ours, and a checked one

    def check(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        try:
            with closing(connection.cursor()) as cursor:
                cursor.execute(statement)
                row = cursor.fetchone()
            connection.rollback()  # else its first work would see the database as of now
            _compare(expected, str(row[0]) if row else "")
        except StoreMisplaced:
            connection.close()
            raise
        except Exception as error:
            connection.close()
            if errors.code_of_driver(error) not in _MISSING:
                raise
            _compare(expected, "")

    return check


def _compare(expected: Expected, found: str) -> None:
    if found:
        expected.check(lambda: found)
        return
    raise StoreMisplaced(
        f"{expected.place}: holds no store with an id, but STORAGE_STORE_ID names {expected.pinned}: correct the URL,"
        " or restore a backup; if it is a store of an older version, start once without that setting, which gives it an"
        " id; if what it held is lost, or for a first start, `receiver store init` makes a new store"
    )
