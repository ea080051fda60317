"""States as files: a folder per tenant, a file per state, on a disk that people and backups can read.

``planning.py`` works out what changes do, ``changes.py`` makes them, ``formats.py`` defines the files and
``durable.py`` makes them last.
"""

import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from receiver.files import ownership
from receiver.idempotency import Effect, Receipt
from receiver.problems import Problem, StoreDamaged, StoreFull, StoreUnavailable
from receiver.states import State, Summary
from receiver.stores.contract import OnDamage, Store, reraise
from receiver.stores.filesystem import durable, formats, key_uses
from receiver.stores.filesystem.changes import TenantFolder
from receiver.stores.filesystem.durable import file_errors
from receiver.stores.filesystem.formats import StateFile
from receiver.stores.filesystem.key_uses import Uses
from receiver.stores.filesystem.place import Place
from receiver.stores.filesystem.planning import (
    Change,
    deleting,
    has_expired,
    purging,
    replacing_content,
    saving,
    stored,
)
from receiver.stores.filesystem.reserve import Reserve
from receiver.stores.filesystem.shapes import UUID, is_uuid
from receiver.stores.marker import Mark

_PURGED_AT_ONCE = 500  # states; few enough that no save waits long for a purge

_log = logging.getLogger("receiver")
T = TypeVar("T", State, Summary)
_STATE = re.compile(UUID.pattern + r"\.state")
_SHARD = re.compile("[0-9a-f]{2}")


