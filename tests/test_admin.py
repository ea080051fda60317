"""The admin listener: is the receiver well, is it ready, what did it count; and an end without haste."""

import contextlib
import errno
import http.client
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver.admin import readiness
from receiver.admin.client import AdminClient
from receiver.admin.readiness import Check, Prober
from receiver.commands.demo import running_receiver
from receiver.keys import keyring
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from receiver.problems import REASONS, StoreUnavailable
from receiver.process.lifecycle import Lifecycle
from receiver.process.run_folder import RunFolder
from receiver.process.running import services
from receiver.secret import Secret
from receiver.server.arbiter import Master
from receiver.settings import Settings
from receiver.telemetry import metrics
from tests.conftest import ring_of, until
from tests.test_commands import receiver
from tests.test_serving import children_of, environment_of


@contextlib.contextmanager
def serving(keys, folder, **environment):
    """Run a receiver with an admin listener; yields it."""
    environment = {"STORAGE_ADMIN_BIND": "127.0.0.1:0", "STORAGE_RUN_DIR": str(folder), **environment}
    with open(folder / "log", "a") as log, running_receiver(keys, folder, log, **environment) as running:
        yield running


def readyz(running) -> tuple[int, dict]:
    return AdminClient(running.admin).get_json("/readyz")


def counted(running) -> dict[tuple, float]:
    """Return (name, labels) → value of what is exported, labels as a sorted tuple of pairs."""
    with urllib.request.urlopen(f"{running.admin}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))), 0.0)


def admin_of(running) -> int:
    """Return the process id of the admin listener: the child that is no worker."""
    workers = re.findall(r"Booting worker with pid: (\d+)", (running.folder / "log").read_text())
    (found,) = set(children_of(running.process.pid)) - set(map(int, workers))
    return found


def test_a_receiver_that_is_well_says_so_check_by_check(keys, tmp_path):
    with serving(keys, tmp_path) as running:
        assert AdminClient(running.admin).get_json("/livez") == (200, {"status": "alive"})
        status, found = until(lambda: (answer := readyz(running))[0] == 200 and answer)
        assert (status, found["status"]) == (200, "ready")
        assert set(found["checks"]) == set(readiness.NAMES)
        assert {check["verdict"] for check in found["checks"].values()} == {"ok"}
        assert "1 platform, 1 receiver" in found["checks"]["keys"]["told"]
        assert found["checks"]["workers"]["told"] == "2 of 2 run"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("POST", "/readyz", 405),
        ("DELETE", "/livez", 405),
        ("HEAD", "/livez", 200),
    ],
)
def test_nothing_else_is_answered(keys, admin, method, path, status):
    parts = urlsplit(admin.admin)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request(method, path)
    assert connection.getresponse().status == status
    connection.close()


def test_the_calls_are_not_answered_there_nor_probes_here(admin):
    for url, path in ((admin.admin, "/api/storage/1/health"), (admin.url, "/readyz"), (admin.url, "/metrics")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url + path)
        assert refused.value.code == 404
        refused.value.close()


@pytest.fixture(scope="module")
def admin(tmp_path_factory):
    with serving(new_store(), tmp_path_factory.mktemp("admin")) as running:
        yield running


def test_what_is_exported_has_only_names_that_are_declared(admin):
    calls = {dict(labels).get("call") for _, labels in counted(admin)} - {None}
    assert calls <= set(metrics.CALLS)
    rooms = {dict(labels).get("room") for _, labels in counted(admin)} - {None}
    assert rooms == set(metrics.ROOMS)


def test_a_store_that_is_gone_is_not_ready_and_alive_and_ready_again_when_it_is_back(keys, tmp_path):
    with serving(keys, tmp_path) as running:
        until(lambda: readyz(running)[0] == 200)
        (tmp_path / "states.db").rename(tmp_path / "aside")
        _, found = until(lambda: (answer := readyz(running))[0] == 503 and answer)
        assert found["status"] == "not ready"
        assert found["checks"]["store"]["verdict"] == "fail"
        assert AdminClient(running.admin).get_json("/livez")[0] == 200
        assert value(counted(running), "receiver_ready") == 0
        assert value(counted(running), "receiver_check", check="store") == 0
        assert value(counted(running), "receiver_check", check="keys") == 1
        (tmp_path / "aside").rename(tmp_path / "states.db")
        until(lambda: readyz(running)[0] == 200)


