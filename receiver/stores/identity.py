"""Which store belongs at a place, and what a person does when it holds another one, or none.

The marker beside a store says so (marker.py), or STORAGE_STORE_ID, or both. An empty place where a store is expected is
not a first start.
"""

import logging
from collections.abc import Callable

from receiver.files import ownership
from receiver.problems import StoreMisplaced
from receiver.stores.marker import Mark, Marker

PIN = "STORAGE_STORE_ID"
_told: set[str] = set()  # markers that cannot be kept, as the log has said


class Expected:
    """The store that belongs at ``place``: the one of ``pinned``, its id or "", and the one of ``marker``."""

    def __init__(self, place: str, pinned: str = "", marker: Marker | None = None) -> None:
        self.place = place
        self.pinned = pinned
        self.marker = marker

    def check_absence(self, look: Callable[[], str]) -> None:
        """Raise StoreMisplaced if a store belongs here, and ``look`` says what is there instead, such as "is empty".

        It returns "" when something is there. It is called after the marker was read: another process may be making
        the store, which is there before its marker is.
        """
        mark = self.marked()
        if not (found := look()):
            return
        lost = "if what it held is lost, `receiver store init` makes a new store"
        if mark:
            raise StoreMisplaced(
                f"{self.place}: {found}, but {self._marker_path} says that the store {mark.store} was here: put it back"
                f" (mount its volume, or restore a backup and run `receiver store accept`); {lost}"
            )
        if self.pinned:
            raise StoreMisplaced(
                f"{self.place}: {found}, but STORAGE_STORE_ID names the store {self.pinned}: put it back (mount its"
                f" volume, restore a backup, or correct the URL); {lost}, and for a first start too"
            )

    def check(self, read: Callable[[], str]) -> None:
        """Raise StoreMisplaced if another store belongs here than the one whose id ``read`` returns.

        The id is "" for a store that an older version of this program made. It, too, is read after the marker.
        """
        mark = self.marked()
        found = read()
        holds = f"holds the store {found}" if found else "holds a store of an older version, which has no id yet"
        if mark and mark.store != found:
            raise StoreMisplaced(
                f"{self.place}: {holds}, but {self._marker_path} says that {mark.store} belongs here: put that one"
                " back; if the one that is there is right, run `receiver store accept`"
            )
        if self.pinned not in ("", found):
            text = f"{self.place}: {holds}, but STORAGE_STORE_ID names {self.pinned}"
            raise StoreMisplaced(f"{text}: {_remedy(found)}")

    def settle(self, mark: Mark) -> None:
        """Check the store that is here, whose ``mark`` was read from it, and make its marker if there is none.

        Where no marker can be kept, the log says so, once.
        """
        self.check(lambda: mark.store)
        if self.marker is None or self.marked():
            return
        try:
            self.marker.make(mark)
        except OSError as cause:
            if self._marker_path not in _told and not self.pinned:
                _told.add(self._marker_path)
                logging.getLogger("receiver").info(
                    "no marker can be kept at %s (%s): set %s=%s, so that an empty or another store in its place is"
                    " refused", self._marker_path, cause.strerror, PIN, mark.store,
                )  # fmt: skip

    def marked(self) -> Mark | None:
        """Return what the marker says, if there is one; raises StoreMisplaced when it cannot be read."""
        try:
            return self.marker.read() if self.marker else None
        except OSError as cause:
            path = self._marker_path
            raise StoreMisplaced(f"{path}: cannot be read: {cause.strerror}{ownership(path)}") from cause

    @property
    def _marker_path(self) -> str:
        return str(self.marker.path) if self.marker else ""


def _remedy(found: str) -> str:
    way = f"set {PIN} to its id" if found else f"start once without {PIN}, which gives it an id"
    return f"correct the URL; or, if the store that is there is right, {way}"
