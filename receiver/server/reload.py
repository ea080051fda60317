"""Reloads keys and certificates while the receiver runs, in every process and without dropping a request.

On SIGHUP, or when files change, the master reads them again. If they are valid, it uses them for workers that it starts
later, and signals the running workers to do the same; otherwise every process keeps the old ones. New connections get
the new certificate; each request looks its keys up when it arrives.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Container, Iterator

from receiver.keys.keyring import Keyring
from receiver.process.lifecycle import Lifecycle
from receiver.server.reload_check import StoresDisagree
from receiver.settings import RELOADED, Settings, SettingsMistakes, declared

_LOOK_EVERY = 5.0  # seconds
_TRY_AGAIN = 5.0, 60.0  # seconds until the retry of a reload that a store refused: at first, and at most
_OF_LOGINS = {"DATABASE_URL", "JDBC_DATABASE_URL", "DATABASE_USERNAME", "DATABASE_PASSWORD"}


def take(refresh: Callable[[], list[str]], log: logging.Logger) -> bool:
    """Call ``refresh``, which returns the changes or raises SettingsMistakes; log either, and return success."""
    return attempt(refresh, log) is None


def attempt(
    refresh: Callable[[], list[str]], log: logging.Logger, known: Container[str] = ()
) -> SettingsMistakes | None:
    """Do the same, but log no mistake that is ``known``; return the mistakes, or None."""
    try:
        changes = refresh()
    except SettingsMistakes as mistakes:
        refused = mistakes
    except Exception:  # the keys in force still serve, whatever the defect is
        log.exception("a defect")
        refused = SettingsMistakes(["the reload failed because of a defect"])
    else:
        for change in changes:
            log.info("%s", change)
        return None
    news = [mistake for mistake in refused.mistakes if mistake not in known]
    for mistake in news:
        log.error("%s", mistake)
    if news:
        log.error("the old keys and certificates stay in use")
    return refused


class Reloads:
    """The reloads of the master: calls ``refresh``, and informs the other processes through ``life``.

    A reload that a store refused is retried without a signal: later the store may answer, or accept it.
    """

    def __init__(
        self,
        refresh: Callable[[], list[str]],
        life: Lifecycle,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refresh, self._life, self._log, self._clock = refresh, life, log, clock
        self._pause, self._again_at = _TRY_AGAIN[0], math.inf
        self._known: list[str] = []  # mistakes that a retry does not log again
        self._mistakes: list[str] = []

    def is_due(self) -> bool:
        """Tell whether a retry is due; then the next ``take`` logs no mistake a second time."""
        if self._clock() < self._again_at:
            return False
        self._again_at = math.inf
        self._known = self._mistakes
        return True

    def take(self) -> bool:
        """Take the present keys and certificates; return success."""
        refused = attempt(self._refresh, self._log, self._known)
        is_retry, self._known = bool(self._known), []
        self._again_at = math.inf
        if refused is None:
            self._pause = _TRY_AGAIN[0]
            return True
        self._mistakes = refused.mistakes
        self._life.refuse(refused.mistakes[0])
        if isinstance(refused, StoresDisagree):
            self._pause = min(2 * self._pause, _TRY_AGAIN[1]) if is_retry else _TRY_AGAIN[0]
            self._again_at = self._clock() + self._pause
        return False


def changes_of_keys(old: Keyring, new: Keyring) -> list[str]:
    """Return a line for each key that was added, removed or changed between ``old`` and ``new``."""
    before, after = _marks_of_keys(old), _marks_of_keys(new)
    return [
        f"key {what}: {role} {kid}"
        for what, names in (
            ("added", after.keys() - before.keys()),
            ("removed", before.keys() - after.keys()),
            ("changed", {name for name in before.keys() & after.keys() if before[name] != after[name]}),
        )
        for role, kid in sorted(names)
    ]


def _marks_of_keys(ring: Keyring) -> dict[tuple[str, str], tuple[object, ...]]:
    """Return (role, kid) → what distinguishes a key of ``ring`` from another one of that name."""
    marks: dict[tuple[str, str], tuple[object, ...]] = {
        (key.role, key.kid): (key.thumbprint, key.tenants) for key in ring
    }
    return marks | {("sealing", key.kid): () for key in ring.sealing}


def changes_of_settings(old: Settings, new: Settings) -> list[str]:
    """Return a line for each changed setting that takes effect only with a restart."""
    changed = [field.metadata["name"] for field in declared() if getattr(old, field.name) != getattr(new, field.name)]
    is_login = old.store_url != new.store_url and old.store_url.is_but_for_login(new.store_url)
    taken = RELOADED | (_OF_LOGINS if is_login else set())
    before, after = old.tenant_stores, new.tenant_stores
    for tenant in sorted(before.keys() | after.keys()):
        one, other = before.get(tenant), after.get(tenant)
        if one is None or other is None or not one.url.is_but_for_login(other.url):
            changed += [found.variable for found in (one, other) if found][:1]
    return [f"{name} has changed, which takes effect with a restart" for name in changed if name not in taken]


class Watch:
    """Watches the files of ``settings`` and keys for changes that are complete: two looks found the same."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = [str(settings.keys), settings.tls_cert, settings.tls_key, settings.tls_client_ca]
        self._paths += settings.paths.values()
        self._clock = clock
        self.settle()

    def settle(self) -> None:
        """Treat the present files as known."""
        self._known = self._seen = self._look()
        self._next = self._clock() + _LOOK_EVERY

    def has_changed(self) -> bool:
        """Tell, every few seconds, whether the files differ from the known ones, and not from the last look."""
        if self._clock() < self._next:
            return False
        before, self._seen = self._seen, self._look()
        self._next = self._clock() + _LOOK_EVERY
        return before == self._seen != self._known

    def _look(self) -> set[tuple[object, ...]]:
        return {mark for path in self._paths if path for mark in _marks(path, levels=2)}


def _marks(path: str, levels: int) -> Iterator[tuple[object, ...]]:
    """Yield what distinguishes ``path`` from another file, through links, and the same for the files of a folder."""
    try:
        found = os.stat(path)
        yield path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        if levels and os.path.isdir(path):
            for name in os.listdir(path):
                if not name.startswith("."):
                    yield from _marks(os.path.join(path, name), levels - 1)
    except OSError as cause:
        yield path, cause.errno
