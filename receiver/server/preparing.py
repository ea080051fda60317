"""Stores before the first request: each is made ready, or is waited for no longer than a start may take."""

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
_SILENT = 0.5  # seconds that a store may take without a word; one that is there takes less


def prepare_stores(settings: Settings, keyring: Keyring) -> list[TenantStore]:
    """Prepare each store before any worker starts; a place that cannot hold one stops the start.

    One that is only busy or down does not: the service then answers 503 until it is there. Returns those.
    """
    waiting, mistakes = [], []

    def prepare(tenant_store: TenantStore) -> None:
        store = bootstrap.open_store_at(tenant_store.url, settings, keyring)
        try:
            with _said_when_slow(tenant_store, settings.store_timeout):
                store.prepare()
        except StoreMisplaced as cause:
            mistakes.append(f"{tenant_store.variable}: {cause.cause}")
        except Problem as cause:
            waiting.append(tenant_store)
            logs.log.error("the store of %s is not ready, calls get 503 until it is: %s", tenant_store.variable, cause)
        finally:
            store.close()

    with ThreadPoolExecutor(_AT_ONCE) as pool:  # silent ones are waited for together
        list(pool.map(prepare, settings.all_stores.values()))
    if mistakes:
        raise SettingsMistakes(mistakes)
    return sorted(waiting, key=lambda tenant_store: tenant_store.variable)


@contextmanager
def _said_when_slow(tenant_store: TenantStore, most: float) -> Iterator[None]:
    """Log within half a second that ``tenant_store`` is waited for, ``most`` seconds, unless it is ready before."""
    text = "waiting for the store of %s (%s), up to %g seconds"
    timer = threading.Timer(_SILENT, logs.log.warning, (text, tenant_store.variable, tenant_store.url, most))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
