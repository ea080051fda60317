"""The stores: ``contract.py`` is what each must do, ``sqlite/``, ``filesystem/`` and ``sql/`` do it.

``sealed.py``, ``guarded.py`` and ``by_tenant.py`` stand around them; ``urls/`` says which store is meant.
"""

from receiver.stores.contract import Store
from receiver.stores.logins import Logins
from receiver.stores.urls.store_url import StoreURL, parse


def open_store(
    url: str | StoreURL, timeout: float, create: bool = True, connections: int = 8, logins: Logins | None = None
) -> Store:
    """Return the store at ``url``; nothing is touched before its first use.

    ``timeout`` is in seconds: a store that does not answer, or stays locked, for longer is StoreUnavailable.
    Unless ``create``, a store that does not exist is an outage. ``connections`` is the most that this process
    holds to a database server; ``logins`` are in the place of user and password in ``url``. Raises ValueError for what
    no URL can be, StoreMisplaced when the driver that it needs is not installed.
    """
    store_url = parse(url) if isinstance(url, str) else url
    # A driver is loaded when its store is opened: most installations have one.
    if store_url.kind == "sqlite":
        from receiver.stores.sqlite import SqliteStore  # noqa: PLC0415

        return SqliteStore(store_url.path, timeout, create)
    if store_url.kind == "file":
        from receiver.stores.filesystem import FilesystemStore  # noqa: PLC0415

        return FilesystemStore(store_url.path, timeout, create)
    from receiver.stores.sql import SqlStore  # noqa: PLC0415

    return SqlStore(store_url, timeout, create, connections, logins)
