"""What several settings decide together: where to listen, and which stores there are."""

from collections.abc import Mapping
from functools import cached_property

from receiver.secret import Secret
from receiver.settings import parsers
from receiver.settings.tenant_stores import TenantStore
from receiver.stores.urls import store_url
from receiver.stores.urls.store_url import Identity, StoreURL


class Decided:
    """What follows from the settings below; receiver.settings.table declares them."""

    database_url: Secret
    jdbc_database_url: Secret
    database_username: str
    database_password: Secret
    port: int
    bind: str
    region: str
    store_id: str
    sources: Mapping[str, str]
    tenant_stores: Mapping[str, TenantStore]

    @property
    def listen(self) -> str:
        """The address to listen on: STORAGE_BIND, else PORT on all addresses, else the default."""
        if "port" in self.sources and "bind" not in self.sources:
            return parsers.every_address(self.port)
        return self.bind

    @property
    def listen_variable(self) -> str:
        """The variable that set ``listen``, or the one that would."""
        return "PORT" if "port" in self.sources and "bind" not in self.sources else "STORAGE_BIND"

    @property
    def store_url_text(self) -> str:
        """The URL of the store: DATABASE_URL, else JDBC_DATABASE_URL, else the default."""
        return (self.jdbc_database_url if self._jdbc_decides else self.database_url).text

    @property
    def store_url(self) -> StoreURL:
        """Where states are kept, with DATABASE_USERNAME and DATABASE_PASSWORD if the URL names none."""
        return store_url.parse(self.store_url_text).with_credentials(
            self.database_username, self.database_password.text
        )

    @property
    def store_variable(self) -> str:
        """The variable that set ``store_url_text``, or the one that would."""
        return self.sources.get("jdbc_database_url" if self._jdbc_decides else "database_url", "DATABASE_URL")

    @property
    def all_stores(self) -> dict[str | None, TenantStore]:
        """All stores: the common one under None, then those of tenants that have one of their own."""
        common = TenantStore(self.store_variable, self.store_url, self.region, self.store_id)
        found: dict[str | None, TenantStore] = {None: common}
        found.update(self.tenant_stores)
        return found

    @property
    def store_urls(self) -> list[StoreURL]:
        """The URL of each store, once even if several tenants share it."""
        return list({tenant_store.url.identity: tenant_store.url for tenant_store in self.all_stores.values()}.values())

    @cached_property
    def store_ids(self) -> dict[Identity, frozenset[str]]:
        """The ids that the settings name for each store; several for one store are a mistake."""
        found: dict[Identity, frozenset[str]] = {}
        for one in self.all_stores.values():
            if one.store_id:
                key = one.url.identity
                found[key] = found.get(key, frozenset()) | {one.store_id}
        return found

    def store_id_of(self, store_url: StoreURL) -> str:
        """Return the id that the settings name for the store at ``store_url``; "" if they name none."""
        return next(iter(self.store_ids.get(store_url.identity, ())), "")

    @property
    def _jdbc_decides(self) -> bool:
        return "database_url" not in self.sources and bool(self.jdbc_database_url)
