"""The stores: ``contract.py`` says what each must do; ``sqlite/``, ``filesystem/`` and ``sql/`` do it.

``sealed.py``, ``guarded.py`` and ``by_tenant.py`` wrap them; ``urls/`` reads the URL that names a store.
"""

from receiver.stores.contract import Store
from receiver.stores.logins import Logins
from receiver.stores.urls.store_url import StoreURL, parse


def open_store(
    url: str | StoreURL, timeout: float, create: bool = True, connections: int = 8, logins: Logins | None = None,
    store_id: str = "",
) -> Store:  # fmt: skip
    """Return the store at ``url``; it touches nothing before its first use.

    ``timeout`` (seconds) bounds how long a store may take to answer, or stay locked, before it is StoreUnavailable.
    Without ``create``, a store that does not exist counts as an outage. ``connections`` is the most that this process
    holds to a database server. ``logins`` replace user and password of ``url``. ``store_id`` is the id of the only
    store that is accepted there; any, if empty. Raises ValueError for a text that is no store's URL, StoreMisplaced
    when the driver is not installed.
    """
    store_url = parse(url) if isinstance(url, str) else url
    # A driver is imported when its store is opened: most installations have only one.
    if store_url.kind == "sqlite":
        from receiver.stores.sqlite import SqliteStore  # noqa: PLC0415

        return SqliteStore(store_url.path, timeout, create, store_id)
    if store_url.kind == "file":
        from receiver.stores.filesystem import FilesystemStore  # noqa: PLC0415

        return FilesystemStore(store_url.path, timeout, create, store_id)
    from receiver.stores.sql import SqlStore  # noqa: PLC0415

    return SqlStore(store_url, timeout, create, connections, logins, store_id)
