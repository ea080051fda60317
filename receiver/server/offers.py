"""What a reload is offered, and whether a start on the same would be refused by a store.

Sealing keys are judged by what the stores' contents need, logins by the servers. A store that does not answer stands
against other sealing keys only where they may not fit it; it never stands against a login, as at a start.
"""

import contextlib
import dataclasses
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from receiver import bootstrap
from receiver.keys.keyring import Keyring
from receiver.network import tls
from receiver.problems import Problem, StoreMisplaced
from receiver.sealing import SealingKeys
from receiver.settings import Settings, SettingsMistakes, TenantStore
from receiver.stores.logins import Logins, login_of
from receiver.stores.urls.store_url import StoreURL

_PATIENCE = 3.0  # seconds that a store is waited for: the master does nothing else meanwhile
_GRACE = 1.0  # seconds more than a store's own time-out
_UNANSWERED = "the store does not answer, so whether it can do with these sealing keys is not known; it is asked again"


class StoresDisagree(SettingsMistakes):
    """A store stands against what is offered. That may pass without any file that changes."""


@dataclasses.dataclass(frozen=True)
class Offer:
    """The ``settings``, keys and ``terms`` of TLS that are there to be taken together."""

    settings: Settings
    keyring: Keyring
    terms: tls.Terms | None

    def digest(self, salt: bytes) -> bytes:
        """Return 32 bytes that tell this from any other offer; secrets cannot be guessed from it without ``salt``."""
        keys = sorted((key.role, key.kid, key.thumbprint, sorted(key.tenants or ())) for key in self.keyring)
        sealing = sorted((key.kid, key.since) for key in self.keyring.sealing)
        logins = [
            (store_url.identity, store_url.username, store_url.password) for store_url in self.settings.store_urls
        ]
        named = (self.settings.tls_cert, self.settings.tls_key, self.settings.tls_client_ca) if self.terms else ()
        files = [Path(path).read_bytes() for path in named if path]
        return hmac.digest(salt, repr((keys, sealing, logins, files)).encode("utf-8", "replace"), hashlib.sha256)


def store_urls_taken(in_force: Settings, logins: Logins, offered: Settings) -> list[StoreURL]:
    """Return the places of ``in_force`` with the logins of ``offered``: those of places that differ in no more."""
    found = []
    for tenant, tenant_store in in_force.all_stores.items():
        other = offered.all_stores.get(tenant)
        if other and tenant_store.url.is_but_for_login(other.url):
            found.append(other.url)
        else:
            username, password = logins.of(tenant_store.url)
            found.append(dataclasses.replace(tenant_store.url, username=username, password=password.text))
    return found


def check_stores(in_force: Offer, logins: Logins, offered: Offer) -> None:
    """Raise StoresDisagree, with every reason, when a store stands against taking what is ``offered``."""
    settings = in_force.settings
    store_urls = store_urls_taken(settings, logins, offered.settings)
    asks_keys = _may_not_fit(in_force.keyring.sealing, offered.keyring.sealing, settings.clear_states)
    asked: dict[tuple, tuple[TenantStore, StoreURL]] = {}
    for tenant_store, store_url in zip(settings.all_stores.values(), store_urls, strict=True):
        if asks_keys or login_of(store_url) != logins.of(store_url):
            asked.setdefault(store_url.identity, (tenant_store, store_url))
    patient = dataclasses.replace(settings, store_timeout=min(settings.store_timeout, _PATIENCE), pool_size=1)
    ring = offered.keyring if asks_keys else None
    questions = {
        f"{tenant_store.variable}: ": partial(_fault_of, store_url, patient, ring)
        for tenant_store, store_url in asked.values()
    }
    silence = _UNANSWERED if asks_keys else None
    found = {variable: fault for variable, fault in _all_at_once(questions, silence).items() if fault}
    if found:
        raise StoresDisagree([variable + fault for variable, fault in found.items()])


def _may_not_fit(old: SealingKeys, new: SealingKeys, clear_states: str) -> bool:
    """Tell whether ``new`` may fail where ``old`` do not: a key is gone, or contents in the clear would be refused."""
    return any(key.kid not in new for key in old) or (not old and bool(new) and clear_states == "refuse")


def _fault_of(store_url: StoreURL, settings: Settings, ring: Keyring | None) -> str | None:
    """Return why the store at ``store_url`` refuses its login or the sealing keys of ``ring``, if given; or None."""
    with contextlib.closing(bootstrap.open_store_at(store_url, settings, ring or Keyring(), create=False)) as store:
        try:
            if ring is None:
                store.inner.ping()
                return None
            fault = store.misfit(ring.sealing)
            if fault is None:
                store.announce(ring.sealing)
            return fault
        except StoreMisplaced as problem:
            return problem.cause
        except Problem:
            return _UNANSWERED if ring else None


def _all_at_once(questions: Mapping[str, Callable[[], str | None]], silence: str | None) -> dict[str, str | None]:
    """Return the answer to each of ``questions``, ``silence`` where none came in time: what hangs holds nobody up."""
    answers: SimpleQueue[tuple[str, str | None]] = SimpleQueue()
    for name, ask in questions.items():
        threading.Thread(target=lambda name=name, ask=ask: answers.put((name, ask())), daemon=True).start()
    found = dict.fromkeys(questions, silence)
    deadline = time.monotonic() + _PATIENCE + _GRACE
    with contextlib.suppress(Empty):
        for _ in questions:
            name, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            found[name] = answer
    return found
