"""Workers that are killed, or that cannot start: only what is in flight in them fails, and others take what comes."""

import contextlib
import os
import signal
import socket
import sqlite3
import time
import uuid

import pytest

from receiver.server.respawns import Respawns
from tests.support import raw_http
from tests.support.backends import url_of_an_empty_store
from tests.support.platform_client import loaded
from tests.support.serving import address_of, children_of, serving
from tests.support.waiting import pass_time, until
from tests.support.worker_kills import accepted_by, under_kills

pytestmark = pytest.mark.slow

SECONDS = 5
FAILING = "tests.support.failing_workers"


@pytest.mark.case("G01")
@pytest.mark.parametrize(("workers", "at_once"), [(2, 1), (1, 1)])
@pytest.mark.parametrize("backend", ["sqlite", "filesystem", "postgresql", "mariadb"])
def test_only_what_is_in_flight_in_a_killed_worker_fails(
    request, backend, workers, at_once, keys, platform_at, tmp_path
):
    url = url_of_an_empty_store(request, backend, tmp_path / "states")
    tenants = [str(uuid.uuid4()) for _ in range(8)]
    environment = {"DATABASE_URL": url, "STORAGE_WORKERS": str(workers), "STORAGE_LOG_LEVEL": "warning"}
    with serving(keys, tmp_path, **environment) as running:
        outcome = under_kills(running, keys, tenants, SECONDS, at_once=at_once)
        print(f"{backend}, {workers} workers, {at_once} killed at once: {outcome}")
        assert len(outcome.kills) > SECONDS
        assert outcome.unexplained == []
        held = zip(outcome.failed_in_flight, outcome.in_flight, strict=True)
        assert all(failed <= in_flight for failed, in_flight in held)
        assert outcome.longest_gap < 2
        client = platform_at(running.url)
        for tenant, states in outcome.acknowledged.items():
            client.tenant = tenant
            assert all(loaded(client, id) for id in states)


def test_a_start_whose_workers_all_fail_ends_with_status_3(keys, tmp_path):
    told = tmp_path / "how"
    told.write_text("raise")
    with serving(keys, tmp_path, (FAILING, str(told)), STORAGE_WORKERS="2") as running:
        assert running.process.wait(10) == 3


def test_what_no_thread_can_take_waits_where_another_worker_finds_it(keys, platform_at, state, tmp_path):
    few = {"STORAGE_WORKERS": "1", "STORAGE_THREADS": "2"}
    with serving(keys, tmp_path, **few) as running, contextlib.ExitStack() as stack:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        blocker = stack.enter_context(contextlib.closing(sqlite3.connect(tmp_path / "states.db", isolation_level=None)))
        blocker.execute("begin immediate")  # so that saves wait
        body = b'["%s"]' % str(uuid.uuid4()).encode()
        waiting, began = [], time.monotonic()
        for _ in range(12):
            waiting.append(stack.enter_context(socket.create_connection(address_of(running), timeout=20)))
            waiting[-1].sendall(raw_http.request(client, body=body, lines=(b"Content-Length: %d" % len(body),)))
        client.close()
        (worker,) = children_of(running.process.pid)
        while (kept := time.monotonic() - began) < 2:
            pass_time(0.1, "the store keeps the threads")
            accepted = len(accepted_by(worker, address_of(running)[1]))
            # After each second in a call of a store on a disk, another thread may be started for the one that waits.
            threads = 2 * (1 + int(time.monotonic() - began))
            assert accepted <= threads + 2, kept  # the next request, and the connection that the client has closed
        blocker.execute("rollback")
        assert [one.recv(12) for one in waiting] == [b"HTTP/1.1 204"] * 12


@pytest.mark.parametrize("how", ["fork", "raise", "die"])
def test_workers_that_cannot_start_leave_the_others_alone_and_are_tried_again_with_pauses(
    how, keys, platform_at, tmp_path
):
    told = tmp_path / "how"
    with serving(keys, tmp_path, (FAILING, str(told)), STORAGE_WORKERS="2") as running:
        first, second = until(lambda: len(found := children_of(running.process.pid)) == 2 and found)
        pass_time(1, "both have begun to serve, and it does not show which of them answers")
        told.write_text(how)
        os.kill(first, signal.SIGKILL)
        pass_time(3, "how long no worker can start")
        assert running.process.poll() is None
        assert second in children_of(running.process.pid)
        assert platform_at(running.url).health().status == 200
        assert 3 <= len(told.with_suffix(".forks").read_bytes()) <= 10
        told.unlink()
        until(lambda: len(children_of(running.process.pid)) == 2, seconds=8)


def test_a_worker_that_has_served_is_replaced_at_once_and_one_that_cannot_start_with_longer_and_longer_pauses():
    moment = [0.0]
    respawns = Respawns(lambda: moment[0])
    for _ in range(20):
        respawns.ended(was_serving=True)
        assert respawns.pause() == 0
        moment[0] += 0.5
    pauses = []
    for _ in range(9):
        respawns.ended(was_serving=False)
        pauses.append(round(respawns.pause(), 3))
        moment[0] += respawns.pause()
    assert pauses == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    respawns.ended(was_serving=True)
    assert respawns.pause() == 0


def test_workers_that_die_of_each_request_are_replaced_a_few_times_a_second_at_most():
    moment, spawned = [0.0], 0
    respawns = Respawns(lambda: moment[0])
    while moment[0] < 60:
        respawns.ended(was_serving=True)
        moment[0] += 0.02 + respawns.pause()
        spawned += 1
    assert spawned < 60 * 9
