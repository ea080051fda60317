"""The logins of connections: each connects with the login in force, and is replaced when that changes."""

import logging
import time
from collections.abc import Callable

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from receiver.stores.logins import Logins
from receiver.stores.sql.errors import is_refused_login
from receiver.stores.urls.store_url import StoreURL

_LOGGED_AGAIN = 60.0  # seconds between two log lines about a refused login


def logged(
    connect: Callable[[], DBAPIConnection], store_url: StoreURL, logins: Logins
) -> Callable[[], DBAPIConnection]:
    """Return ``connect`` with a log line, repeated from time to time, while its login is refused."""
    logged_at = -_LOGGED_AGAIN

    def connect_and_log() -> DBAPIConnection:
        nonlocal logged_at
        try:
            return connect()
        except Exception as cause:
            if logins.are_watched and is_refused_login(cause) and time.monotonic() - logged_at >= _LOGGED_AGAIN:
                logged_at = time.monotonic()
                logging.getLogger("receiver").error(
                    "%s refuses the login of the user %s: correct the password there or here; a file that holds it"
                    " (DATABASE_PASSWORD_FILE, say) is read again when it changes, and on SIGHUP",
                    store_url,
                    logins.of(store_url).username or "(none)",
                )
            raise

    return connect_and_log


def note_login(logins: Logins, store_url: StoreURL, _connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """Record with a new connection the login that it was made with."""
    record.info["logins"], record.info["login"] = logins.version, logins.of(store_url)


def check_login(
    logins: Logins,
    store_url: StoreURL,
    _connection: DBAPIConnection,
    record: ConnectionPoolEntry,
    _proxy: PoolProxiedConnection,
) -> None:
    """Replace a connection whose user or password is no longer in force."""
    if record.info["logins"] == logins.version:
        return
    if record.info["login"] != logins.of(store_url):
        raise DisconnectionError
    record.info["logins"] = logins.version


def close_former(
    logins: Logins, store_url: StoreURL, connection: DBAPIConnection | None, record: ConnectionPoolEntry
) -> None:
    """Close a connection whose user or password is no longer in force when its work is done.

    Its pool may have been replaced meanwhile, and would keep it open for as long as no garbage collection finds that.
    """
    info = record.info
    if connection is None or info.get("logins") in (None, logins.version):
        return
    if info["login"] != logins.of(store_url):
        record.close()
