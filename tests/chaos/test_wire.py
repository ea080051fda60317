"""The wire of the chaos tests sees each COMMIT of both protocols, and what a receiver answers when its answer is lost."""

import struct
from contextlib import closing

import pytest

from tests.chaos.wire import HOLD, READERS, REFUSE, SWALLOW, MariaReader, PostgresReader, Wire
from tests.support import servers
from tests.support.platform_client import loaded
from tests.support.servers import needed
from tests.support.serving import serving
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!I", len(content) + 4) + content


POSTGRES = (
    struct.pack("!II", 8, 80877103)
    + message(b"", struct.pack("!I", 196608) + b"user\0receiver\0\0")
    + message(b"Q", b"select 'COMMIT'\0")
    + message(b"Q", b"COMMIT\0")
    + message(b"P", b"name\0 commit\0\0\0")
    + message(b"P", b"commit\0select 1\0\0\0")
)


def packet(number: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "little") + bytes([number]) + content


MARIA = packet(1, b"\3COMMIT") + packet(0, b"\3COMMIT") + packet(0, b"\3select 'commit'") + packet(0, b"\3commit")


@pytest.mark.parametrize(("reader", "text"), [(PostgresReader, POSTGRES), (MariaReader, MARIA)])
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_commits_are_seen_wherever_what_is_sent_is_cut(reader, text, size):
    one = reader()
    assert sum(one.commits(text[start : start + size]) for start in range(0, len(text), size)) == 2
    assert one.left == b""


@pytest.mark.case("G13")
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_commit_whose_answer_is_lost_is_not_made_twice_and_a_dead_wire_costs_503(
    kind, keys, platform_at, flow, tmp_path
):
    if kind == "mariadb":
        needed("mariadbd", "mariadb-install-db")
    with getattr(servers, kind)() as server, closing(Wire(server.port, READERS[kind])) as wire:
        url = server.url(server.new_database()).replace(f":{server.port}/", f":{wire.port}/")
        with serving(keys, tmp_path, DATABASE_URL=url, STORAGE_STORE_TIMEOUT="2") as running:
            client = platform_at(running.url)
            for change in (client.save, lambda state: client.delete([state["id"]]), client.save):
                state, wire.cut = flow.state(), 1
                assert change(state).status == 204
                assert wire.cut == 0
            assert loaded(client, flow.id) == state["content"]
            for mode in (SWALLOW, HOLD, REFUSE):
                wire.change(mode)
                answer = client.load(flow.id)
                assert (answer.status, answer.seconds < 7) == (503, True)
                wire.change("pass")
                until(lambda: client.load(flow.id).status == 200, seconds=2)
            assert loaded(client, flow.id) == state["content"]
        assert wire.was_cut == 3
