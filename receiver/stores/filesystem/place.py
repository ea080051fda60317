"""Where a store of files may lie, which store belongs there, and how its folder is made."""

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

from receiver.files import ownership
from receiver.problems import StoreMisplaced
from receiver.stores.filesystem import durable, formats
from receiver.stores.identity import Expected
from receiver.stores.marker import Mark, Marker

_NO_TOKEN = "0" * 16


class Place:
    """The place of the folder ``path``. ``store_id`` is the id of the only store accepted there; any, if empty.

    The marker lies beside the folder: what a volume holds is gone with it.
    """

    def __init__(self, path: Path, timeout: float, store_id: str) -> None:
        self.path = path
        self.timeout = timeout
        self.marker = Marker(f"{path}.marker", path)
        self.expected = Expected(str(path), store_id, self.marker)

    def check(self) -> None:
        """Raise StoreMisplaced when no store can lie there, or the one that belongs there is gone."""
        self._check_rights()
        self.expected.check_absence(self.absence)
        self.check_fitness()

    def check_fitness(self) -> None:
        """Raise StoreMisplaced when no store can lie there, whatever belongs there."""
        path, parent = self.path, self.path.parent
        self._check_rights()
        if not os.path.isdir(path) and not (os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)):
            hint = ownership(parent) if os.path.isdir(parent) else ""
            raise StoreMisplaced(f"{path}: cannot be made in {parent}; make it (is the volume mounted?){hint}")
        if os.path.isdir(path):
            formats.check_mark(str(path))

    def absence(self) -> str:
        """Return what is there instead of a store; "" when something is."""
        if not os.path.lexists(self.path):
            return "is missing"
        return "is empty" if formats.is_empty(str(self.path)) else ""

    def make(self) -> None:
        """Make the store unless it is there, and its marker."""
        if os.path.lexists(self.path / formats.MARK):
            self.check_id()  # before anything in it is changed
        self._make(str(uuid.uuid4()))
        durable.sync_folder(str(self.path))  # a marker must not outlast the store
        self.expected.settle(self.mark())

    def check_id(self) -> None:
        """Raise StoreMisplaced when the store that is there is not the one that belongs there."""
        self.expected.check(lambda: formats.id_in(str(self.path)))

    def mark(self) -> Mark:
        """Return the mark of the store that is there."""
        return Mark(formats.id_in(str(self.path)), 0, _NO_TOKEN)

    def init(self) -> Mark:
        """Make a new store on purpose (Store.init)."""
        self.check_fitness()
        if not self.absence():
            found = formats.id_in(str(self.path))
            raise StoreMisplaced(f"{self.path}: holds the store {found}: move it away first")
        self._make(self.expected.pinned or str(uuid.uuid4()))
        return self._accepted()

    def accept(self) -> Mark:
        """Take the store that is there as the one that belongs there (Store.accept)."""
        self.check_fitness()
        if found := self.absence():
            raise StoreMisplaced(f"{self.path}: {found}: there is no store to accept")
        self._make(self._former_id() or str(uuid.uuid4()))  # gives an id to a store that has none
        return self._accepted()

    def _former_id(self) -> str:
        """Return the id that belongs here, if anything says so: version 1.0.0 takes it out of a store."""
        with suppress(StoreMisplaced):  # a damaged marker
            if mark := self.expected.marked():
                return mark.store
        return self.expected.pinned

    def _accepted(self) -> Mark:
        durable.sync_folder(str(self.path))
        mark = self.mark()
        try:
            self.marker.replace(mark)
        except OSError as cause:  # where no marker can be kept, only STORAGE_STORE_ID says which store belongs here
            if os.path.lexists(self.marker.path) and self.expected.marked() != mark:
                path = self.marker.path
                raise StoreMisplaced(f"{path}: cannot be replaced: {cause.strerror}{ownership(path.parent)}") from cause
        return mark

    def _check_rights(self) -> None:
        path = self.path
        if os.path.exists(path) and not os.path.isdir(path):
            raise StoreMisplaced(f"{path}: is not a folder")
        if os.path.isdir(path) and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise StoreMisplaced(f"{path}: must be readable and writable for this user{ownership(path)}")

    def _make(self, id: str) -> None:
        """Make the folder, but none above, and mark it as a store of ``id``, unless it has an id."""
        path = str(self.path)
        is_new = durable.make_folder(path)
        try:
            durable.sync_folder(str(self.path.parent))
        except PermissionError:  # the parent of a volume that was made for us
            pass
        except OSError:
            if is_new:  # a second sync would not bring back what this one dropped
                durable.remove_empty_folder(path)
            raise
        durable.make_lock(path)
        with durable.locked(path, time.monotonic() + self.timeout):
            formats.make_mark(path, id)
