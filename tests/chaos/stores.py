"""The stores under test: where one lies, how it is opened to look inside, and its server if it has one."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from receiver.stores import open_store
from tests.support import servers

_SERVERS = {"postgresql": servers.postgresql, "mariadb": servers.mariadb}


@dataclass
class StoreUnderTest:
    """A store: its ``kind`` (of faults.STORES), its ``url``, and where it lies.

    ``path`` is the file of SQLite or the folder of files; ``server`` is the database server that was started for it,
    ``database`` its database.
    """

    kind: str
    url: str
    path: Path | None = None
    server: servers.Server | None = None
    database: str = ""

    def contents(self) -> Iterator[tuple[str, str, str]]:
        """Yield (tenant, id, content) of all that it holds now, read past any receiver."""
        with contextlib.closing(open_store(self.url, 10)) as store:
            for state in store.scan():
                yield state.tenant, state.id, state.content.text


@contextlib.contextmanager
def new_store(kind: str, folder: Path) -> Iterator[StoreUnderTest]:
    """A new store of ``kind`` in ``folder``, or on a server that runs as long as the context."""
    if kind in _SERVERS:
        with _SERVERS[kind]() as server:
            database = server.new_database()
            yield StoreUnderTest(kind, server.url(database), server=server, database=database)
        return
    folder.mkdir()
    path = folder / ("states.db" if kind == "sqlite" else "states")
    scheme = "sqlite:///" if kind == "sqlite" else "file://"
    yield StoreUnderTest(kind, f"{scheme}{path}", path)
