"""MariaDB and MySQL by PyMySQL: TLS as the MySQL shell means it, hosts in their order, and a bound for every wait."""

import functools
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import pymysql
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from receiver.problems import StoreMisplaced
from receiver.stores.deadline import bounded, left, shorter
from receiver.stores.logins import Login
from receiver.stores.urls.store_url import StoreURL


class Bounded(pymysql.connections.Connection):
    """A connection that waits for an answer no longer than the time left for the call."""

    @property
    def _read_timeout(self) -> float:
        return left(self._answer)

    @_read_timeout.setter
    def _read_timeout(self, seconds: float) -> None:
        self._answer = seconds

    def _create_ssl_ctx(self, sslp: Mapping[str, object] | ssl.SSLContext) -> ssl.SSLContext:
        """Return the TLS context; one for all connections where nothing is verified.

        PyMySQL would read all certificates of the system each time, which takes longer than the rest of a connection.
        """
        found: ssl.SSLContext = super()._create_ssl_ctx(sslp) if sslp else _unverified()  # type: ignore[misc]  # not in the stubs
        return found


def connector(store_url: StoreURL, timeout: float, answer: float, login: Callable[[], Login]) -> Callable[[], Bounded]:
    """Return a function that connects to the server at ``store_url`` with the ``login`` then in force.

    ``timeout`` (seconds) bounds the whole call, ``answer`` the wait for each answer.
    """
    each = timeout / 4 / len(store_url.hosts)
    known: dict[str, Any] = {
        "database": store_url.database,
        "charset": "utf8mb4",
        "connect_timeout": shorter(max(1, round(each)), store_url.parameters.get("connect-timeout")),
        "read_timeout": answer + 0.2,
        "write_timeout": answer + 0.2,
    }

    def connect() -> Bounded:
        username, password = login()
        # PyMySQL would encode a text in Latin-1. TLS files are read each time, as by libpq: they may have been renewed.
        ours = known | {"user": username or None, "password": password.text.encode("utf-8")}
        ours |= _tls(store_url.parameters)
        for name, port in store_url.hosts[:-1]:
            try:
                with bounded(each):
                    return Bounded(**ours, **_address(name, port))
            except pymysql.OperationalError:
                continue  # the next host may answer
        with bounded(timeout / 4):
            return Bounded(**ours, **_address(*store_url.hosts[-1]))

    return connect


@functools.cache
def _unverified() -> ssl.SSLContext:
    """Return a context for ssl-mode "preferred": encrypted if the server can, by whatever certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _address(name: str, port: int) -> dict[str, Any]:
    return {"unix_socket": name} if name.startswith("/") else {"host": name, "port": port}


def _tls(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return PyMySQL's arguments for ssl-mode and its companions, with the MySQL shell's meaning.

    Without ssl-mode it is "verify-ca" if ssl-ca is given, else "preferred". Raises StoreMisplaced for unusable files.
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


def prepare(connection: DBAPIConnection, record: ConnectionPoolEntry, answer: float) -> None:
    """Make the session strict and bounded; a Galera node then waits for what other nodes acknowledged."""
    seconds = max(1, round(answer))
    settings = [
        "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE,NO_ZERO_IN_DATE'",
        f"innodb_lock_wait_timeout = {seconds}",
        f"lock_wait_timeout = {seconds}",
    ]
    with closing(connection.cursor()) as cursor:
        cursor.execute("show variables where variable_name in ('wsrep_on', 'max_allowed_packet')")
        found = dict(cursor.fetchall())
        record.info["largest_statement"] = int(found["max_allowed_packet"])
        if found.get("wsrep_on") == "ON":
            settings.append("wsrep_sync_wait = 7")  # reads, updates and deletes, inserts
        cursor.execute("set session " + ", ".join(settings))
