"""The login of a server's connections: each is made with the one in force, and replaced when that changes."""

import logging
import time
from collections.abc import Callable

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from receiver.stores.logins import Logins
from receiver.stores.sql.errors import is_refused_login
from receiver.stores.urls.store_url import StoreURL

_TOLD_AGAIN = 60.0  # seconds between two lines that say that a login is refused


def telling(
    connect: Callable[[], DBAPIConnection], store_url: StoreURL, logins: Logins
) -> Callable[[], DBAPIConnection]:
    """Return ``connect``, which then also logs that a login is refused: now and then, as long as that goes on."""
    told_at = -_TOLD_AGAIN

    def connect_and_tell() -> DBAPIConnection:
        nonlocal told_at
        try:
            return connect()
        except Exception as cause:
            if logins.are_watched and is_refused_login(cause) and time.monotonic() - told_at >= _TOLD_AGAIN:
                told_at = time.monotonic()
                logging.getLogger("receiver").error(
                    "%s refuses the login of the user %s: correct the password there or here; a file that holds it"
                    " (DATABASE_PASSWORD_FILE, say) is read again when it changes, and on SIGHUP",
                    store_url,
                    logins.of(store_url).username or "(none)",
                )
            raise

    return connect_and_tell


def note_login(logins: Logins, store_url: StoreURL, _connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """Keep with a new connection which login it was made with."""
    record.info["logins"], record.info["login"] = logins.version, logins.of(store_url)


def check_login(
    logins: Logins,
    store_url: StoreURL,
    _connection: DBAPIConnection,
    record: ConnectionPoolEntry,
    _proxy: PoolProxiedConnection,
) -> None:
    """Have a connection replaced whose user or password is no longer in force."""
    if record.info["logins"] == logins.version:
        return
    if record.info["login"] != logins.of(store_url):
        raise DisconnectionError
    record.info["logins"] = logins.version
