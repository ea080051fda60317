"""A disk that freezes: every request is answered in time, others feel nothing, and what thaws goes on without a restart."""

import json
import time
import urllib.error
import urllib.request
import uuid

import pytest

from tests.support.frozen_disk import FrozenDisk
from tests.support.platform_client import assert_problem, loaded
from tests.support.serving import serving
from tests.support.waiting import until

pytestmark = pytest.mark.slow

TIMEOUT = 3.0
MOST = TIMEOUT + 5
URLS = {"sqlite": "sqlite:///{}/states.db", "file": "file://{}/states"}
KINDS = pytest.mark.parametrize("kind", URLS)


@pytest.fixture
def disk(tmp_path):
    return FrozenDisk(tmp_path / "disk", tmp_path / "frozen")


@pytest.fixture
def frozen_receiver(keys, tmp_path, disk):
    """A function that runs a receiver whose store of ``kind`` lies on the disk."""

    def run(kind, **more):
        variables = {
            "DATABASE_URL": URLS[kind].format(disk.path),
            "STORAGE_STORE_TIMEOUT": str(TIMEOUT),
            "STORAGE_LOG_LEVEL": "warning",
            "STORAGE_ADMIN_BIND": "127.0.0.1:0",
        }
        return serving(keys, tmp_path, **disk.environment, **variables | more)

    return run


def in_time(call):
    """Return the answer of ``call``, which must come in time and be the 503 of the protocol."""
    answer = call()
    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "2"
    assert answer.seconds < MOST, answer.seconds
    return answer


def asked(address, path):
    """Return the status and the text that the admin listener answers, and after how many seconds."""
    began = time.monotonic()
    try:
        with urllib.request.urlopen(f"{address}{path}", timeout=20) as reply:
            return reply.status, reply.read().decode(), time.monotonic() - began
    except urllib.error.HTTPError as reply:
        return reply.code, reply.read().decode(), time.monotonic() - began


@pytest.mark.case("I03")
@KINDS
@pytest.mark.parametrize("call", ["load", "save", "delete", "health"])
def test_every_call_on_a_frozen_disk_is_answered_503_in_time(frozen_receiver, disk, platform_at, state, kind, call):
    with frozen_receiver(kind) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        calls = {
            "load": lambda: client.load(state["id"]),
            "save": lambda: client.save(state),
            "delete": lambda: client.delete([str(uuid.uuid4())]),
            "health": client.health,
        }
        with disk.frozen():
            in_time(calls[call])
            status, text, seconds = asked(running.admin, "/readyz")
            assert (status, json.loads(text)["checks"]["store"]["verdict"]) == (503, "fail")
            assert seconds < MOST
        thawed = time.monotonic()
        until(lambda: calls[call]().status in (200, 204), 10)
        assert time.monotonic() - thawed < 2
        assert loaded(client, state["id"]) == state["content"]
