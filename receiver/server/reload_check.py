"""Checks whether the stores accept what a reload would take, by the rules of a start.

The contents of the stores decide on sealing keys, the database servers on logins. A store that does not answer prevents
a change of sealing keys only if the new keys may not fit it; it never prevents a new login, as at a start.
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

_PATIENCE = 3.0  # seconds for a store to answer: the master does nothing else meanwhile
_GRACE = 1.0  # seconds beyond a store's own time-out
_UNANSWERED = "the store does not answer, so it is unknown whether these sealing keys fit it; the reload is retried"


class StoresDisagree(SettingsMistakes):
    """A store refuses the candidate. It may accept the same files later."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The ``settings``, keys and TLS ``terms`` that were read together, and are taken together."""

    settings: Settings
    keyring: Keyring
    terms: tls.Terms | None

    def digest(self, salt: bytes) -> bytes:
        """Return 32 bytes that identify this snapshot; without ``salt``, nobody can guess secrets from them."""
        keys = sorted((key.role, key.kid, key.thumbprint, sorted(key.tenants or ())) for key in self.keyring)
        sealing = sorted((key.kid, key.since) for key in self.keyring.sealing)
        logins = [(url.identity, url.username, url.password) for url in self.settings.store_urls]
        named = (self.settings.tls_cert, self.settings.tls_key, self.settings.tls_client_ca) if self.terms else ()
        files = [Path(path).read_bytes() for path in named if path]
        return hmac.digest(salt, repr((keys, sealing, logins, files)).encode("utf-8", "replace"), hashlib.sha256)


def urls_after_reload(in_force: Settings, logins: Logins, candidate: Settings) -> list[StoreURL]:
    """Return the store URLs of ``in_force``, with the login of ``candidate`` where nothing else of the URL differs."""
    found = []
    for tenant, tenant_store in in_force.all_stores.items():
        other = candidate.all_stores.get(tenant)
        if other and tenant_store.url.is_but_for_login(other.url):
            found.append(other.url)
        else:
            username, password = logins.of(tenant_store.url)
            found.append(dataclasses.replace(tenant_store.url, username=username, password=password.text))
    return found


def check_stores(in_force: Snapshot, logins: Logins, candidate: Snapshot) -> None:
    """Raise StoresDisagree, with every reason, when a store refuses the ``candidate``."""
    settings = in_force.settings
    urls = urls_after_reload(settings, logins, candidate.settings)
    asks_keys = _may_not_fit(in_force.keyring.sealing, candidate.keyring.sealing, settings.clear_states)
    asked: dict[tuple[object, ...], tuple[TenantStore, StoreURL]] = {}
    for tenant_store, url in zip(settings.all_stores.values(), urls, strict=True):
        if asks_keys or login_of(url) != logins.of(url):
            asked.setdefault(url.identity, (tenant_store, url))
    patient = dataclasses.replace(settings, store_timeout=min(settings.store_timeout, _PATIENCE), pool_size=1)
    ring = candidate.keyring if asks_keys else None
    questions = {
        f"{tenant_store.variable}: ": partial(_fault_of, url, patient, ring) for tenant_store, url in asked.values()
    }
    silence = _UNANSWERED if asks_keys else None
    found = {variable: fault for variable, fault in _all_at_once(questions, silence).items() if fault}
    if found:
        raise StoresDisagree([variable + fault for variable, fault in found.items()])


def _may_not_fit(old: SealingKeys, new: SealingKeys, clear_states: str) -> bool:
    """Tell whether ``new`` may fail where ``old`` do not: a key is gone, or plain contents would be refused."""
    return any(key.kid not in new for key in old) or (not old and bool(new) and clear_states == "refuse")


def _fault_of(url: StoreURL, settings: Settings, ring: Keyring | None) -> str | None:
    """Return why the store at ``url`` refuses its login, or the sealing keys of ``ring`` if given, or None."""
    with contextlib.closing(bootstrap.open_store_at(url, settings, ring or Keyring(), create=False)) as store:
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
    """Return the answer to each of ``questions``; ``silence`` where none came in time."""
    answers: SimpleQueue[tuple[str, str | None]] = SimpleQueue()

    def answer(name: str, ask: Callable[[], str | None]) -> None:
        answers.put((name, ask()))

    for name, ask in questions.items():
        threading.Thread(target=answer, args=(name, ask), daemon=True).start()
    found: dict[str, str | None] = dict.fromkeys(questions, silence)
    deadline = time.monotonic() + _PATIENCE + _GRACE
    with contextlib.suppress(Empty):
        for _ in questions:
            name, text = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            found[name] = text
    return found
