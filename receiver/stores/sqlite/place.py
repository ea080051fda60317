"""Where SQLite's file may lie, which store belongs there, and how the file is made."""

import os
from contextlib import suppress
from pathlib import Path

from receiver.files import ownership, sync_folder
from receiver.problems import StoreMisplaced
from receiver.stores.identity import Expected
from receiver.stores.marker import Marker
from receiver.stores.mounts import network_type
from receiver.stores.sqlite.generation import Generation


class Place:
    """The place of the file at ``path``. ``store_id`` is the id of the only store accepted there; any, if empty."""

    def __init__(self, path: Path, store_id: str) -> None:
        self.path = path
        self.marker = Marker(f"{path}-marker", path)
        self.generation = Generation(str(path), self.marker)
        self.expected = Expected(str(path), store_id, self.marker)

    def check(self) -> None:
        """Raise StoreMisplaced when no database can lie there, or the one that belongs there is gone."""
        # Path's own methods raise where they lack the right to look.
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise StoreMisplaced(f"{self.path}: is not a file")
        self._check_rights()
        with self.generation.naming_rescued():
            self.expected.check_absence(self.absence)
        self.check_fitness()

    def check_fitness(self) -> None:
        """Raise StoreMisplaced when no database can lie there, whatever belongs there."""
        path, folder = self.path, self.path.parent
        if self.absence() == "is empty" and _size(f"{path}-wal"):
            raise StoreMisplaced(
                f"{path}: is empty, but its log {path}-wal is not, so it has held a store: restore a backup; if what it"
                " held is lost, move both and -shm away and run `receiver store init`, which makes a new store"
            )
        if not os.path.isdir(folder) and (os.path.exists(folder) or not os.access(folder.parent, os.W_OK | os.X_OK)):
            text = f"{path}: the folder {folder} is missing (is the volume mounted?)"
            raise StoreMisplaced(text if os.path.exists(folder) else text + ownership(folder.parent))
        if kind := network_type(path):
            raise StoreMisplaced(
                f"{path}: lies on {kind}, a file system of the network, where SQLite would lose data:"
                " use a local disk, or file:// or a database server instead"
            )
        self._check_rights()

    def absence(self) -> str:
        """Return what is there instead of a database; "" when something is."""
        size = _size(self.path)
        return "is missing" if size is None else "" if size else "is empty"

    def create(self) -> None:
        """Make the file, for its owner only, and its folder, but no folder above. The names are durable on return."""
        with suppress(FileExistsError):
            self.path.parent.mkdir(mode=0o700)
        # Open a new file only: closing any descriptor of a database drops this process's locks on it.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        sync_folder(self.path.parent)  # even if they were there: who made them may have died before this
        with suppress(PermissionError):  # of a volume that was made for us
            sync_folder(self.path.parent.parent)

    def _check_rights(self) -> None:
        path, folder = self.path, self.path.parent
        for needed in (folder, path, f"{path}-wal", f"{path}-shm", f"{path}-marker"):
            if os.path.exists(needed) and not os.access(needed, os.R_OK | os.W_OK):
                # A command that root ran left more than this one: the whole folder must be the receiver's.
                owned = ownership(needed) and (ownership(folder) or ownership(needed))
                raise StoreMisplaced(f"{needed}: must be readable and writable for this user{owned}")


def _size(path: str | os.PathLike[str]) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