class FilesystemStore(Store):
    """States in the folder ``path``; ``timeout`` in seconds bounds every wait for the lock of a tenant."""

    def __init__(self, path: str, timeout: float, create: bool = True, store_id: str = "") -> None:
        self.path = Path(os.path.abspath(path))
        self.timeout = timeout
        self.create = create
        self.place = Place(self.path, timeout, store_id)
        self._mark = str(self.path / formats.MARK)
        self._reserve = Reserve(str(self.path))
        self._tenants: dict[str, TenantFolder] = {}
        self._prepared: tuple[int, int, int] | None = None

    def prepare(self) -> None:
        with file_errors():
            self.check_location()
            # A store that has been there is never made again: it may only be unmounted.
            if self.create and self._prepared is None:
                self.place.make()
            durable.sync_folder(str(self.path))  # the process that made it may have died before its own sync
            found = durable.identity(self._mark)
            if found is None:
                raise StoreUnavailable(f"files: there is no store at {self.path} (is the volume mounted?)")
            self.place.check_id()
            for tenant in self._names(str(self.path), UUID):
                with suppress(OSError, Problem):  # that tenant's next call meets it, and reports it
                    self._folder(tenant).tidy()
            self._prepared = found

    def check_location(self) -> None:
        self.place.check()

    def mark(self) -> Mark:
        with file_errors():
            self._ready()
            return self.place.mark()

    def init(self) -> Mark:
        with file_errors():
            return self.place.init()

    def accept(self) -> Mark:
        with file_errors():
            return self.place.accept()

    def ping(self) -> None:
        # Looking is enough, and free. Anyone may call the health check: a file written each time would wear the disk,
        # and a full disk, which still serves every load, would make the service look dead.
        with file_errors():
            self._ready()
            if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
                raise StoreUnavailable(f"files: {self.path} cannot be written{ownership(self.path)}")

    def schema_version(self) -> str:
        with file_errors():
            self._ready()
            formats.check_mark(str(self.path))
            return str(formats.FORMAT)

    def find(self, tenant: str, id: str) -> State | None:
        folder = self._folder(tenant)
        _check(id)
        with file_errors():
            self._ready()
            try:
                with folder.current(id, self.timeout) as file:
                    return file.whole()
            except FileNotFoundError:
                self._ready()  # a volume that was unmounted meanwhile is no missing state
                return None

    def was_done(self, tenant: str, receipt: Receipt) -> bool:
        folder = self._folder(tenant)
        with file_errors():
            self._ready()
            if folder.awaits(receipt, self.timeout):
                raise StoreUnavailable(f"files: {folder.path}: the change is committed, but cannot be finished yet")
            return receipt.compare(folder.receipts.first_use(receipt)) == "repeated"

    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        for state in states:
            _check(state.id)
        return self._changed(tenant, saving(states, receipt), receipt)

    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        for id in ids:
            _check(id)
        if receipt is None and self._is_unknown(tenant):
            return Effect()
        return self._changed(tenant, deleting(ids, receipt), receipt)

    def replace_content(self, tenant: str, pairs: Sequence[tuple[State, State]]) -> int:
        for old, _ in pairs:
            _check(old.id)
        return self._changed(tenant, replacing_content(pairs)).stored

    def note_key_uses(self, uses: Mapping[tuple[str, str], int]) -> None:
        def note(known: dict[tuple[str, str], int]) -> None:
            known |= {key: max(time, known.get(key, 0)) for key, time in uses.items()}

        self._change_key_uses(note)

    def key_uses(self) -> dict[tuple[str, str], int]:
        with file_errors():
            self._ready()
            return key_uses.read(str(self.path))

    def forget_key(self, role: str, kid: str) -> None:
        self._change_key_uses(lambda known: known.pop((role, kid), None))

    def _change_key_uses(self, edit: Callable[[Uses], object]) -> None:
        with file_errors(full=StoreFull):
            self._ready()
            key_uses.change(str(self.path), edit, self.timeout)

    def purge(self, before: int) -> int:
        purged = 0
        with file_errors():
            self._ready()
            for tenant in self._names(str(self.path), UUID):
                try:
                    for ids in self._expired(tenant, before):
                        purged += self._changed(tenant, purging(ids, before)).stored
                except StoreDamaged as damage:  # the states of other tenants are purged all the same
                    _log.error("nothing of tenant %s is purged: %s", tenant, damage.cause)
        return purged

    def _expired(self, tenant: str, before: int) -> Iterator[list[str]]:
        """Yield lists of the ids of ``tenant``'s states that expire before ``before`` (nanoseconds since 1970)."""
        folder = self._folder(tenant)
        known = partial(stored, folder)
        expired = (id for id in self._ids(folder) if has_expired(known, id, before))
        while ids := list(itertools.islice(expired, _PURGED_AT_ONCE)):
            yield ids

    def summaries(self, tenant: str | None = None, on_damage: OnDamage = reraise) -> Iterator[Summary]:
        return self._each(tenant, StateFile.summary, on_damage)

    def scan(
        self,
        tenant: str | None = None,
        wanted: Callable[[Summary], bool] | None = None,
        on_damage: OnDamage = reraise,
    ) -> Iterator[State]:
        def read(file: StateFile) -> State | None:
            return file.whole() if wanted is None or wanted(file.summary()) else None

        return self._each(tenant, read, on_damage)

    def close(self) -> None:
        """Nothing is held open between two calls."""

    def _ready(self) -> None:
        """Make sure that the prepared store is still where it was; else prepare it, or raise StoreUnavailable."""
        if self._prepared is None or durable.identity(self._mark) != self._prepared:
            self.prepare()

    def _folder(self, tenant: str) -> TenantFolder:
        _check(tenant)
        if known := self._tenants.get(tenant):
            return known
        return self._tenants.setdefault(tenant, TenantFolder(str(self.path), tenant, self._reserve))

    def _is_unknown(self, tenant: str) -> bool:
        """Return whether the store, which must be there, has no folder of ``tenant``."""
        folder = self._folder(tenant)
        with file_errors():
            missing = durable.identity(folder.path) is None
            self._ready()
            return missing

    def _changed(self, tenant: str, change: Change, receipt: Receipt | None = None) -> Effect:
        """Make ``change`` of ``tenant``, which keeps ``receipt``; return its effect when it is durable."""
        folder = self._folder(tenant)
        try:
            with file_errors(full=StoreFull):
                self._ready()
                return folder.change(change, self.timeout)
        except StoreFull as problem:
            with file_errors():
                if receipt and folder.awaits(receipt, self.timeout):  # "nothing was changed" would not be true
                    raise StoreUnavailable(problem.cause) from problem
            raise

    def _each(self, tenant: str | None, read: Callable[[StateFile], T | None], on_damage: OnDamage) -> Iterator[T]:
        """Yield what ``read`` returns for each state's file, of ``tenant`` or all; one shard's names in memory."""
        with file_errors():
            self._ready()
            for name in self._names(str(self.path), UUID) if tenant is None else (tenant,):
                try:
                    yield from self._each_of(self._folder(name), read, on_damage)
                except StoreDamaged as damage:  # of the whole tenant
                    on_damage(damage)

    def _each_of(self, folder: TenantFolder, read: Callable[[StateFile], T | None], on_damage: OnDamage) -> Iterator[T]:
        for id in self._ids(folder):
            try:
                with folder.current(id, self.timeout) as file:
                    found = read(file)
            except FileNotFoundError:  # deleted since
                self._ready()
                continue
            except StoreDamaged as damage:
                on_damage(damage)
                continue
            if found is not None:
                yield found

    def _ids(self, folder: TenantFolder) -> Iterator[str]:
        for shard in self._names(folder.path, _SHARD):
            folder.settle(self.timeout)
            for name in self._names(f"{folder.path}/{shard}", _STATE):
                if name.startswith(shard):
                    yield name.removesuffix(".state")

    def _names(self, path: str, pattern: re.Pattern[str]) -> list[str]:
        """Return the names in the folder ``path`` that match ``pattern``, in order; any others are not ours."""
        try:
            return sorted(filter(pattern.fullmatch, os.listdir(path)))
        except (FileNotFoundError, NotADirectoryError):
            self._ready()
            return []


def _check(id: str) -> None:
    """Raise ValueError unless ``id`` is a UUID in lower case, and so no path."""
    if not is_uuid(id):
        raise ValueError("an id must be a UUID in lower case")
