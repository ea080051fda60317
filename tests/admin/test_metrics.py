"""The metrics: exact across workers, threads and kills, and nothing is exported that is not declared."""

import contextlib
import errno
import json
import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from receiver.mock_platform.flow_states import FlowRun
from receiver.problems import REASONS
from receiver.server.arbiter import Master
from receiver.telemetry import metrics
from tests.support.admin import counted, serving, value
from tests.support.serving import children_of
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def test_what_is_exported_has_only_names_that_are_declared(admin):
    calls = {dict(labels).get("call") for _, labels in counted(admin)} - {None}
    assert calls <= set(metrics.CALLS)
    rooms = {dict(labels).get("room") for _, labels in counted(admin)} - {None}
    assert rooms == set(metrics.STAGES)


class Sender(threading.Thread):
    """Sends what it is told to in an order of its own, and counts what was answered."""

    def __init__(self, client, seed):
        super().__init__()
        self.client, self.run_ = client, FlowRun(client.tenant, seed)
        self.answered = Counter()

    def run(self):
        for turn in range(12):
            self.run_.step()
            self.note("save", self.client.save(self.run_.state()))
            self.note("load", self.client.load(self.run_.id))
            if turn % 3 == 0:
                self.note("load", self.client.load(str(uuid.uuid4())))
                self.note("delete", self.client.delete([str(uuid.uuid4()), self.run_.id]))
                self.note("save", self.client.post([{"token": "x"}]))
            if turn % 4 == 0:
                path = f"/api/storage/1/states/{self.client.tenant}"
                headers, body = self.client.headers(path), json.dumps([str(uuid.uuid4())]).encode()
                for sent in (body, body, b"[]"):  # the second is a retry, the third a replay
                    self.note("delete", self.client.call("DELETE", path, sent, headers))
                self.note("load", self.client.call("GET", f"{path}/{self.run_.id}", headers={}))
                self.note("health", self.client.health())
        self.client.close()

    def note(self, call, answer):
        self.answered[call, str(answer.status)] += 1


