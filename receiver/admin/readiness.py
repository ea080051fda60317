"""Is the receiver well? Checks with a verdict each, for the readiness of the admin listener and for the doctor."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from receiver.keys.keyring import ROLES, Keyring
from receiver.problems import Problem
from receiver.process.lifecycle import Lifecycle
from receiver.settings import Settings
from receiver.stores.contract import Store
from receiver.stores.urls.store_url import StoreURL
from receiver.threadpool import waiting

NAMES = ("store", "keys", "migrations", "disk", "workers", "log")
Answer = TypeVar("Answer")
PATIENCE = 3.0  # seconds for each check: a probe has to be answered before its own time is over
_STORE_PATIENCE = 2.5  # of which for each store
_FRESH = 1.0  # seconds that an answer counts for others who ask, so that many probes are no load
_LONGEST = 300  # characters of what is told


class Check(NamedTuple):
    """A ``verdict``, "ok", "warn" or "fail", and what is ``told`` of it in a sentence."""

    verdict: str
    told: str


class Disk(NamedTuple):
    """The disk that a store lies on: which ``store``, the ``free`` and all the bytes (``size``) of it."""

    store: str
    free: int
    size: int


def ping(store: Store) -> str:
    """Return how long ``store`` took to answer, in a sentence."""
    began = time.perf_counter()
    store.ping()
    return f"answered in {1000 * (time.perf_counter() - began):.1f} ms"


def check_keys(ring: Keyring, refusal: str = "") -> Check:
    """Return whether ``ring`` holds keys of both roles, and files with private keys that not everybody may read.

    ``refusal`` says why a reload was refused, if the last one was.
    """
    counts = {role: sum(key.role == role for key in ring) for role in ROLES}
    if not all(counts.values()):
        return Check("fail", f"there is no {' and no '.join(role for role in ROLES if not counts[role])} key")
    if refusal:
        return Check("warn", f"what is there now was not taken, and what was in force still is: {refusal}"[:_LONGEST])
    if ring.exposed:
        return Check("warn", ring.exposed[0])
    sealing = len(list(ring.sealing))
    return Check("ok", ", ".join(f"{count} {role}" for role, count in [*counts.items(), ("sealing", sealing)]))


def disks(store_urls: Iterable[StoreURL]) -> list[Disk]:
    """Return the disk of each of ``store_urls`` that is a file or a folder; raises OSError."""
    found = []
    for store_url in store_urls:
        if store_url.path:
            path = Path(store_url.path)
            while not path.exists() and path != path.parent:
                path = path.parent
            status = os.statvfs(path)
            found.append(Disk(str(store_url), status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize))
    return found


def check_disk(settings: Settings) -> Check:
    """Return whether each disk of ``settings`` has the room of STORAGE_MIN_FREE."""
    found = disks(settings.store_urls)
    if not found:
        return Check("ok", "no store lies on a disk of this machine")
    least = min(found, key=lambda disk: disk.free)
    told = f"{least.free >> 20} MiB are free for {least.store}"
    if least.free < settings.min_free:
        return Check("fail", f"{told}, less than STORAGE_MIN_FREE asks for")
    return Check("ok", told)


def check_workers(settings: Settings, life: Lifecycle) -> Check:
    """Return whether the processes that answer requests are there."""
    told = f"{life.workers} of {settings.workers} run"
    if not life.is_well:
        return Check("fail", "the master has not been heard of for a minute")
    if life.workers == 0:
        return Check("fail", told)
    return Check("ok" if life.workers >= settings.workers else "warn", told)


def check_log(life: Lifecycle) -> Check:
    """Return whether standard error takes the lines of all processes; if not, requests are answered all the same."""
    trouble = life.losses.trouble()
    return Check("warn", trouble) if trouble else Check("ok", f"{life.losses.dropped:,} lines were dropped")


def checks(
    settings: Settings, ring: Keyring, stores: Mapping[str | None, Store], life: Lifecycle | None = None
) -> dict[str, Callable[[], Check]]:
    """Return the checks by the name of NAMES; those of workers and log only where ``life`` tells of them."""
    found = {
        "store": StoresCheck("store", ping, stores),
        "keys": lambda: check_keys(ring, life.refusal if life else ""),
        "migrations": StoresCheck("schema", lambda store: f"schema {store.schema_version()}", stores),
        "disk": lambda: check_disk(settings),
    }
    if life is not None:
        found["workers"] = lambda: check_workers(settings, life)
        found["log"] = lambda: check_log(life)
    return found


class Asker(Generic[Answer]):
    """Asks ``ask`` in a thread of its own, once at a time: what hangs there holds nobody up for longer than he says."""

    def __init__(self, name: str, ask: Callable[[], Answer]):
        self._ask = ask
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._guard = threading.Lock()
        self._last: Future[Answer] | None = None
        self._done = 0.0

    def begin(self) -> Future[Answer]:
        """Return the answer that is under way, that came just now, or a new one."""
        with self._guard:
            if self._last is None or (self._last.done() and time.monotonic() - self._done > _FRESH):
                self._last = self._pool.submit(self._run)
            return self._last

    def answer(self, deadline: float) -> Answer:
        """Return the answer, none older than a second; raises what ``ask`` does, TookTooLong at ``deadline``."""
        with waiting(for_client=True):
            return self.begin().result(max(0.0, deadline - time.monotonic()))

    def _run(self) -> Answer:
        try:
            return self._ask()
        finally:
            self._done = time.monotonic()


class StoresCheck:
    """Asks each of ``stores`` by ``ask``, all at once; what that of the rest answers, under None, is told.

    A store of a tenant's own that does not answer is that tenant's outage alone, and only warned about.
    """

    def __init__(self, name: str, ask: Callable[[Store], str], stores: Mapping[str | None, Store]):
        self._askers = {tenant: Asker(name, partial(ask, store)) for tenant, store in stores.items()}

    def __call__(self) -> Check:
        """Return the Check; raises the Problem of the store of the rest."""
        deadline = time.monotonic() + _STORE_PATIENCE
        asked = {tenant: asker.begin() for tenant, asker in self._askers.items()}
        told = asked.pop(None).result(PATIENCE)
        for tenant, future in asked.items():
            found = _outcome(future, deadline)
            if isinstance(found, Check):
                return Check("warn", f"the store of tenant {tenant}: {found.told}")
        return Check("ok", told)


class Prober:
    """Asks ``checks``, all at once, and waits ``patience`` seconds at most for their verdicts."""

    def __init__(self, checks: Mapping[str, Callable[[], Check]], patience: float = PATIENCE):
        self._askers = {name: Asker(f"check {name}", check) for name, check in checks.items()}
        self._patience = patience

    def ask(self) -> dict[str, Check]:
        """Return the Check of each name, none of them older than a second."""
        deadline = time.monotonic() + self._patience
        asked = {name: asker.begin() for name, asker in self._askers.items()}
        with waiting(for_client=True):  # whoever asks meanwhile gets a thread, too
            return {name: _outcome(future, deadline) for name, future in asked.items()}


def _outcome(future: Future[Answer], deadline: float) -> Answer | Check:
    """Return the answer that is there by ``deadline``, else a Check that fails and tells why."""
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except TookTooLong:
        return Check("fail", "there was no answer in time")
    except Problem as problem:
        return Check("fail", problem.cause[:_LONGEST])
    except Exception as cause:  # the verdict is what counts; a text could quote anything
        return Check("fail", type(cause).__name__)
