"""Users and passwords of database servers, as they are in force now: a reload replaces them for all who hold these."""

from collections.abc import Iterable
from typing import NamedTuple

from receiver.secret import Secret
from receiver.stores.urls.store_url import Identity, StoreURL


class Login(NamedTuple):
    """The ``username`` and ``password`` that a connection is made with."""

    username: str
    password: Secret


def login_of(store_url: StoreURL) -> Login:
    """Return the login that ``store_url`` itself names."""
    return Login(store_url.username, Secret(store_url.password))


class Logins:
    """The login of each store of ``store_urls``; where two places are the same store, that of the first.

    ``are_watched`` tells that nobody waits for the outcome of a single login, so that the log has to say it.
    """

    def __init__(self, store_urls: Iterable[StoreURL] = (), are_watched: bool = False) -> None:
        self.are_watched = are_watched
        self._known: dict[Identity, Login] = {}
        self.version = 0  # another one after each ``replace``
        self.replace(store_urls)

    def replace(self, store_urls: Iterable[StoreURL]) -> None:
        """Hold the logins of ``store_urls`` instead, at once."""
        known: dict[Identity, Login] = {}
        for store_url in store_urls:
            known.setdefault(store_url.identity, login_of(store_url))
        self._known = known
        self.version += 1

    def of(self, store_url: StoreURL) -> Login:
        """Return the login for ``store_url``: its own where none is known."""
        return self._known.get(store_url.identity) or login_of(store_url)
