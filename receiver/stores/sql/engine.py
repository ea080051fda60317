"""How a database server is reached: drivers, TLS, hosts in their order, and a bound for every wait.

A server that is frozen, or a network that swallows packets, must not hold a thread: each wait ends on this side
(the ``Bounded`` connections) a little after the server was asked to end it by itself, and at the latest when the time
of the whole call is over (``bounded``).
"""

import importlib
import math
import random
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

from receiver.problems import StoreMisplaced
from receiver.stores.deadline import bounded, left
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
_LIBPQ_WAIT = 2  # seconds that it takes at least to give up connecting
_IDLE = 1.0  # seconds after which a connection is pinged before it is used
_RECYCLE = 1800  # seconds: shorter than the idle time-out of common firewalls and proxies is not needed, since pings
_KEEPALIVE = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}


def driver_of(place: StoreURL) -> Any:
    """Return the driver's module for ``place``; raises StoreMisplaced, with the command that installs it."""
    name = _DIALECTS[place.kind][1]
    try:
        return importlib.import_module(name)
    except ImportError as cause:
        raise StoreMisplaced(
            f"the driver {name} is not installed: pip install 'external-storage-receiver[{place.kind}]'"
        ) from cause


def make_engine(
    place: StoreURL, timeout: float, connections: int, answer: float | None = None, logins: Logins | None = None
) -> Engine:
    """Return an engine for ``place`` with at most ``connections``; nothing is connected yet.

    Each connection is made with the login that ``logins`` hold then, and replaced once that is another one.

    Transactions are begun by ``begin``, or by connections with the options TRANSACTIONAL.
    ``timeout`` (seconds) bounds what a call waits before it gives up: a share for a free connection, one for
    connecting, and ``answer`` seconds, or just under half of it, for each answer. Raises StoreMisplaced.
    """
    driver = driver_of(place)
    answer = answer or 0.45 * timeout  # a ping that is not answered, then a login that is not, make a whole
    logins = logins or Logins()
    connect = _CREATORS[place.kind](driver, place, timeout, answer, partial(logins.of, place))
    engine = create_engine(
        URL.create(_DIALECTS[place.kind][0]),
        creator=telling(connect, place, logins),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout / 5,
        pool_recycle=_RECYCLE,
        pool_use_lifo=True,  # idle connections grow old and are closed rather than all kept busy in turn
        # Where a transaction is begun by a statement of its own, a read needs none, and two round trips less.
        isolation_level="AUTOCOMMIT" if place.kind == "postgresql" else "READ COMMITTED",
        hide_parameters=True,  # they hold content, and errors reach the log
        execution_options={
            "schema_translate_map": {None: place.parameters.get("search_path")},
            "preserve_rowcount": True,  # of an upsert
        },
    )
    event.listen(engine, "connect", lambda *_: metrics.connected())
    event.listen(engine, "connect", partial(note_login, logins, place))
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(check_login, logins, place))
    event.listen(engine, "checkout", partial(_ping_unless_used, engine))
    prepare = {"postgresql": _prepare_postgresql, "mysql": _prepare_mysql}.get(place.kind)
    if prepare:  # before SQLAlchemy looks at the session: it would take its quotes from the server's sql_mode
        event.listen(engine, "connect", partial(prepare, answer=answer), insert=True)
    return engine


def begin(connection: Connection) -> None:
    """Begin the transaction that a change is made in, where the driver does not do so by itself."""
    if statement := connection.info.get("begin"):
        connection.exec_driver_sql(statement)


def _note_use(_connection, record) -> None:
    record.info["used"] = time.monotonic()


def _ping_unless_used(engine: Engine, connection, record, _proxy) -> None:
    """Have a connection that has been idle for a while replaced, and all with it, when it does not answer.

    One that was just used is as good as one that was just pinged: what breaks meanwhile is tried again on another.
    """
    if time.monotonic() - record.info.get("used", math.inf) <= _IDLE:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as cause:
        raise InvalidatePoolError(type(cause).__name__) from cause


def _postgresql(psycopg, place: StoreURL, timeout: float, answer: float, login: Callable[[], Login]):
    class Bounded(psycopg.Connection):
        """A connection whose waits end: libpq alone waits for a frozen server for ever."""

        def wait(self, gen, interval=0.1, timeout=None):
            try:
                return super().wait(gen, interval, left(timeout or answer + 0.2))
            except psycopg.OperationalError:
                if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                    self.pgconn.finish()  # an answer is still due: nothing else can be asked on it
                raise

    given = {"application_name": "receiver", "client_encoding": "UTF8", **_KEEPALIVE}
    if len(place.hosts) > 1:
        given["target_session_attrs"] = "read-write"  # a standby among them must not be taken for the primary
    given |= {name: value for name, value in place.parameters.items() if name != "search_path"}
    wait = max(_LIBPQ_WAIT, round(timeout / 4 / len(place.hosts)))  # seconds for each host
    given["connect_timeout"] = str(_least(wait, given.get("connect_timeout")))
    given["tcp_user_timeout"] = str(_least(round(1000 * answer), given.get("tcp_user_timeout")))
    given["dbname"] = place.database
    given["prepare_threshold"] = None  # PgBouncer hands each transaction to another server connection
    mixed = given.pop("load_balance_hosts", "") == "random"

    def connect():
        hosts = random.sample(place.hosts, len(place.hosts)) if mixed else place.hosts
        username, password = login()
        ours = {"user": username or None, "password": password.text or None, **given}
        # libpq would try them all itself, but not stop when the time is over.
        for name, port in hosts[:-1]:
            try:
                return Bounded.connect(host=name, port=port, **ours)
            except psycopg.OperationalError:
                if left(1.0) < 1.0:
                    raise
        return Bounded.connect(host=hosts[-1][0], port=hosts[-1][1], **ours)

    return connect


