"""Fixtures for all tests: keys, a store, the application, the platform that calls it, and database servers."""

import itertools
import uuid
from contextlib import contextmanager

import pytest

pytest.register_assert_rewrite("tests.support")  # before any of it is imported

from receiver.app import create_app
from receiver.mock_platform.client import Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from receiver.settings import Settings
from receiver.stores import open_store
from tests.support import servers
from tests.support.commands import receiver
from tests.support.platform_client import Clock, InProcess, ring_of
from tests.support.servers import needed
from tests.support.states import rows_of

pytest_plugins = ["tests.support.summary"]


@pytest.fixture(scope="session")
def postgresql():
    with servers.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def embedded():
    """The PostgreSQL of the test dependencies: a newer one than the machine's, and there where it has none."""
    with servers.postgresql(embedded=True) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgresql):
    needed("pgbouncer")
    with servers.pgbouncer(postgresql) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb():
    needed("mariadbd", "mariadb-install-db")
    with servers.mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def keys():
    return new_store()


@pytest.fixture(scope="session")
def foreign_keys():
    """The keys of another store, which the receiver under test does not have."""
    return new_store()


@pytest.fixture
def tenant():
    return str(uuid.uuid4())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/states.db", 5)
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def settings():
    return Settings()


@pytest.fixture
def ring(keys):
    return ring_of(keys)


@pytest.fixture
def app(settings, ring, store, clock):
    return create_app(settings, ring, store, clock)


@pytest.fixture
def platform(client, tenant, keys):
    return InProcess(client, tenant, keys)


@pytest.fixture
def platform_at(tenant, keys):
    """A function from the URL of a receiver, and an ssl.SSLContext if need be, to a client of it.

    ``close()`` closes all of them, which happens at the end in any case: a receiver that stops grants them two seconds.
    """
    made = []

    def connect(url, context=None, keys=keys) -> Client:
        made.append(Client(url, tenant, keys, context=context))
        return made[-1]

    def close():
        for client in made:
            client.close()

    connect.close = close
    yield connect
    close()


@pytest.fixture
def folder_with_keys(tmp_path):
    assert receiver("keys", "generate", cwd=tmp_path).returncode == 0
    return tmp_path


@pytest.fixture
def flow(tenant):
    return FlowRun(tenant, seed=7)


@pytest.fixture
def state(flow):
    return flow.state()


@pytest.fixture
def unchanged(store):
    """A context in which nothing of the store may change: no state, no receipt."""

    @contextmanager
    def context():
        before = rows_of(store.path)
        yield
        assert rows_of(store.path) == before

    return context


@pytest.fixture
def new_url(request, tmp_path):
    """A function from a backend to the URL of a new store of it."""
    numbers = itertools.count(1)

    def make(backend: str) -> str:
        if backend == "sqlite":
            return f"sqlite:///{tmp_path}/{next(numbers)}.db"
        if backend == "filesystem":
            return f"file://{tmp_path}/{next(numbers)}"
        server = request.getfixturevalue(backend)
        return server.url(server.new_database())

    return make
