"""Readiness and liveness: what makes a receiver not ready, and what never does."""

import contextlib
import json
import signal
import socket
import threading
import time

import pytest

from receiver.admin import readiness
from receiver.admin.client import AdminClient
from receiver.admin.readiness import Check, Prober
from receiver.problems import StoreUnavailable
from receiver.process.lifecycle import Lifecycle
from receiver.settings import Settings
from tests.support.admin import counted, readyz, serving, value
from tests.support.platform_client import ring_of
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow


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
            pass_time(0.5, "all 32 have come and wait for the store")
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
