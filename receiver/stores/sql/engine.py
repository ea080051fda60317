"""Engines for database servers: drivers, connection pools, and a bound for every wait.

A frozen server, or a network that swallows packets, must not hold a thread. So each wait ends on this side (the
``Bounded`` connections) a little after the time at which the server was asked to end it, and at the latest when the
time of the whole call is over (``bounded``).
"""

import importlib
import math
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from receiver.problems import StoreMisplaced
from receiver.stores.logins import Login, Logins
from receiver.stores.sql.logging_in import check_login, close_former, logged, note_login
from receiver.stores.urls.store_url import StoreURL
from receiver.telemetry import metrics

TRANSACTIONAL = {"isolation_level": "READ COMMITTED"}
_DIALECTS = {
    "postgresql": ("postgresql+psycopg", "psycopg"),
    "mysql": ("mysql+pymysql", "pymysql"),
    "sqlserver": ("mssql+mssqlpython", "mssql_python"),
}
_IDLE = 1.0  # seconds after which an idle connection is pinged before use
_RECYCLE = 1800  # seconds; it may exceed the idle time-out of firewalls and proxies, since idle connections are pinged
# Makes a connection; prepares a new one, with at most so many seconds for each answer.
_Connect = Callable[[], DBAPIConnection]
_Prepare = Callable[[DBAPIConnection, ConnectionPoolEntry, float], None]


def check_driver(store_url: StoreURL) -> None:
    """Raise StoreMisplaced, with the command that installs it, when the driver for ``store_url`` is missing."""
    name = _DIALECTS[store_url.kind][1]
    try:
        importlib.import_module(name)
    except ImportError as cause:
        raise StoreMisplaced(
            f"the driver {name} is not installed: pip install 'external-storage-receiver[{store_url.kind}]'"
        ) from cause


def make_engine(
    store_url: StoreURL, timeout: float, connections: int, answer: float | None = None, logins: Logins | None = None,
    check: Callable[[DBAPIConnection, ConnectionPoolEntry], None] | None = None,
) -> Engine:  # fmt: skip
    """Return an engine for ``store_url`` with at most ``connections``; it does not connect yet.

    Each connection is made with the login that ``logins`` then hold, and replaced when that login changes.

    Transactions are begun by ``begin``, or by connections with the options TRANSACTIONAL.
    ``timeout`` (seconds) bounds how long a call waits: a share for a free connection, one for connecting, and
    ``answer`` seconds, by default just under half of it, for each answer. ``check`` gets each new connection first.
    Raises StoreMisplaced.
    """
    check_driver(store_url)
    answer = answer or 0.45 * timeout  # a ping and then a login without answer fit into the time-out
    logins = logins or Logins()
    connect, prepare = _driver(store_url, timeout, answer, partial(logins.of, store_url))
    engine = create_engine(
        URL.create(_DIALECTS[store_url.kind][0]),
        creator=logged(connect, store_url, logins),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout / 5,
        pool_recycle=_RECYCLE,
        pool_use_lifo=True,  # so that surplus connections grow idle and are closed
        # With transactions begun by an explicit statement, a read needs none, which saves two round trips.
        isolation_level="AUTOCOMMIT" if store_url.kind == "postgresql" else "READ COMMITTED",
        hide_parameters=True,  # they hold content, and errors reach the log
        execution_options={
            "schema_translate_map": {None: store_url.parameters.get("search_path")},
            "preserve_rowcount": True,  # of an upsert
        },
    )
    _listen(engine, store_url, logins)
    if check:
        event.listen(engine, "connect", check, insert=True)
    if prepare:  # before SQLAlchemy looks at the session, whose quotes depend on the server's sql_mode
        event.listen(engine, "connect", lambda connection, record: prepare(connection, record, answer), insert=True)
    return engine


def _listen(engine: Engine, store_url: StoreURL, logins: Logins) -> None:
    """Note the connections of ``engine``, and replace those with a former login and those that no longer answer."""
    event.listen(engine, "connect", lambda *_: metrics.connected())
    event.listen(engine, "connect", partial(note_login, logins, store_url))
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkin", partial(close_former, logins, store_url))
    event.listen(engine, "checkout", partial(check_login, logins, store_url))
    event.listen(engine, "checkout", partial(_ping_unless_used, engine))


def _driver(
    store_url: StoreURL, timeout: float, answer: float, login: Callable[[], Login]
) -> tuple[_Connect, _Prepare | None]:
    """Return the functions that make and prepare a connection; a driver is imported when its store is opened."""
    if store_url.kind == "postgresql":
        from receiver.stores.sql import postgresql  # noqa: PLC0415

        psycopg = postgresql.connector(store_url, timeout, answer, login)
        return psycopg, postgresql.prepare  # type: ignore[return-value]  # drivers declare no __getattr__
    if store_url.kind == "mysql":
        from receiver.stores.sql import mysql  # noqa: PLC0415

        pymysql = mysql.connector(store_url, timeout, answer, login)
        return pymysql, mysql.prepare  # type: ignore[return-value]  # drivers declare no __getattr__
    from receiver.stores.sql import sqlserver  # noqa: PLC0415

    return sqlserver.connector(store_url, timeout, answer, login), None


def begin(connection: Connection) -> None:
    """Begin the transaction of a change, where the driver does not do so itself."""
    if statement := connection.info.get("begin"):
        connection.exec_driver_sql(statement)


def _note_use(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()


def _ping_unless_used(
    engine: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """Replace a connection that has been idle for a while, and all others, when it does not answer.

    One that was just used needs no ping: if it breaks, the work is tried again on another.
    """
    if time.monotonic() - record.info.get("used", math.inf) <= _IDLE:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as cause:
        raise InvalidatePoolError(type(cause).__name__) from cause
