"""What the tests share: keys, a store, the application, and the platform that calls it."""

import json
import os
import re
import time
import uuid
from collections import Counter
from contextlib import contextmanager

import pytest
from sqlite_utils.utils import sqlite3

from receiver.app import create_app
from receiver.keys.keyring import Keyring, parse_key
from receiver.mock_platform.client import Answer, Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from receiver.settings import Settings
from receiver.stores import open_store
from tests import servers

MATRIX = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[MATRIX] = []
    config.addinivalue_line("markers", "case(*ids): the rows of the abuse and fault cases that a test tries")


def pytest_sessionfinish(session):
    """Hand what a process of several found to the one that reports."""
    if hasattr(session.config, "workeroutput"):
        found = [(name, sorted(named), sorted(caught)) for name, named, caught in session.config.stash[MATRIX]]
        session.config.workeroutput["matrix"] = found


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take what a process of several found."""
    node.config.stash[MATRIX].extend(getattr(node, "workeroutput", {}).get("matrix", []))


def pytest_terminal_summary(terminalreporter, config):
    """Print how many tests each store passed, and which check of the conformance suite caught which faulty receiver, before pytest's own summary."""
    backends = Counter(
        re.search(r"\[([a-z]+)", report.nodeid)[1]
        for report in terminalreporter.stats.get("passed", ())
        if "test_stores.py" in report.nodeid
    )
    if backends:
        terminalreporter.section("the behavioural suite of stores")
        terminalreporter.write_line(", ".join(f"{name}: {count} passed" for name, count in backends.items()))
    rows = config.stash[MATRIX]
    if rows:
        terminalreporter.section("faulty receivers, and the checks that caught them (* has to)")
        for name, named, found in rows:
            checks = [
                f"{check}{'*' * (check in named)}" for check in sorted(found, key=lambda id: (id not in named, id))
            ]
            more = f" and {len(checks) - 8} more" if len(checks) > 8 else ""
            terminalreporter.write_line(f"{name:48} {', '.join(checks[:8]) or 'NOTHING'}{more}")


class Clock:
    """Seconds since the epoch, which a test may move."""

    offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


class InProcess(Client):
    """The mock platform's client, calling the application without a socket."""

    def __init__(self, flask_client, tenant, keys):
        self.flask_client, self.tenant, self.keys = flask_client, tenant, keys

    def call(self, method, path, body=None, headers=None) -> Answer:
        headers = self.headers(path) if headers is None else dict(headers)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        began = time.perf_counter()
        response = self.flask_client.open(path, method=method, data=body, headers=headers)
        found = {name.lower(): value for name, value in response.headers}
        return Answer(response.status_code, found, response.data, time.perf_counter() - began)

    def close(self):
        """There is no connection."""


def ring_of(*stores, tenants=None) -> Keyring:
    """Return the keyring of a receiver with the keys of ``stores`` (StoreKeys), each for any tenant or ``tenants``."""
    found = []
    for number, keys in enumerate(stores):
        tenant = tenants[number] if tenants else None
        found.append(parse_key(json.dumps(keys.platform.public()), "platform", "a test", tenant))
        found.append(parse_key(json.dumps(keys.receiver.private()), "receiver", "a test", tenant))
    return Keyring(found)


def rows_of(path) -> dict[str, list]:
    """Return everything in the SQLite file at ``path``, read by another connection.

    It must be of the same SQLite library: two in one process undo each other's locks.
    """
    connection = sqlite3.connect(path)
    try:
        return {
            table: connection.execute(f"select * from {table} order by 1, 2").fetchall()
            for table in ("states", "receipts")
        }
    finally:
        connection.close()


def until(condition, seconds=20):
    """Return what ``condition`` answers once that is true; fail when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def needed(*names: str) -> None:
    """Skip the test visibly when a program of ``names`` is not on this machine; under CI that is a failure."""
    missing = [name for name in names if not servers.program(name)]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


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


def loaded(platform, id) -> str:
    """Return the content that a GET of ``id`` answers."""
    answer = platform.load(id)
    assert answer.status == 200, answer.body
    return platform.open(id, answer)


def assert_problem(answer, status, *texts):
    """Assert that ``answer`` is an error (protocol, section 8.1) with ``status``, its message holding ``texts``."""
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-manywho-service-problem-kind"] == "service"
    problem = answer.json
    assert set(problem) == {
        *("action", "invokeType", "kind", "message", "responseBody", "responseHeaders", "statusCode", "uri")
    }
    assert problem["kind"] == "service"
    assert problem["statusCode"] == status
    for text in texts:
        assert text in problem["message"]
