"""A database server that stops, dies and comes back under the load of a real receiver."""

import contextlib
import itertools
import json
import os
import threading
import time

import pytest

from receiver.mock_platform.flow_states import FlowRun
from tests.support import clusters, servers
from tests.support.platform_client import loaded
from tests.support.servers import needed
from tests.support.serving import serving
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow

TIMEOUT = 4
WRITERS = 6


class Client(threading.Thread):
    """Saves new states, one after the other, and remembers what was acknowledged, when, and how long each took."""

    def __init__(self, client, seed, done):
        super().__init__()
        self.client, self.done = client, done
        self.flow = FlowRun(client.tenant, seed)
        self.acknowledged, self.answers = {}, []

    def run(self):
        number = 0
        while not self.done.is_set():
            number += 1
            state = self.flow.state() | {"content": json.dumps({"number": number})}
            if number % 2:
                state["id"] = self.flow.id[:-6] + f"{number:06x}"
            began = time.monotonic()
            answer = self.client.save(state)
            self.answers.append((began, time.monotonic() - began, answer.status))
            if answer.status == 204:
                self.acknowledged[state["id"]] = state["content"]
            else:
                pass_time(0.2, "a platform that was refused does not come again at once")
            self.flow.step()
            self.flow.entries.clear()


@contextlib.contextmanager
def load(platform_at, url):
    """Let clients save as long as the context lasts; yields them."""
    done = threading.Event()
    clients = [Client(platform_at(url), seed, done) for seed in range(WRITERS)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        done.set()
        for client in clients:
            client.join()


def assert_all_there(clients, reader) -> int:
    """Assert that every state that was acknowledged loads as it was; return how many there are."""
    for client in clients:
        reader.tenant = client.client.tenant
        for id, content in client.acknowledged.items():
            assert loaded(reader, id) == content
    return len({id for client in clients for id in client.acknowledged})


def restarted(server, kill) -> tuple[float, float]:
    """Stop or kill ``server`` and start it again; returns when it went and when it was back."""
    went = time.monotonic()
    if kill:
        server.signal_all(9)
        server.process.wait()
    else:
        server.stop()
    pass_time(2, "the length of the outage")
    server.start()
    return went, time.monotonic()


@pytest.mark.case("G13")
@pytest.mark.parametrize("start", [servers.postgresql, servers.mariadb], ids=["postgresql", "mariadb"])
def test_a_server_that_stops_and_dies_under_load_costs_503_and_nothing_that_was_acknowledged(
    start, keys, platform_at, tmp_path
):
    if start is servers.mariadb:
        needed("mariadbd", "mariadb-install-db")
    environment = {"STORAGE_STORE_TIMEOUT": str(TIMEOUT), "STORAGE_LOG_LEVEL": "warning"}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(start())
        url = server.url(server.new_database())
        running = stack.enter_context(serving(keys, tmp_path, DATABASE_URL=url, **environment))
        with load(platform_at, running.url) as clients:
            outages = []
            for kill in (False, True, True):
                pass_time(3, "load without an outage")
                outages.append(restarted(server, kill))
            pass_time(3, "load without an outage")
        answers = sorted(answer for client in clients for answer in client.answers)
        assert {status for _, _, status in answers} == {204, 503}
        assert max(seconds for _, seconds, _ in answers) < TIMEOUT + 1
        ends = [went for went, _ in outages[1:]] + [time.monotonic()]
        for (_, back), end in zip(outages, ends, strict=True):
            between = [(began, status) for began, took, status in answers if back < began and began + took < end]
            failed = [began for began, status in between if status == 503]
            saved = [began + took for began, took, status in answers if status == 204]
            first = min(moment for moment in saved if moment > back) - back
            print(f"first saved {first:.2f} s, well {max([back, *failed]) - back:.2f} s after the server was back")
            assert between[-1][1] == 204
            assert first < 2
            assert max([back, *failed]) - back < 10
            assert len(between) > WRITERS
        there = assert_all_there(clients, platform_at(running.url))
        print(f"{len(answers)} saves, {there} states acknowledged, all there")
        assert running.process.poll() is None


@pytest.mark.case("G16")
def test_a_server_that_comes_after_the_receiver_is_used_when_it_is_there(keys, platform_at, state, tmp_path):
    with servers.postgresql() as server:
        url = server.url(server.new_database())
        server.stop()
        with serving(keys, tmp_path, DATABASE_URL=url, STORAGE_STORE_TIMEOUT="2") as running:
            client = platform_at(running.url)
            assert client.health().status == 503
            assert client.save(state).status == 503
            server.start()
            until(lambda: client.save(state).status == 204, seconds=10, pause=0.2)
            assert loaded(client, state["id"]) == state["content"]
            assert client.health().status == 200


@pytest.mark.case("G16")
@pytest.mark.skipif("CHAOS" not in os.environ, reason="over a minute: make outages")
def test_a_failover_costs_503_for_a_while_and_nothing_that_was_acknowledged(keys, platform_at, tmp_path):
    needed(*clusters.PROGRAMS)
    environment = {"STORAGE_STORE_TIMEOUT": str(TIMEOUT), "STORAGE_LOG_LEVEL": "warning"}
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(clusters.patroni())
        running = stack.enter_context(serving(keys, tmp_path, DATABASE_URL=cluster.url("postgres"), **environment))
        with load(platform_at, running.url) as clients:
            pass_time(3, "load without an outage")
            cluster.switch()
            cluster.wait()
            pass_time(3, "load without an outage")
            killed = cluster.kill_leader()
            until(cluster.leader, seconds=60, message="no other node leads", pause=0.2)
            killed.start()
            cluster.wait()
            pass_time(5, "load without an outage")
        answers = sorted(answer for client in clients for answer in client.answers)
        saved = [moment + took for moment, took, status in answers if status == 204]
        longest = max(after - before for before, after in itertools.pairwise(sorted(saved)))
        print(f"{len(answers)} saves, the longest time without one that was acknowledged: {longest:.1f} s")
        assert {status for _, _, status in answers} <= {204, 503}
        assert answers[-1][2] == 204
        assert max(seconds for _, seconds, _ in answers) < TIMEOUT + 1
        assert assert_all_there(clients, platform_at(running.url)) > WRITERS
