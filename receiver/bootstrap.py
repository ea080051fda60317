"""Settings, keys and stores from the environment, for the application and for every command. Imports no Flask."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from receiver import stores
from receiver.keys import keyring
from receiver.keys.keyring import Keyring
from receiver.network import tls
from receiver.problems import StoreMisplaced
from receiver.settings import Settings, SettingsMistakes
from receiver.settings import read as read_settings
from receiver.stores.by_tenant import ByTenantStore
from receiver.stores.contract import Store
from receiver.stores.guarded import Guarded, slots_for
from receiver.stores.logins import Logins
from receiver.stores.sealed import Sealed
from receiver.stores.urls.store_url import StoreURL
from receiver.telemetry import logs


def configure() -> tuple[Settings, Keyring]:
    """Return settings and keys from the process's environment.

    Raises SettingsMistakes with every mistake in either, and in the locations that they name for stores.
    """
    settings, ring, mistakes = _configured()
    _stop_at(mistakes + _misplaced(settings))
    return settings, ring


def configure_anew(trial: Path | None) -> tuple[Settings, Keyring]:
    """Return the same for a reload: does not check the stores, which are in use, and adds the keys in ``trial``."""
    settings, ring, mistakes = _configured(trial)
    _stop_at(mistakes)
    return settings, ring


def _configured(trial: Path | None = None) -> tuple[Settings, Keyring, list[str]]:
    settings, mistakes = read_settings(os.environ)
    ring, key_mistakes = keyring.load(settings, trial)
    return settings, ring, mistakes + key_mistakes + tls.load(settings)[1]


def configure_stores(check_places: bool = True) -> Settings:
    """Return the settings of the process's environment for work that needs stores but no keys.

    Without ``check_places`` a store may be missing, or another one than the right one.
    """
    settings, mistakes = read_settings(os.environ)
    _stop_at(mistakes + (_misplaced(settings) if check_places else []))
    logs.warn(settings.warnings)
    return settings


def configure_contents() -> tuple[Settings, Keyring]:
    """Return the settings of the process's environment and its sealing keys, for work on contents."""
    settings = configure_stores()
    ring, mistakes = keyring.load_sealing(settings)
    _stop_at(mistakes)
    return settings, ring


def _misplaced(settings: Settings) -> list[str]:
    mistakes = []
    for tenant_store in settings.all_stores.values():
        try:
            url = tenant_store.url
            stores.open_store(url, settings.store_timeout, store_id=settings.store_id_of(url)).check_location()
        except StoreMisplaced as fault:
            mistakes.append(tenant_store.mistake(fault.cause))
    return mistakes


def _stop_at(mistakes: list[str]) -> None:
    if mistakes:
        raise SettingsMistakes(mistakes)


def open_store_at(
    store_url: StoreURL,
    settings: Settings,
    ring: Keyring,
    create: bool = True,
    logins: Logins | None = None,
    guard: Callable[[Store], Store] = lambda store: store,
) -> Sealed:
    """Return the store at ``store_url``, which seals contents as ``settings`` and ``ring`` say.

    Without ``create`` the store must exist: it was prepared before, and its keys were checked then. ``logins`` are the
    changing ones of database servers. ``guard`` wraps the inner store, which gets sealed contents.
    """
    store_id = settings.store_id_of(store_url)
    inner = stores.open_store(store_url, settings.store_timeout, create, settings.pool_size, logins, store_id)
    return Sealed(guard(inner), lambda: ring.sealing, settings.clear_states, strict=create)


def open_tenant_stores(
    settings: Settings,
    ring: Keyring,
    may_create: Callable[[StoreURL], bool] = lambda _place: True,
    logins: Logins | None = None,
    guarded: bool = False,
) -> dict[str | None, Sealed]:
    """Return the stores in ``settings`` by tenant, the common one under None; tenants with one URL share one store.

    The sealing keys are those of ``ring``; ``may_create`` decides which missing stores may be made. ``guarded`` stores
    are for the platform's calls: one that hangs delays no other.
    """
    opened: dict[object, Sealed] = {}
    slots = slots_for(len(settings.store_urls), settings.threads)

    def guard(store_url: StoreURL) -> Callable[[Store], Store]:
        name = f"the store {store_url}"
        blocks, on_disk = store_url.kind == "file", bool(store_url.path)
        return lambda store: Guarded(store, name, settings.store_timeout, slots, blocks, on_disk)

    def once(store_url: StoreURL) -> Sealed:
        if store_url.identity not in opened:
            more = {"guard": guard(store_url)} if guarded else {}
            opened[store_url.identity] = open_store_at(store_url, settings, ring, may_create(store_url), logins, **more)
        return opened[store_url.identity]

    return {tenant: once(tenant_store.url) for tenant, tenant_store in settings.all_stores.items()}


def as_one(tenant_stores: Mapping[str | None, Store]) -> Store:
    """Return the stores of ``open_tenant_stores`` as one store, which picks the right one for each tenant."""
    own = {tenant: store for tenant, store in tenant_stores.items() if tenant is not None}
    return ByTenantStore(tenant_stores[None], own) if own else tenant_stores[None]


def open_configured(
    settings: Settings,
    ring: Keyring,
    may_create: Callable[[StoreURL], bool] = lambda _place: True,
    logins: Logins | None = None,
    guarded: bool = False,
) -> Store:
    """Return the stores of ``open_tenant_stores`` as one store."""
    return as_one(open_tenant_stores(settings, ring, may_create, logins, guarded))
