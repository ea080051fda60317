"""Receivers that are stopped, and started again, under load behind a proxy: no client sees a failed request."""

import contextlib
import json
import sqlite3
import threading
import time
from collections import Counter

import pytest

from receiver.mock_platform import tokens
from receiver.mock_platform.client import BASE
from receiver.mock_platform.flow_states import FlowRun
from tests.conftest import needed
from tests.deployed_proxies import PREFIX, Platform, Receiver, a_proxy

CROWD = 64


@pytest.fixture
def receivers(keys, tmp_path):
    """A function that starts so many receivers, which end with the test."""
    with contextlib.ExitStack() as stack:

        def start(count, **environment):
            made = [
                stack.enter_context(Receiver(keys, tmp_path / f"receiver{number}", **environment))
                for number in range(count)
            ]
            for one in made:
                stack.callback(one.tell_to_stop)  # all at once, before they are waited for: they drain
            return made

        yield start


def connections_to(port: int) -> tuple[int, int]:
    """Return how many connections to ``port`` the receiver has taken, and how many more wait that have sent something."""
    taken, waiting = set(), set()
    with open("/proc/net/tcp") as file:
        for line in list(file)[1:]:
            words = line.split()
            local, peer, state, queues, inode = *words[1:5], words[9]
            if int(local.rpartition(":")[2], 16) == port and state == "01":  # established
                if inode != "0":
                    taken.add(peer)
                elif not queues.endswith(":00000000"):
                    waiting.add(peer)
    return len(taken), len(waiting - taken)


@pytest.mark.case("G05")
@pytest.mark.parametrize("through", ["no proxy", "nginx"])
def test_sigterm_with_64_requests_in_flight_answers_all_of_them(receivers, keys, tenant, tmp_path, through):
    """The store is locked until all have come as far as that; then the only receiver is told to stop, and the lock goes."""
    path = tmp_path / "states.db"
    (one,) = receivers(1, DATABASE_URL=f"sqlite:///{path}", STORAGE_STORE_TIMEOUT="60")
    flows, answers = [FlowRun(tenant, seed) for seed in range(CROWD)], []
    with contextlib.ExitStack() as stack:
        url = f"http://127.0.0.1:{one.port}{PREFIX}"
        if through == "nginx":
            needed("nginx")
            url = stack.enter_context(a_proxy("nginx", [one])).url
        clients = [stack.enter_context(contextlib.closing(Platform(url, tenant, keys))) for _ in flows]
        bodies = [json.dumps([{"token": tokens.seal_state(flow.state(), keys)}]).encode() for flow in flows]

        def send(client, body):
            answers.append(client.call("POST", f"{BASE}/states/{tenant}", body).status)

        with contextlib.closing(sqlite3.connect(path)) as lock:
            lock.execute("begin immediate")
            threads = [threading.Thread(target=send, args=each) for each in zip(clients, bodies, strict=True)]
            for thread in threads:
                thread.start()
            until = time.monotonic() + 60
            while sum(found := connections_to(one.port)) < CROWD:
                assert time.monotonic() < until, found
                time.sleep(0.01)
            one.tell_to_stop()
            time.sleep(1)
            lock.rollback()
        for thread in threads:
            thread.join()
        assert one.ended() == 0
        print(
            f"\nSIGTERM with {found[0]} connections taken and {found[1]} waiting to be: {Counter(answers)}, exit status 0"
        )
        assert answers == [204] * CROWD
        one.start()
        reader = stack.enter_context(contextlib.closing(Platform(url, tenant, keys)))
        for flow in flows:
            assert reader.open(flow.id, reader.load(flow.id)) == flow.content()
