"""Prepares the stores before the first request, and waits for each no longer than a start may take."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from receiver import bootstrap
from receiver.keys.keyring import Keyring
from receiver.problems import Problem, StoreMisplaced
from receiver.settings import Settings, SettingsMistakes, TenantStore
from receiver.telemetry import logs

_AT_ONCE = 16
_SILENT = 0.5  # seconds before a wait is logged; a store that answers takes less


def prepare_stores(settings: Settings, keyring: Keyring) -> list[TenantStore]:
    """Prepare each store before any worker starts; return the stores that are busy or down.

    Their requests get 503 until they answer. Raises SettingsMistakes for a place that cannot hold a store.
    """
    waiting: list[TenantStore] = []
    mistakes: list[str] = []

    def prepare(tenant_store: TenantStore) -> None:
        store = bootstrap.open_store_at(tenant_store.url, settings, keyring)
        try:
            with _logged_when_slow(tenant_store, settings.store_timeout):
                store.prepare()
        except StoreMisplaced as cause:
            mistakes.append(tenant_store.mistake(cause.cause))
        except Problem as cause:
            waiting.append(tenant_store)
            logs.log.error("the store of %s is not ready, calls get 503 until it is: %s", tenant_store.variable, cause)
        finally:
            store.close()

    with ThreadPoolExecutor(_AT_ONCE) as pool:  # so that the waits for silent stores overlap
        list(pool.map(prepare, settings.all_stores.values()))
    if mistakes:
        raise SettingsMistakes(mistakes)
    return sorted(waiting, key=lambda tenant_store: tenant_store.variable)


@contextmanager
def _logged_when_slow(tenant_store: TenantStore, most: float) -> Iterator[None]:
    """Log after half a second that the start waits for ``tenant_store``, up to ``most`` seconds."""
    text = "waiting for the store of %s (%s), up to %g seconds"
    timer = threading.Timer(_SILENT, logs.log.warning, (text, tenant_store.variable, tenant_store.url, most))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