def test_a_database_server_that_does_not_answer_is_not_ready(keys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        url = f"postgresql://u:secret@127.0.0.1:{silent.getsockname()[1]}/d"
        with serving(keys, tmp_path, DATABASE_URL=url, STORAGE_STORE_TIMEOUT="1") as running:
            began = time.monotonic()
            status, found = readyz(running)
            assert time.monotonic() - began < readiness.PATIENCE + 1.5
            assert (status, found["checks"]["store"]["verdict"]) == (503, "fail")
            assert AdminClient(running.admin).get_json("/livez")[0] == 200
            assert "secret" not in json.dumps(found)


def test_a_tenants_own_store_that_is_down_is_warned_about_and_takes_nobody_else_down(keys, tenant, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    with serving(keys, tmp_path, **{f"STORAGE_TENANT_{tenant.replace('-', '_')}": f"sqlite:///{own}/x.db"}) as running:
        until(lambda: readyz(running)[0] == 200)
        (own / "x.db").rename(own / "aside")
        found = until(lambda: (answer := readyz(running)[1])["checks"]["store"]["verdict"] == "warn" and answer)
        assert found["status"] == "ready"
        assert tenant in found["checks"]["store"]["told"]


def test_a_tenants_own_store_that_hangs_takes_nobody_else_down_either(keys, tenant, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        own = {f"STORAGE_TENANT_{tenant.replace('-', '_')}": url, "STORAGE_STORE_TIMEOUT": "1"}
        with serving(keys, tmp_path, **own) as running:
            for _ in range(3):
                status, found = readyz(running)
                assert (status, found["checks"]["store"]["verdict"]) == (200, "warn")
                assert tenant in found["checks"]["store"]["told"]


def test_many_who_ask_for_a_store_that_hangs_do_not_hold_up_the_question_whether_the_process_is_alive(keys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        with serving(keys, tmp_path, DATABASE_URL=url, STORAGE_STORE_TIMEOUT="10") as running:
            asked = [
                threading.Thread(target=AdminClient(running.admin).get, args=[path])
                for path in ["/readyz"] * 24 + ["/metrics"] * 8
            ]
            for thread in asked:
                thread.start()
            time.sleep(0.5)
            began = time.monotonic()
            assert AdminClient(running.admin).get_json("/livez")[0] == 200
            assert time.monotonic() - began < 2
            for thread in asked:
                thread.join()


def test_a_disk_without_the_room_that_is_asked_for_is_not_ready_unless_nobody_asks(keys, tmp_path):
    for least, status in (("1000000GiB", 503), ("0", 200)):
        with serving(keys, tmp_path, STORAGE_MIN_FREE=least) as running:
            answer = until(lambda running=running, status=status: (got := readyz(running))[0] == status and got)
            assert "MiB are free" in answer[1]["checks"]["disk"]["told"]


def test_a_schema_that_a_newer_version_has_changed_meanwhile_is_told(keys, tmp_path):
    from receiver.stores.sqlite.file import sqlite3

    with serving(keys, tmp_path) as running:
        until(lambda: readyz(running)[0] == 200)
        connection = sqlite3.connect(tmp_path / "states.db")
        connection.execute(
            "insert into _sqlite_migrations (migration_set, name, applied_at) values ('receiver', '0099_later', '')"
        )
        connection.commit()
        connection.close()
        _, found = until(lambda: (answer := readyz(running))[0] == 503 and answer)
        assert "newer than this program knows" in found["checks"]["migrations"]["told"]
        assert found["checks"]["store"]["verdict"] == "ok"


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

    monkeypatch.setattr("receiver.telemetry.metrics.make_room", full)
    monkeypatch.setattr("receiver.telemetry.metrics.start", lambda *_: pytest.fail("it counts"))
    master, worker = object.__new__(Master), SimpleNamespace()
    folder = SimpleNamespace(path="x", opened_metrics=lambda: contextlib.nullcontext("x/metrics"))
    master.app = SimpleNamespace(admin=object(), folder=folder)
    master.log, master.WORKERS, master.admin_sockets = logging.getLogger("receiver"), {}, []
    master.prepare_worker(worker)
    master.enter_worker(worker)
    assert "the next worker counts nothing: x: No space left on device" in caplog.text


def test_where_there_is_no_room_no_file_is_left_that_cannot_be_read(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    metrics.make_room(tmp_path, 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        metrics.make_room(tmp_path, 1)
    assert not list(tmp_path.glob("*_1.db")) and len(list(tmp_path.glob("*_0.db"))) == 3


def test_a_gauge_of_a_worker_that_ended_is_wiped_and_its_counters_stay(tmp_path):
    metrics.make_room(tmp_path, 0)
    for kind in ("counter", "gauge_livesum"):
        (tmp_path / f"{kind}_0.db").write_bytes(b"x" * 1000)
    metrics.make_room(tmp_path, 0)
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


def test_an_admin_listener_that_is_killed_comes_again_and_no_call_notices(keys, platform_at, tmp_path):
    with serving(keys, tmp_path) as running:
        running.folder = tmp_path
        until(lambda: len(children_of(running.process.pid)) == 3)
        first = admin_of(running)
        os.kill(first, signal.SIGKILL)
        assert platform_at(running.url).health().status == 200

        def is_back():
            with contextlib.suppress(OSError):
                return readyz(running)[0] == 200

        until(is_back)
        assert admin_of(running) != first


def test_nothing_is_left_of_a_receiver_that_was_killed_when_the_next_one_is_there(keys, tmp_path):
    with serving(keys, tmp_path) as running:
        children = children_of(running.process.pid)
        running.process.kill()
        running.process.wait()
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), 10)
    with serving(keys, tmp_path, STORAGE_ADMIN_BIND=running.admin.removeprefix("http://")) as running:
        assert len(list(tmp_path.glob("receiver-*"))) == 1
        assert services(str(tmp_path))[0].pid == running.process.pid
    assert list(tmp_path.glob("receiver-*")) == []


def test_an_address_that_is_taken_stops_the_start(keys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        environ = environment_of(keys, tmp_path, STORAGE_BIND="127.0.0.1:0", STORAGE_ADMIN_BIND=address)
        command = [sys.executable, "-m", "receiver", "serve"]
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 75
    assert f"STORAGE_ADMIN_BIND: {address} is taken: " in ran.stderr
    assert ran.stderr.endswith(f", pid {os.getpid()}. Stop that one, or give this receiver another address, or off\n")


def test_a_unix_socket_will_do_and_none_at_all(keys, platform_at, tmp_path):
    with serving(keys, tmp_path, STORAGE_ADMIN_BIND=f"unix:{tmp_path}/admin.sock"):
        assert until(lambda: AdminClient(f"unix:{tmp_path}/admin.sock").get_json("/readyz")[0] == 200)
        told = receiver("health", cwd=tmp_path, STORAGE_ADMIN_BIND=f"unix:{tmp_path}/admin.sock")
        assert (told.returncode, told.stdout) == (0, "ready\n")
    assert not (tmp_path / "admin.sock").exists()
    with serving(keys, tmp_path, STORAGE_ADMIN_BIND="off") as running:
        assert running.admin == "off"
        assert platform_at(running.url).health().status == 200
        until(lambda: len(children_of(running.process.pid)) == 2)
    told = receiver("health", cwd=tmp_path, STORAGE_ADMIN_BIND="off")
    assert told.returncode == 1 and "nobody to ask" in told.stderr


def test_receiver_health_tells_by_its_exit_status(keys, tmp_path):
    with serving(keys, tmp_path) as running:
        address = running.admin.removeprefix("http://")
        until(lambda: readyz(running)[0] == 200)
        assert receiver("health", "--live", cwd=tmp_path, STORAGE_ADMIN_BIND=address).stdout == "alive\n"
        asked = receiver("health", "--json", cwd=tmp_path, STORAGE_ADMIN_BIND=address)
        assert (asked.returncode, json.loads(asked.stdout)["status"]) == (0, "ready")
        (tmp_path / "states.db").rename(tmp_path / "aside")
        until(lambda: readyz(running)[0] == 503)
        asked = receiver("health", cwd=tmp_path, STORAGE_ADMIN_BIND=address)
        assert asked.returncode == 1
        assert asked.stdout.startswith("not ready\n  store: fail, ")
    asked = receiver("health", cwd=tmp_path, STORAGE_ADMIN_BIND=address)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "no answer at" in asked.stderr


def test_sigterm_fails_readiness_first_and_answers_until_the_listener_closes(keys, platform_at, tmp_path):
    with serving(keys, tmp_path, STORAGE_DRAIN="2") as running:
        until(lambda: readyz(running)[0] == 200)
        kept = platform_at(running.url)
        assert kept.health().headers.get("connection") != "close"
        running.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, found = until(lambda: (answer := readyz(running))[0] == 503 and answer)
        assert (found["status"], AdminClient(running.admin).get_json("/livez")[0]) == ("draining", 200)
        assert value(counted(running), "receiver_draining") == 1
        answers = []
        while time.monotonic() - began < 1.5:
            with contextlib.closing(platform_at(running.url)) as client:
                answers.append(client.health())
        assert {answer.status for answer in answers} == {200}
        assert {answer.headers["connection"] for answer in answers} == {"close"}
        assert running.process.wait(20) == 0
        assert 1.9 < time.monotonic() - began < 10
    assert "draining: readiness fails now" in (tmp_path / "log").read_text()


def test_a_second_sigterm_ends_the_drain(keys, tmp_path):
    with serving(keys, tmp_path, STORAGE_DRAIN="600") as running:
        running.process.send_signal(signal.SIGTERM)
        until(lambda: readyz(running)[0] == 503)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0


def test_a_check_that_hangs_or_fails_holds_up_no_other():
    released = threading.Event()

    def defect():
        raise RuntimeError("private")

    def down():
        raise StoreUnavailable("the server is away")

    prober = Prober(
        {
            "hangs": lambda: released.wait(20) and Check("ok", ""),
            "defect": defect,
            "down": down,
            "well": lambda: Check("ok", "well"),
        },
        patience=0.3,
    )
    for _ in range(3):
        began = time.monotonic()
        assert prober.ask() == {
            "hangs": Check("fail", "there was no answer in time"),
            "defect": Check("fail", "RuntimeError"),
            "down": Check("fail", "the server is away"),
            "well": Check("ok", "well"),
        }
        assert time.monotonic() - began < 5
    released.set()


def test_many_probes_ask_the_store_once_a_second():
    asked = []
    prober = Prober({"store": lambda: asked.append(1) or Check("ok", "")})
    for _ in range(50):
        prober.ask()
    assert 1 <= len(asked) <= 5


def test_keys_of_one_role_only_are_no_service(keys):
    ring = ring_of(keys)
    assert readiness.check_keys(ring).verdict == "ok"
    ring._keys = {name: key for name, key in ring._keys.items() if name[0] == "platform"}
    assert readiness.check_keys(ring) == Check("fail", "there is no receiver key")
    ring = ring_of(keys)
    ring.exposed = ("a file is open",)
    assert readiness.check_keys(ring) == Check("warn", "a file is open")


def test_workers_are_missed():
    life, settings = Lifecycle(), Settings(workers=2)
    for running, verdict in ((2, "ok"), (1, "warn"), (0, "fail")):
        life.beat(running)
        assert readiness.check_workers(settings, life).verdict == verdict
    assert life.is_well and not life.is_ending
    life.drain()
    assert life.is_ending and life.is_well
    life.stop()
    assert life.is_ending and life.is_well


def test_a_master_that_is_silent_is_not_alive(monkeypatch):
    life = Lifecycle()
    life.beat(2)
    now = time.monotonic()
    monkeypatch.setattr("receiver.process.lifecycle.time.monotonic", lambda: now + 61)
    assert not life.is_well
    assert readiness.check_workers(Settings(workers=2), life).verdict == "fail"


def test_folders_of_receivers_that_run_are_left_alone_and_others_go(tmp_path):
    first = RunFolder(str(tmp_path))
    (tmp_path / "receiver-of-somebody").mkdir()
    (tmp_path / "receiver-dead").mkdir()
    (tmp_path / "receiver-dead" / "lock").touch()
    second = RunFolder(str(tmp_path))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {first.path.name, second.path.name, "receiver-of-somebody"}
    assert first.path.stat().st_mode & 0o777 == 0o700
    first.introduce(["http://127.0.0.1:1"], None)
    (found,) = services(str(tmp_path))
    assert (found.pid, found.addresses, found.admin, found.trial) == (
        os.getpid(),
        ["http://127.0.0.1:1"],
        None,
        first.path / "trial",
    )
    first.remove()
    assert services(str(tmp_path)) == []


def test_a_folder_that_is_taken_away_is_made_anew_and_nothing_ends(keys, platform_at, tmp_path):
    with serving(keys, tmp_path) as running:
        until(lambda: readyz(running)[0] == 200)
        (former,) = tmp_path.glob("receiver-*")
        shutil.rmtree(former)
        until(lambda: list(tmp_path.glob("receiver-*/service.json")))
        (folder,) = tmp_path.glob("receiver-*")
        assert folder.name != former.name
        for child in children_of(running.process.pid):
            os.kill(child, signal.SIGKILL)

        def counts():
            with contextlib.suppress(OSError):
                return value(counted(running), "receiver_requests_total", call="health", status="200") == 1

        until(lambda: len(children_of(running.process.pid)) == 3)
        assert platform_at(running.url).health().status == 200
        until(counts)
        assert services(str(tmp_path))[0].pid == running.process.pid
        assert folder.stat().st_mode & 0o777 == 0o700
    assert running.process.returncode == 0
    assert list(tmp_path.glob("receiver-*")) == []


def test_keys_of_a_trial_that_was_left_behind_go(tmp_path):
    folder = RunFolder(str(tmp_path))
    assert folder.end_trials() is False
    left = folder.trial / "t"
    left.mkdir()
    (left / "receiver.json").touch()
    assert folder.end_trials() is False
    os.utime(left, (1, 1))
    assert folder.end_trials() is True
    assert list(folder.trial.iterdir()) == []
    (folder.trial / "no folder").touch()
    os.utime(folder.trial / "no folder", (1, 1))
    assert folder.end_trials() is False  # what cannot be taken away is no reason to read all keys each second


def test_keys_of_a_trial_never_stand_for_others_nor_in_the_way_of_others_and_end_by_themselves(
    keys, foreign_keys, tenant, monkeypatch, tmp_path
):
    folder = tmp_path / "trial" / tenant
    folder.mkdir(parents=True)
    for role, text in (
        ("platform", json.dumps(foreign_keys.platform.public())),
        ("receiver", json.dumps(foreign_keys.receiver.private())),
    ):
        path = folder / f"{role}-{getattr(foreign_keys, role).kid}.json"
        path.write_text(text)
        path.chmod(0o600)
    (folder / f"platform-{keys.platform.kid}.json").write_text(json.dumps(keys.platform.public()))
    (folder / f"platform-{uuid.uuid4()}.json").write_text("half a ke")
    (folder.parent / "platform-for-anybody.json").write_text(json.dumps(new_store().platform.public()))
    texts = {"PLATFORM_KEY": keys.platform.public(), "RECEIVER_KEY": keys.receiver.private()}
    settings = Settings(
        keys=tmp_path / "none", key_texts={name: Secret(json.dumps(text)) for name, text in texts.items()}
    )
    (tmp_path / "none").mkdir()
    ring, mistakes = keyring.load(settings, tmp_path / "trial")
    assert mistakes == []
    assert ring.tried == {foreign_keys.platform.kid, foreign_keys.receiver.kid}
    assert ring.find("platform", foreign_keys.platform.kid, tenant)
    assert ring.find("platform", foreign_keys.platform.kid, str(uuid.uuid4())) is None
    assert ring.find("platform", keys.platform.kid, str(uuid.uuid4())).source == "PLATFORM_KEY"
    assert len(list(ring)) == 4
    now = time.monotonic()
    monkeypatch.setattr("receiver.keys.keyring.time.monotonic", lambda: now + 121)
    assert ring.find("platform", foreign_keys.platform.kid, tenant) is None
    assert ring.find("platform", keys.platform.kid, tenant)


def test_each_reason_is_a_word():
    assert all(re.fullmatch(r"[a-z_]+", reason) for reason in REASONS)
    assert len(set(REASONS)) == len(REASONS)