def _least(ours: int, theirs: str | None) -> int:
    """Return the shorter wait: STORAGE_STORE_TIMEOUT bounds all; 0 would be none at all."""
    return min(ours, int(theirs or 0) or ours)


def _prepare_postgresql(connection, record, answer: float) -> None:
    """Ask the server to end a statement by itself, and make sure that a commit is durable.

    A transaction that writes sets this for itself, as it begins. Reads need it of the session, but behind
    PgBouncer, which tells another process id than the server's, a session is everybody's: there our own bound is all.
    """
    connection.autocommit = True
    limit = f"statement_timeout = {round(1000 * answer)}"
    row = connection.execute("select current_setting('synchronous_commit', true), pg_backend_pid()").fetchone()
    settings = [limit, "synchronous_commit = on"] if row[0] == "off" else [limit]
    if row[1] == connection.info.backend_pid:
        connection.execute(f"set {limit}")
    statements = ["begin isolation level read committed", *(f"set local {setting}" for setting in settings)]
    record.info["begin"] = "; ".join(statements)


def _mysql(pymysql, place: StoreURL, timeout: float, answer: float, login: Callable[[], Login]):
    parameters = place.parameters
    known = {
        "database": place.database,
        "charset": "utf8mb4",
        "connect_timeout": _least(max(1, round(timeout / 4 / len(place.hosts))), parameters.get("connect-timeout")),
        "read_timeout": answer + 0.2,
        "write_timeout": answer + 0.2,
    }

    class Bounded(pymysql.connections.Connection):
        """A connection that waits for no answer longer than the call that asked for it may last."""

        @property
        def _read_timeout(self):
            return left(self._answer)

        @_read_timeout.setter
        def _read_timeout(self, seconds):
            self._answer = seconds

    def connect():
        username, password = login()
        # PyMySQL would make Latin-1 of a text. The files of TLS may have been renewed: libpq reads them each time, too.
        ours = {"user": username or None, "password": password.text.encode("utf-8"), **_mysql_tls(parameters)}
        for name, port in place.hosts[:-1]:
            try:
                with bounded(timeout / 4 / len(place.hosts)):
                    return Bounded(**known, **ours, **_mysql_host(name, port))
            except pymysql.OperationalError:
                continue  # the next one may be there
        with bounded(timeout / 4):
            return Bounded(**known, **ours, **_mysql_host(*place.hosts[-1]))

    return connect


def _mysql_host(name: str, port: int) -> dict[str, Any]:
    return {"unix_socket": name} if name.startswith("/") else {"host": name, "port": port}


def _mysql_tls(parameters) -> dict[str, Any]:
    """Return PyMySQL's arguments for ssl-mode and its companions, as the MySQL shell means them.

    Without ssl-mode it is "preferred", and with ssl-ca it verifies. Raises StoreMisplaced for unusable files.
    """
    mode = parameters.get("ssl-mode") or ("verify-ca" if "ssl-ca" in parameters else "preferred")
    if mode == "disabled":
        return {"ssl_disabled": True}
    if mode == "preferred" and "ssl-cert" not in parameters:
        return {}
    try:
        context = ssl.create_default_context(cafile=parameters.get("ssl-ca"))
        if "ssl-cert" in parameters:
            context.load_cert_chain(parameters["ssl-cert"], parameters.get("ssl-key"))
    except (OSError, ssl.SSLError) as cause:
        raise StoreMisplaced(f"ssl-ca, ssl-cert or ssl-key cannot be read: {type(cause).__name__}") from cause
    context.check_hostname = mode == "verify-identity"
    if mode in ("preferred", "required"):
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def _prepare_mysql(connection, record, answer: float) -> None:
    """Make the session strict, bounded, and on a Galera node wait until it has what other nodes acknowledged."""
    seconds = max(1, round(answer))
    settings = [
        "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE,NO_ZERO_IN_DATE'",
        f"innodb_lock_wait_timeout = {seconds}",
        f"lock_wait_timeout = {seconds}",
    ]
    with connection.cursor() as cursor:
        cursor.execute("show variables where variable_name in ('wsrep_on', 'max_allowed_packet')")
        found = dict(cursor.fetchall())
        record.info["largest_statement"] = int(found["max_allowed_packet"])
        if found.get("wsrep_on") == "ON":
            settings.append("wsrep_sync_wait = 7")  # reads, updates and deletes, inserts
        cursor.execute("set session " + ", ".join(settings))


def _sqlserver(mssql_python, place: StoreURL, _timeout: float, answer: float, login: Callable[[], Login]):
    parameters = place.parameters
    words = {
        "SERVER": ",".join(str(part) for part in place.hosts[0]),
        "DATABASE": place.database,
        "Encrypt": parameters.get("encrypt", "yes"),
        "TrustServerCertificate": parameters.get("trust-server-certificate", "no"),
        "HostNameInCertificate": parameters.get("host-name-in-certificate", ""),
        "MultiSubnetFailover": parameters.get("multi-subnet-failover", ""),
        "ApplicationIntent": parameters.get("application-intent", ""),
    }

    def connect():
        username, password = login()
        ours = words | {"UID": username, "PWD": password.text}
        text = ";".join(f"{name}={{{value.replace('}', '}}')}}}" for name, value in ours.items() if value)
        return mssql_python.connect(text, timeout=max(1, round(answer)))

    return connect


_CREATORS = {"postgresql": _postgresql, "mysql": _mysql, "sqlserver": _sqlserver}
