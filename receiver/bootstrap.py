"""Settings, keys and stores from the environment, for the application and for every command. No Flask in here."""

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

    Raises SettingsMistakes with every mistake in either, and in the places that they name for stores.
    """
    settings, ring, mistakes = _configured()
    _stop_at(mistakes + _misplaced(settings))
    return settings, ring


def configure_anew(trial: Path | None) -> tuple[Settings, Keyring]:
    """Return the same once more, whatever has become of the stores that are in use by now; and keys in ``trial``."""
    settings, ring, mistakes = _configured(trial)
    _stop_at(mistakes)
    return settings, ring


def _configured(trial: Path | None = None) -> tuple[Settings, Keyring, list[str]]:
    settings, mistakes = read_settings(os.environ)
    ring, key_mistakes = keyring.load(settings, trial)
    return settings, ring, mistakes + key_mistakes + tls.load(settings)[1]


def configure_stores() -> Settings:
    """Return the settings of the process's environment for work on stores alone, which needs no key."""
    settings, mistakes = read_settings(os.environ)
    _stop_at(mistakes + _misplaced(settings))
    logs.warn(settings.warnings)
    return settings


def configure_contents() -> tuple[Settings, Keyring]:
    """Return the settings of the process's environment and its sealing keys, for work on what states hold."""
    settings = configure_stores()
    ring, mistakes = keyring.load_sealing(settings)
    _stop_at(mistakes)
    return settings, ring


def _misplaced(settings: Settings) -> list[str]:
    mistakes = []
    for resident in settings.residents.values():
        try:
            stores.open_store(resident.place, settings.store_timeout).check_place()
        except StoreMisplaced as fault:
            mistakes.append(f"{resident.variable}: {fault.cause}")
    return mistakes


def _stop_at(mistakes: list[str]) -> None:
    if mistakes:
        raise SettingsMistakes(mistakes)


def open_place(
    place: StoreURL,
    settings: Settings,
    ring: Keyring,
    create: bool = True,
    logins: Logins | None = None,
    guard: Callable[[Store], Store] = lambda store: store,
) -> Sealed:
    """Return the store at ``place``, its contents sealed as ``settings`` and ``ring`` say.

    Where it may not be made (``create``), it was prepared before, and the keys were found to fit. ``logins`` are those
    of database servers, as they change; ``guard`` wraps what is sealed.
    """
    inner = stores.open_store(place, settings.store_timeout, create, settings.pool_size, logins)
    return Sealed(guard(inner), ring, settings.clear_states, strict=create)


def open_residents(
    settings: Settings,
    ring: Keyring,
    may_create: Callable[[StoreURL], bool] = lambda _place: True,
    logins: Logins | None = None,
    guarded: bool = False,
) -> dict[str | None, Sealed]:
    """Return the stores that ``settings`` name by tenant, that of the rest under None; one for each place.

    The sealing keys are those of ``ring``; ``may_create`` tells which stores may be made where they are missing.
    ``guarded`` ones are for the calls of the platform: one that hangs holds up no other.
    """
    opened: dict[tuple, Sealed] = {}
    slots = slots_for(len(settings.places), settings.threads)

    def guard(place: StoreURL) -> Callable[[Store], Store]:
        name = f"the store {place}"
        return lambda store: Guarded(store, name, settings.store_timeout, slots, place.kind == "file")

    def once(place: StoreURL) -> Sealed:
        if place.identity not in opened:
            more = {"guard": guard(place)} if guarded else {}
            opened[place.identity] = open_place(place, settings, ring, may_create(place), logins, **more)
        return opened[place.identity]

    return {tenant: once(resident.place) for tenant, resident in settings.residents.items()}


def as_one(residents: Mapping[str | None, Store]) -> Store:
    """Return the stores of ``open_residents`` as one, which knows the tenants that have one of their own."""
    own = {tenant: store for tenant, store in residents.items() if tenant is not None}
    return ByTenantStore(residents[None], own) if own else residents[None]


def open_configured(
    settings: Settings,
    ring: Keyring,
    may_create: Callable[[StoreURL], bool] = lambda _place: True,
    logins: Logins | None = None,
    guarded: bool = False,
) -> Store:
    """Return the stores of ``open_residents`` as one."""
    return as_one(open_residents(settings, ring, may_create, logins, guarded))