def test_the_metrics_of_two_workers_of_eight_threads_are_exactly_what_clients_sent(keys, platform_at, tmp_path):
    with serving(keys, tmp_path, STORAGE_WORKERS="2", STORAGE_THREADS="8", STORAGE_LOG_LEVEL="warning") as running:
        senders = [Sender(platform_at(running.url), seed) for seed in range(16)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        sent = sum((sender.answered for sender in senders), Counter())
        found = counted(running)
        assert {
            (dict(labels)["call"], dict(labels)["status"]): number
            for (name, labels), number in found.items()
            if name == "receiver_requests_total"
        } == sent
        print(f"{sum(sent.values())} requests sent and counted: {dict(sent)}")
        for call in ("health", "load", "save", "delete"):
            of_call = sum(number for (name, _), number in sent.items() if name == call)
            assert value(found, "receiver_request_seconds_count", call=call) == of_call
        assert value(found, "receiver_changes_total", jti="repeated") == 16 * 3
        assert value(found, "receiver_changes_total", jti="refused") == 16 * 3
        assert value(found, "receiver_changes_total", jti="new") == sent["save", "204"] + sent["delete", "204"] - 16 * 3
        assert value(found, "receiver_saved_states_total", outcome="stored") == sent["save", "204"]
        assert value(found, "receiver_deleted_states_total") == 16 * 4
        assert value(found, "receiver_refusals_total", status="401", reason="missing") == 16 * 3
        assert value(found, "receiver_refusals_total", status="401", reason="replay") == 16 * 3
        assert value(found, "receiver_refusals_total", status="400", reason="token") == 16 * 4
        assert value(found, "receiver_refusals_total", status="404", reason="not_found") == sent["load", "404"]
        assert value(found, "receiver_room_seconds_count", room="seal") == sent["load", "200"]
        changes = value(found, "receiver_store_commit_changes_sum")
        assert changes >= sent["save", "204"] + sent["delete", "204"]
        assert value(found, "receiver_store_commit_changes_count") == value(
            found, "receiver_store_commit_seconds_count"
        )


def test_what_killed_workers_counted_is_not_lost_and_files_do_not_pile_up(keys, platform_at, tmp_path):
    with serving(keys, tmp_path, STORAGE_WORKERS="2") as running:
        client = platform_at(running.url)
        asked = 0
        for _ in range(4):
            for _ in range(5):
                with contextlib.closing(platform_at(running.url)) as one:
                    asked += one.health().status == 200
            before = children_of(running.process.pid)
            for pid in map(int, set(re.findall(r"Booting worker with pid: (\d+)", (tmp_path / "log").read_text()))):
                if pid in before:
                    os.kill(pid, signal.SIGKILL)
            until(lambda before=before: len(set(children_of(running.process.pid)) - set(before)) >= 2)
        client.close()
        assert value(counted(running), "receiver_requests_total", call="health", status="200") == asked == 20
        (folder,) = tmp_path.glob("receiver-*/metrics")
        assert len(list(folder.iterdir())) == 2 * 3


def test_a_worker_without_room_to_count_serves_all_the_same(monkeypatch, caplog):
    def full(_folder, _slot):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("receiver.telemetry.metrics.prepare_files", full)
    monkeypatch.setattr("receiver.telemetry.metrics.start", lambda *_: pytest.fail("it counts"))
    master, worker = object.__new__(Master), SimpleNamespace()
    folder = SimpleNamespace(path="x", opened_metrics=lambda: contextlib.nullcontext("x/metrics"))
    master.app = SimpleNamespace(admin=object(), folder=folder)
    master.log, master.WORKERS, master.admin_sockets = logging.getLogger("receiver"), {}, []
    master.prepare_worker(worker)
    master.enter_worker(worker)
    assert "the next worker has no metrics: x: No space left on device" in caplog.text


def test_where_there_is_no_room_no_file_is_left_that_cannot_be_read(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    metrics.prepare_files(tmp_path, 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        metrics.prepare_files(tmp_path, 1)
    assert not list(tmp_path.glob("*_1.db")) and len(list(tmp_path.glob("*_0.db"))) == 3


def test_a_gauge_of_a_worker_that_ended_is_wiped_and_its_counters_stay(tmp_path):
    metrics.prepare_files(tmp_path, 0)
    for kind in ("counter", "gauge_livesum"):
        (tmp_path / f"{kind}_0.db").write_bytes(b"x" * 1000)
    metrics.prepare_files(tmp_path, 0)
    assert (tmp_path / "counter_0.db").read_bytes()[:1000] == b"x" * 1000
    assert set((tmp_path / "gauge_livesum_0.db").read_bytes()) == {0}


def test_requests_that_are_not_http_are_counted_as_well(keys, tmp_path):
    with serving(keys, tmp_path) as running:
        parts = urlsplit(running.url)
        with socket.create_connection((parts.hostname, parts.port)) as sock:
            sock.sendall(b"NONSENSE\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 400 ")
        found = counted(running)
        assert value(found, "receiver_requests_total", call="other", status="400") == 1
        assert value(found, "receiver_refusals_total", status="400", reason="http") == 1


def test_states_of_tenants_are_counted_and_told(keys, platform_at, tmp_path):
    with serving(keys, tmp_path, STORAGE_TALLY_EVERY="0.2") as running:
        client = platform_at(running.url)
        flows = [FlowRun(client.tenant, seed) for seed in range(3)]
        for flow in flows:
            assert client.save(flow.state() | {"expiresAt": "2001-01-01T00:00:00Z"}).status == 204
        found = until(
            lambda: value(counted(running), "receiver_stored_states", tenant=client.tenant) == 3 and counted(running)
        )
        size = sum(len(flow.state()["content"].encode()) for flow in flows)
        assert value(found, "receiver_stored_bytes", tenant=client.tenant) == size
        assert value(found, "receiver_expired_states", tenant=client.tenant) == 3
        assert abs(value(found, "receiver_tally_timestamp_seconds") - time.time()) < 60
        kid = keys.receiver.kid
        until(lambda: value(counted(running), "receiver_key_last_used_timestamp_seconds", role="receiver", kid=kid) > 0)


def test_pool_figures_of_a_database_server(keys, postgresql, platform_at, tmp_path):
    url = postgresql.url(postgresql.new_database())
    with serving(keys, tmp_path, DATABASE_URL=url) as running:
        client = platform_at(running.url)
        flow = FlowRun(client.tenant, 1)
        assert client.save(flow.state()).status == 204
        found = counted(running)
        assert value(found, "receiver_store_connects_total") >= 1
        assert value(found, "receiver_store_pool_wait_seconds_count") >= 1
        assert value(found, "receiver_store_pool_connections", state="idle") >= 1
        assert value(found, "receiver_store_pool_connections", state="in_use") == 0
        assert value(found, "receiver_store_commit_seconds_count") >= 1


def test_each_reason_is_a_word():
    assert all(re.fullmatch(r"[a-z_]+", reason) for reason in REASONS)
    assert len(set(REASONS)) == len(REASONS)
