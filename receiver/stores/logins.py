"""The users and passwords of database servers that are in force; a reload replaces them for every store at once."""

from collections.abc import Iterable
from typing import NamedTuple

from receiver.secret import Secret
from receiver.stores.urls.store_url import Identity, StoreURL


class Login(NamedTuple):
    """The ``username`` and ``password`` that a connection is made with."""

    username: str
    password: Secret


def login_of(store_url: StoreURL) -> Login:
    """Return the login in ``store_url`` itself."""
    return Login(store_url.username, Secret(store_url.password))


class Logins:
    """The login of each store in ``store_urls``; where two of them are the same store, that of the first.

    ``are_watched`` says that no caller waits for the outcome of a login, so the log must report a refused one.
    """

    def __init__(self, store_urls: Iterable[StoreURL] = (), are_watched: bool = False) -> None:
        self.are_watched = are_watched
        self._known: dict[Identity, Login] = {}
        self.version = 0  # grows with each ``replace``
        self.replace(store_urls)

    def replace(self, store_urls: Iterable[StoreURL]) -> None:
        """Replace all logins, at once, by those of ``store_urls``."""
        known: dict[Identity, Login] = {}
        for store_url in store_urls:
            known.setdefault(store_url.identity, login_of(store_url))
        self._known = known
        self.version += 1

    def of(self, store_url: StoreURL) -> Login:
        """Return the login for ``store_url``; its own if none is known for that store."""
        return self._known.get(store_url.identity) or login_of(store_url)
