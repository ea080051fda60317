"""PostgreSQL by psycopg: its hosts in their order, and a bound for every wait, since libpq has none for an answer."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.rows import TupleRow
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from receiver.stores.deadline import left, shorter
from receiver.stores.logins import Login
from receiver.stores.urls.store_url import StoreURL

_LIBPQ_WAIT = 2  # seconds; the least time-out for connecting that libpq knows
_KEEPALIVE = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}


class Bounded(psycopg.Connection[TupleRow]):
    """A connection whose waits end after ``answer`` seconds each: libpq alone waits for a frozen server for ever."""

    answer: float  # set as soon as it is connected

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return super().wait(gen, interval, left(timeout or self.answer + 0.2))
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()  # an answer is still due, so the connection is of no use
            raise


def connector(store_url: StoreURL, timeout: float, answer: float, login: Callable[[], Login]) -> Callable[[], Bounded]:
    """Return a function that connects to the server at ``store_url`` with the ``login`` then in force.

    ``timeout`` (seconds) bounds the whole call, ``answer`` the wait for each answer.
    """
    given = _parameters(store_url, timeout, answer)
    mixed = given.pop("load_balance_hosts", "") == "random"

    def connect() -> Bounded:
        hosts = random.sample(store_url.hosts, len(store_url.hosts)) if mixed else list(store_url.hosts)
        username, password = login()
        ours = {"user": username or None, "password": password.text or None, **given}
        # libpq would try them all itself, but not stop at the deadline.
        for name, port in hosts[:-1]:
            try:
                return _connect(name, port, ours, answer)
            except psycopg.OperationalError:
                if left(1.0) < 1.0:
                    raise
        return _connect(*hosts[-1], ours, answer)

    return connect


def _connect(name: str, port: int, parameters: Mapping[str, Any], answer: float) -> Bounded:
    # Without prepared statements, since PgBouncer hands each transaction to another server connection.
    connection = Bounded.connect(prepare_threshold=None, host=name, port=port, **parameters)
    connection.answer = answer
    return connection


def _parameters(store_url: StoreURL, timeout: float, answer: float) -> dict[str, str]:
    """Return libpq's parameters: those of the URL, and the shorter of its waits and ours."""
    given = {"application_name": "receiver", "client_encoding": "UTF8", **_KEEPALIVE}
    if len(store_url.hosts) > 1:
        given["target_session_attrs"] = "read-write"  # a standby must not be taken for the primary
    given |= {name: value for name, value in store_url.parameters.items() if name != "search_path"}
    wait = max(_LIBPQ_WAIT, round(timeout / 4 / len(store_url.hosts)))  # seconds for each host
    given["connect_timeout"] = str(shorter(wait, given.get("connect_timeout")))
    given["tcp_user_timeout"] = str(shorter(round(1000 * answer), given.get("tcp_user_timeout")))
    return given | {"dbname": store_url.database}


def prepare(connection: DBAPIConnection, record: ConnectionPoolEntry, answer: float) -> None:
    """Make the server end statements that take too long, and make sure that a commit is durable.

    A transaction that writes sets both when it begins. Reads need the limit in the session. Behind PgBouncer, which
    reports another process id than the server does, a session is shared: there, only our own bound applies.
    """
    connection.autocommit = True
    limit = f"statement_timeout = {round(1000 * answer)}"
    row = connection.execute("select current_setting('synchronous_commit', true), pg_backend_pid()").fetchone()
    settings = [limit, "synchronous_commit = on"] if row[0] == "off" else [limit]
    if row[1] == connection.info.backend_pid:
        connection.execute(f"set {limit}")
    statements = ["begin isolation level read committed", *(f"set local {setting}" for setting in settings)]
    record.info["begin"] = "; ".join(statements)
