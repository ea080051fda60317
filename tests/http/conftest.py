"""A receiver that HTTP tests call over raw sockets."""

import socket
from urllib.parse import urlsplit

import pytest

from receiver.commands.demo import running_receiver
from receiver.mock_platform.client import Client
from tests.support.raw_http import LIMIT, READ_TIMEOUT
from tests.support.states import rows_of
from tests.support.waiting import pass_time


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def running(keys, folder):
    few = {"STORAGE_WORKERS": "2", "STORAGE_THREADS": "2", "STORAGE_READ_TIMEOUT": str(READ_TIMEOUT)}
    with (
        open(folder / "log", "w") as log,
        running_receiver(keys, folder, log, STORAGE_MAX_BODY=str(LIMIT), STORAGE_LOG_LEVEL="debug", **few) as running,
    ):
        yield running


@pytest.fixture
def platform(running, tenant, keys):
    client = Client(running.url, tenant, keys)
    yield client
    client.close()


@pytest.fixture
def stored(platform, state):
    """A state that is stored, and that no malformed request may change or delete."""
    assert platform.save(state).status == 204
    return state


@pytest.fixture
def unchanged(folder):
    before = rows_of(folder / "states.db")
    yield
    assert rows_of(folder / "states.db") == before


@pytest.fixture
def wire(running):
    """Return a function that sends bytes and returns all that comes back until the server closes, or for a while."""

    def send(data: bytes, wait: float = 1.0, then: bytes = b"", finish: bool = False) -> bytes:
        parts = urlsplit(running.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=wait) as connection:
            received = b""
            try:
                connection.sendall(data)
                if then:
                    pass_time(0.2, "what follows comes in a piece of its own")
                    connection.sendall(then)
                if finish:
                    connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received += chunk
            except TimeoutError:
                return received + b"<still open>"
            except ConnectionError:
                pass
            return received

    return send
