"""Users and passwords of database servers, as they are in force now: a reload replaces them for all who hold these."""

from collections.abc import Iterable
from typing import NamedTuple

from receiver.secret import Secret
from receiver.stores.urls.store_url import StoreURL


class Login(NamedTuple):
    """The ``username`` and ``password`` that a connection is made with."""

    username: str
    password: Secret


def login_of(place: StoreURL) -> Login:
    """Return the login that ``place`` itself names."""
    return Login(place.username, Secret(place.password))


class Logins:
    """The login of each store of ``places``; where two places are the same store, that of the first.

    ``are_watched`` tells that nobody waits for the outcome of a single login, so that the log has to say it.
    """

    def __init__(self, places: Iterable[StoreURL] = (), are_watched: bool = False):
        self.are_watched = are_watched
        self._known: dict[tuple, Login] = {}
        self.version = 0  # another one after each ``replace``
        self.replace(places)

    def replace(self, places: Iterable[StoreURL]) -> None:
        """Hold the logins of ``places`` instead, at once."""
        known: dict[tuple, Login] = {}
        for place in places:
            known.setdefault(place.identity, login_of(place))
        self._known = known
        self.version += 1

    def of(self, place: StoreURL) -> Login:
        """Return the login for ``place``: its own where none is known."""
        return self._known.get(place.identity) or login_of(place)
