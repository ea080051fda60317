"""Checks whether the receiver is well, each with a verdict, for ``/readyz``."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from receiver.keys.keyring import ROLES, Keyring
from receiver.problems import Problem
from receiver.process.disk import disk_space
from receiver.process.lifecycle import Lifecycle
from receiver.settings import Settings
from receiver.stores.contract import Store
from receiver.stores.urls.store_url import StoreURL
from receiver.threadpool import blocking

NAMES = ("store", "keys", "migrations", "disk", "workers", "log")
Answer = TypeVar("Answer")
PATIENCE = 3.0  # seconds for each check: a probe needs its answer before its own time-out
_STORE_PATIENCE = 2.5  # seconds of these for each store
_FRESH = 1.0  # seconds for which an answer serves further probes, so that many probes cause no load
_LONGEST = 300  # characters of a message


class Check(NamedTuple):
    """A ``verdict``, "ok", "warn" or "fail", and a sentence about it, ``told``."""

    verdict: str
    told: str


class Disk(NamedTuple):
    """The disk that ``store`` lies on: its ``free`` and all its bytes (``size``)."""

    store: str
    free: int
    size: int


def ping(store: Store) -> str:
    """Return how long ``store`` took to answer, in a sentence."""
    began = time.perf_counter()
    store.ping()
    return f"answered in {1000 * (time.perf_counter() - began):.1f} ms"


def check_keys(ring: Keyring, refusal: str = "") -> Check:
    """Check that ``ring`` holds keys of both roles, and that no other user can read their files.

    ``refusal`` says why the last reload was refused, if it was.
    """
    counts = {role: sum(key.role == role for key in ring) for role in ROLES}
    if not all(counts.values()):
        return Check("fail", f"there is no {' and no '.join(role for role in ROLES if not counts[role])} key")
    if refusal:
        return Check("warn", f"the last reload was refused, and the old keys stay in use: {refusal}"[:_LONGEST])
    if ring.exposed:
        return Check("warn", ring.exposed[0])
    sealing = len(list(ring.sealing))
    return Check("ok", ", ".join(f"{count} {role}" for role, count in [*counts.items(), ("sealing", sealing)]))


def disks(places: Iterable[StoreURL]) -> list[Disk]:
    """Return the disk of each store of ``places`` that is a file or a folder; raises OSError."""
    found = []
    for place in places:
        if place.path:
            space = disk_space(place.path)
            found.append(Disk(str(place), space.free, space.size))
    return found


def check_disk(settings: Settings) -> Check:
    """Check that each disk of ``settings`` has STORAGE_MIN_FREE bytes of free space."""
    found = disks(settings.store_urls)
    if not found:
        return Check("ok", "no store lies on a disk of this machine")
    least = min(found, key=lambda disk: disk.free)
    message = f"{least.free >> 20} MiB are free for {least.store}"
    if least.free < settings.min_free:
        return Check("fail", f"{message}, less than STORAGE_MIN_FREE")
    return Check("ok", message)


def check_workers(settings: Settings, life: Lifecycle) -> Check:
    """Check that the processes that answer requests run."""
    message = f"{life.workers} of {settings.workers} run"
    if not life.is_well:
        return Check("fail", "the master has shown no sign of life for a minute")
    if life.workers == 0:
        return Check("fail", message)
    return Check("ok" if life.workers >= settings.workers else "warn", message)


def check_log(life: Lifecycle) -> Check:
    """Check that standard error takes the log of all processes; requests are answered even if it does not."""
    trouble = life.losses.trouble()
    return Check("warn", trouble) if trouble else Check("ok", f"{life.losses.dropped:,} lines were dropped")


def checks(
    settings: Settings, ring: Keyring, stores: Mapping[str | None, Store], life: Lifecycle | None = None
) -> dict[str, Callable[[], Check]]:
    """Return the checks by their name in NAMES; those of workers and log only with ``life``."""
    found: dict[str, Callable[[], Check]] = {
        "store": StoresCheck("store", ping, stores),
        "keys": lambda: check_keys(ring, life.refusal if life else ""),
        "migrations": StoresCheck("schema", lambda store: f"schema {store.schema_version()}", stores),
        "disk": lambda: check_disk(settings),
    }
    if life is not None:
        found["workers"] = lambda: check_workers(settings, life)
        found["log"] = lambda: check_log(life)
    return found


class Question(Generic[Answer]):
    """Calls ``ask`` in a thread of its own, one call at a time: a call that hangs delays no caller beyond its deadline.

    An answer serves every caller for a second.
    """

    def __init__(self, name: str, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._guard = threading.Lock()
        self._last: Future[Answer] | None = None
        self._done = 0.0

    def begin(self) -> Future[Answer]:
        """Return the pending answer, a fresh one, or that of a new call."""
        with self._guard:
            if self._last is None or (self._last.done() and time.monotonic() - self._done > _FRESH):
                self._last = self._pool.submit(self._run)
            return self._last

    def answer(self, deadline: float) -> Answer:
        """Return the answer, a second old at most; raises what ``ask`` raises, and TookTooLong at ``deadline``."""
        with blocking(release_slot=True):
            return self.begin().result(max(0.0, deadline - time.monotonic()))

    def _run(self) -> Answer:
        try:
            return self._ask()
        finally:
            self._done = time.monotonic()


class StoresCheck:
    """Checks all ``stores`` at once by ``ask``; None is the key of the store whose answer becomes the message.

    If a tenant's own store does not answer, only that tenant has an outage: the check warns, and does not fail.
    """

    def __init__(self, name: str, ask: Callable[[Store], str], stores: Mapping[str | None, Store]) -> None:
        self._questions = {tenant: Question(name, partial(ask, store)) for tenant, store in stores.items()}

    def __call__(self) -> Check:
        """Return the Check; raises the Problem of the store under None."""
        deadline = time.monotonic() + _STORE_PATIENCE
        asked = {tenant: question.begin() for tenant, question in self._questions.items()}
        message = asked.pop(None).result(PATIENCE)
        for tenant, future in asked.items():
            found = _outcome(future, deadline)
            if isinstance(found, Check):
                return Check("warn", f"the store of tenant {tenant}: {found.told}")
        return Check("ok", message)


class Prober:
    """Runs all ``checks`` at once, and waits ``patience`` seconds at most for their verdicts."""

    def __init__(self, checks: Mapping[str, Callable[[], Check]], patience: float = PATIENCE) -> None:
        self._questions = {name: Question(f"check {name}", check) for name, check in checks.items()}
        self._patience = patience

    def ask(self) -> dict[str, Check]:
        """Return the Check of each name, a second old at most."""
        deadline = time.monotonic() + self._patience
        asked = {name: question.begin() for name, question in self._questions.items()}
        with blocking(release_slot=True):  # so that another request gets a thread meanwhile
            return {name: _outcome(future, deadline) for name, future in asked.items()}


def _outcome(future: Future[Answer], deadline: float) -> Answer | Check:
    """Return the answer if it comes by ``deadline``, else a failed Check with the reason."""
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except TookTooLong:
        return Check("fail", "there was no answer in time")
    except Problem as problem:
        return Check("fail", problem.cause[:_LONGEST])
    except Exception as cause:  # noqa: BLE001 - any defect is a verdict; only its type is safe to publish
        return Check("fail", type(cause).__name__)
