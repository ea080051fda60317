"""Receivers that are stopped, and started again, under load behind a proxy: no client sees a failed request."""

import contextlib
import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter

import pytest

from receiver.mock_platform import tokens
from receiver.mock_platform.client import BASE, Client
from receiver.mock_platform.flow_states import FlowRun
from tests.support.deployed_proxies import PREFIX, Platform, Receiver, a_proxy
from tests.support.servers import needed
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow

CROWD = 64
ROUNDS = int(os.environ.get("CHAOS", "1"))


class User(threading.Thread):
    """Saves and loads a state of its own, one request after the other over one connection, and counts what came."""

    def __init__(self, client: Client, seed: int, done: threading.Event, padding: int, pause: float):
        super().__init__(daemon=True)
        self.client, self.done, self.padding, self.pause = client, done, padding, pause
        self.noise, self.flow = random.Random(seed), FlowRun(client.tenant, seed)
        self.counts, self.failures = Counter(), []
        self.acknowledged, self.slowest = "", 0.0

    def run(self):
        with contextlib.closing(self.client):
            while not self.done.is_set():
                self.turn()
                self.done.wait(self.noise.uniform(0, self.pause))

    def turn(self):
        self.flow.step()
        content = json.dumps({"at": self.flow.updated_at, "padding": self.noise.randbytes(self.padding).hex()})
        state = self.flow.state() | {"content": content}
        self.flow.entries.clear()
        if self.note("save", 204, lambda: self.client.save(state)):
            self.acknowledged = content
        answer = self.note("load", 200, lambda: self.client.load(self.flow.id))
        if answer and self.client.open(self.flow.id, answer) != self.acknowledged:
            self.failures.append("another content than was acknowledged last")

    def note(self, what, expected, call):
        """Do ``call`` once, and never again: whatever else than ``expected`` comes of it is a failure."""
        began = time.monotonic()
        try:
            answer = call()
        except Exception as failure:
            self.failures.append(f"{what}: {failure!r} after {time.monotonic() - began:.2f} s")
            return None
        self.slowest = max(self.slowest, answer.seconds)
        self.counts[answer.status] += 1
        if answer.status != expected:
            self.failures.append(f"{what}: {answer.status} {answer.body!r} after {answer.seconds:.2f} s")
            return None
        return answer


@contextlib.contextmanager
def crowd(platform, size, paddings=(200,), pause=0.0):
    """Let so many users work as long as the context lasts; then nothing may have failed or be missing.

    ``platform`` makes a client; the content of users is larger by these ``paddings``, in turn. Yields a list, to which
    the figures are added at the end.
    """
    done, figures = threading.Event(), []
    users = [User(platform(), seed, done, paddings[seed % len(paddings)], pause) for seed in range(size)]
    for user in users:
        user.start()
    try:
        yield figures
    finally:
        done.set()
        for user in users:
            user.join(120)
    assert not any(user.is_alive() for user in users)
    assert [failure for user in users for failure in user.failures] == []
    counts = sum((user.counts for user in users), Counter())
    assert set(counts) == {200, 204}
    assert all(user.counts[200] > 1 for user in users)
    with contextlib.closing(platform()) as reader:
        for user in users:
            assert reader.open(user.flow.id, reader.load(user.flow.id)) == user.acknowledged
    slowest = max(user.slowest for user in users)
    figures.append(
        f"{counts[204]} saves and {counts[200]} loads by {size} clients, none failed, slowest {slowest:.2f} s"
    )


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


def test_three_receivers_are_restarted_one_after_the_other_behind_haproxy_and_no_request_fails(
    receivers, keys, tenant, postgresql
):
    """Every fourth client saves states that are too large for HAProxy to send them again: draining alone helps these."""
    needed("haproxy")
    three = receivers(3, DATABASE_URL=postgresql.url(postgresql.new_database()), STORAGE_WORKERS="1", STORAGE_DRAIN="2")
    took = []
    with a_proxy("haproxy", three) as proxy:
        for name in ("one", "two", "three"):
            proxy.wait_until(name, "UP")
        with crowd(lambda: Platform(proxy.url, tenant, keys), 24, (200, 2_000, 20_000, 100_000), pause=0.5) as figures:
            for _ in range(ROUNDS):
                for name, receiver in zip(("one", "two", "three"), three, strict=True):
                    began = time.monotonic()
                    receiver.tell_to_stop()
                    assert receiver.ended() == 0
                    stopped = time.monotonic() - began
                    proxy.wait_until(name, "DOWN")
                    receiver.start()
                    proxy.wait_until(name, "UP")
                    took.append((stopped, time.monotonic() - began))
        again = proxy.sent_again()
    for receiver in three:
        assert "Traceback" not in receiver.log
    print(f"\n{figures[0]}; {again} requests were sent again by HAProxy")
    print("stopped, and serving again, after: " + ", ".join(f"{one:.1f} s, {both:.1f} s" for one, both in took))


@pytest.mark.parametrize("drain", ["0", "2"])
def test_sigterm_under_64_clients_behind_nginx_fails_no_request(receivers, keys, tenant, tmp_path, drain):
    needed("nginx")
    one, two = receivers(2, DATABASE_URL=f"sqlite:///{tmp_path}/states.db", STORAGE_DRAIN=drain)
    with a_proxy("nginx", [one, two]) as proxy:
        with crowd(lambda: Platform(proxy.url, tenant, keys), CROWD) as figures:
            pass_time(4, "load before what is tried")
            began = time.monotonic()
            one.tell_to_stop()
            assert one.ended() == 0
            took = time.monotonic() - began
            pass_time(2, "load afterwards")
        again = proxy.sent_again()
    print(f"\nSTORAGE_DRAIN={drain}: {figures[0]}; stopped in {took:.1f} s, exit status 0")
    print(f"{again} requests were sent again by nginx")
    assert "Traceback" not in one.log


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
            found = until(
                lambda: sum(now := connections_to(one.port)) >= CROWD and now,
                60,
                lambda: connections_to(one.port),
                0.01,
            )
            one.tell_to_stop()
            pass_time(1, "the requests are still held when it has been told to stop")
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
