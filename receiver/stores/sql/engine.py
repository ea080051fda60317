"""How a database server is reached: drivers, TLS, hosts in their order, and a bound for every wait.

A server that is frozen, or a network that swallows packets, must not hold a thread: each wait ends on this side
(the ``Bounded`` connections) a little after the server was asked to end it by itself, and at the latest when the time
of the whole call is over (``bounded``).
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
from receiver.stores.sql.logging_in import check_login, note_login, telling
from receiver.stores.urls.store_url import StoreURL
from receiver.telemetry import metrics

TRANSACTIONAL = {"isolation_level": "READ COMMITTED"}
_DIALECTS = {
    "postgresql": ("postgresql+psycopg", "psycopg"),
    "mysql": ("mysql+pymysql", "pymysql"),
    "sqlserver": ("mssql+mssqlpython", "mssql_python"),
}
_IDLE = 1.0  # seconds after which a connection is pinged before it is used
_RECYCLE = 1800  # seconds: shorter than the idle time-out of common firewalls and proxies is not needed, since pings
# Makes a connection; and what a new one is told first, in at most so many seconds for each answer.
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
    store_url: StoreURL, timeout: float, connections: int, answer: float | None = None, logins: Logins | None = None
) -> Engine:
    """Return an engine for ``store_url`` with at most ``connections``; nothing is connected yet.

    Each connection is made with the login that ``logins`` hold then, and replaced once that is another one.

    Transactions are begun by ``begin``, or by connections with the options TRANSACTIONAL.
    ``timeout`` (seconds) bounds what a call waits before it gives up: a share for a free connection, one for
    connecting, and ``answer`` seconds, or just under half of it, for each answer. Raises StoreMisplaced.
    """
    check_driver(store_url)
    answer = answer or 0.45 * timeout  # a ping that is not answered, then a login that is not, make a whole
    logins = logins or Logins()
    connect, prepare = _driver(store_url, timeout, answer, partial(logins.of, store_url))
    engine = create_engine(
        URL.create(_DIALECTS[store_url.kind][0]),
        creator=telling(connect, store_url, logins),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout / 5,
        pool_recycle=_RECYCLE,
        pool_use_lifo=True,  # idle connections grow old and are closed rather than all kept busy in turn
        # Where a transaction is begun by a statement of its own, a read needs none, and two round trips less.
        isolation_level="AUTOCOMMIT" if store_url.kind == "postgresql" else "READ COMMITTED",
        hide_parameters=True,  # they hold content, and errors reach the log
        execution_options={
            "schema_translate_map": {None: store_url.parameters.get("search_path")},
            "preserve_rowcount": True,  # of an upsert
        },
    )
    event.listen(engine, "connect", lambda *_: metrics.connected())
    event.listen(engine, "connect", partial(note_login, logins, store_url))
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(check_login, logins, store_url))
    event.listen(engine, "checkout", partial(_ping_unless_used, engine))
    if prepare:  # before SQLAlchemy looks at the session: it would take its quotes from the server's sql_mode
        event.listen(engine, "connect", lambda connection, record: prepare(connection, record, answer), insert=True)
    return engine


def _driver(
    store_url: StoreURL, timeout: float, answer: float, login: Callable[[], Login]
) -> tuple[_Connect, _Prepare | None]:
    """Return what makes a connection and what prepares it; a driver is loaded when its store is opened."""
    # The types ignored: SQLAlchemy's protocol of a connection has a __getattr__ that no driver declares.
    if store_url.kind == "postgresql":
        from receiver.stores.sql import postgresql  # noqa: PLC0415

        return postgresql.connector(store_url, timeout, answer, login), postgresql.prepare  # type: ignore[return-value]
    if store_url.kind == "mysql":
        from receiver.stores.sql import mysql  # noqa: PLC0415

        return mysql.connector(store_url, timeout, answer, login), mysql.prepare  # type: ignore[return-value]
    from receiver.stores.sql import sqlserver  # noqa: PLC0415

    return sqlserver.connector(store_url, timeout, answer, login), None


def begin(connection: Connection) -> None:
    """Begin the transaction that a change is made in, where the driver does not do so by itself."""
    if statement := connection.info.get("begin"):
        connection.exec_driver_sql(statement)


def _note_use(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()


def _ping_unless_used(
    engine: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """Have a connection that has been idle for a while replaced, and all with it, when it does not answer.

    One that was just used is as good as one that was just pinged: what breaks meanwhile is tried again on another.
    """
    if time.monotonic() - record.info.get("used", math.inf) <= _IDLE:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as cause:
        raise InvalidatePoolError(type(cause).__name__) from cause
