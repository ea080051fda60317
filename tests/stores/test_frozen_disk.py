"""A disk that freezes: every request is answered in time, others feel nothing, and what thaws goes on without a restart."""

import json
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter

import pytest

from tests.support.callers import Player, calling
from tests.support.frozen_disk import FrozenDisk
from tests.support.platform_client import assert_problem, loaded
from tests.support.serving import environment_of, serving
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow

TIMEOUT = 3.0
MOST = TIMEOUT + 5
URLS = {"sqlite": "sqlite:///{}/states.db", "file": "file://{}/states"}
KINDS = pytest.mark.parametrize("kind", URLS)


class Patient(Player):
    """A Player that does not come again at once when it is refused."""

    def turn(self):
        return super().turn() if self.answers[-1:] == [] or self.answers[-1][1] < 500 else self.again()

    def again(self):
        self.done.wait(0.3)
        return super().turn()


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


@KINDS
def test_forty_clients_on_a_disk_that_freezes_lose_nothing_and_are_served_when_it_thaws(
    frozen_receiver, disk, platform_at, kind, tmp_path
):
    with frozen_receiver(kind) as running:
        with calling(Patient(platform_at(running.url), seed) for seed in range(40)) as players:
            until(lambda: all(player.answers for player in players), 30)
            with disk.frozen():
                pass_time(20, "a disk that is frozen for long")
                assert "a call does not return" in (tmp_path / "log").read_text()
                stuck = figure(running, "receiver_store_calls_stuck")
                assert 0 < stuck <= 80  # a load and a save of each
                assert figure(running, "receiver_stores_hanging") > 0
            thawed = time.monotonic()
            until(
                lambda: any(
                    began > thawed and status in (200, 204) for one in players for began, status, _ in one.answers
                )
            )
            assert time.monotonic() - thawed < 2
            until(lambda: all(one.answers[-1][0] > thawed and one.answers[-1][1] in (200, 204) for one in players), 20)
            until(lambda: figure(running, "receiver_store_calls_stuck") == 0, 10)
        answers = [answer for player in players for answer in player.answers]
        print(Counter(status for _, status, _ in answers), "longest", max(seconds for *_, seconds in answers))
        assert {status for _, status, _ in answers} <= {200, 204, 404, 503}
        assert max(seconds for *_, seconds in answers) < MOST
        client = platform_at(running.url)
        for player in players:
            assert client.save(player.flow.state()).status == 204
            assert loaded(client, player.flow.id) == player.flow.state()["content"]
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log and "defect" not in log
    assert log.count("does not return;") == log.count("has returned")


def figure(running, name):
    """Return the value of the metric ``name``."""
    status, text, _ = asked(running.admin, "/metrics")
    assert status == 200
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


def seconds_of(client, id, seconds):
    """Load ``id`` for so many seconds; return how long each took, in order."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        answer = client.load(id)
        assert answer.status == 200, answer.body
        found.append(answer.seconds)
        pass_time(0.005, "a client that asks without haste")
    return sorted(found)


@pytest.mark.case("I03")
@KINDS
def test_the_frozen_disk_of_one_tenant_is_not_felt_by_others(frozen_receiver, disk, platform_at, state, tmp_path, kind):
    tenant, other = str(uuid.uuid4()), str(uuid.uuid4())
    own = {f"STORAGE_TENANT_{tenant.replace('-', '_')}": URLS[kind].format(disk.path)}
    with frozen_receiver(kind, DATABASE_URL=f"sqlite:///{tmp_path}/well.db", **own) as running:
        client, mine = platform_at(running.url), state | {"tenant": other}
        client.tenant = other
        assert client.save(mine).status == 204
        players = [Patient(platform_at(running.url), seed) for seed in range(24)]
        for player in players:
            player.client.tenant = player.flow.tenant = tenant
        with calling(players):
            until(lambda: all(player.answers for player in players), 30)
            with disk.frozen():
                taken = seconds_of(client, mine["id"], 12)
            thawed = time.monotonic()
            until(lambda: all(one.answers[-1][0] > thawed and one.answers[-1][1] in (200, 204) for one in players), 20)
    print([round(one, 2) for one in taken[-40:]])
    print(f"{len(taken)} loads, p99 {statistics.quantiles(taken, n=100)[98]:.3f} s, longest {taken[-1]:.3f} s")
    assert statistics.quantiles(taken, n=100)[98] < 1
    assert taken[-1] < 2
    assert max(seconds for player in players for *_, seconds in player.answers) < MOST


@KINDS
def test_a_file_system_that_takes_no_writes_serves_loads_and_refuses_changes(
    frozen_receiver, disk, platform_at, state, tmp_path, kind
):
    with frozen_receiver(kind) as running:
        client = platform_at(running.url)
        if kind == "file":  # a tenant whose change is committed and not yet in place waits for it
            client.tenant = str(uuid.uuid4())
        assert client.save(state | {"tenant": client.tenant}).status == 204
        with calling(Patient(platform_at(running.url), seed) for seed in range(24)) as players:
            until(lambda: all(player.answers for player in players), 30)
            with disk.frozen(writes_only=True):
                until(lambda: "finishes no change" in (tmp_path / "log").read_text(), 20)
                until(lambda: client.load(state["id"]).status == 200, 10)
                # A thread that has no connection to SQLite yet cannot open one: that load waits, and gets 503.
                answers = [client.load(state["id"]) for _ in range(20)]
                assert sum(answer.status == 200 for answer in answers) > 10
                assert max(answer.seconds for answer in answers) < MOST
            thawed = time.monotonic()
            until(lambda: all(one.answers[-1][0] > thawed and one.answers[-1][1] in (200, 204) for one in players), 20)
    assert max(seconds for player in players for *_, seconds in player.answers) < MOST


@KINDS
def test_a_receiver_with_stuck_calls_reloads_takes_new_workers_and_stops_in_time(
    frozen_receiver, disk, platform_at, state, tmp_path, kind
):
    with frozen_receiver(kind, STORAGE_LOG_LEVEL="info") as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        with disk.frozen():
            in_time(lambda: client.load(state["id"]))
            running.process.send_signal(signal.SIGHUP)
            until(lambda: (tmp_path / "log").read_text().count("has taken keys") >= 2, 10)
            running.process.send_signal(signal.SIGTTIN)
            until(lambda: (tmp_path / "log").read_text().count("Booting worker") >= 3, 10)
            for _ in range(4):
                in_time(platform_at(running.url).health)
            running.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            running.process.wait(MOST)
            print(f"stopped after {time.monotonic() - began:.1f} s")
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_every_call_of_a_database_server_that_freezes_is_answered_503_in_time(
    request, keys, tmp_path, platform_at, state, kind
):
    server = request.getfixturevalue(kind)
    url = server.url(server.new_database())
    variables = {"DATABASE_URL": url, "STORAGE_STORE_TIMEOUT": str(TIMEOUT), "STORAGE_ADMIN_BIND": "127.0.0.1:0"}
    with serving(keys, tmp_path, STORAGE_LOG_LEVEL="warning", **variables) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        players = [Patient(platform_at(running.url), seed) for seed in range(40)]
        with calling(players):
            until(lambda: all(player.answers for player in players), 30)
            server.signal_all(signal.SIGSTOP)
            try:
                for _ in range(2):
                    in_time(lambda: client.load(state["id"]))
                    in_time(lambda: client.save(state))
                    in_time(lambda: client.delete([str(uuid.uuid4())]))
                    in_time(client.health)
                status, _, seconds = asked(running.admin, "/readyz")
                assert status == 503
                assert seconds < MOST
            finally:
                server.signal_all(signal.SIGCONT)
            thawed = time.monotonic()
            until(lambda: client.health().status == 200, 10)
            assert time.monotonic() - thawed < 2
            until(lambda: all(one.answers[-1][0] > thawed and one.answers[-1][1] in (200, 204) for one in players), 20)
        assert max(seconds for player in players for *_, seconds in player.answers) < MOST


@KINDS
@pytest.mark.parametrize("command", [["store", "stats"], ["store", "purge"], ["doctor"], ["serve"]], ids=" ".join)
def test_ctrl_c_ends_a_command_that_hangs_on_a_frozen_disk(keys, tmp_path, disk, kind, command):
    environment = environment_of(keys, tmp_path, DATABASE_URL=URLS[kind].format(disk.path), **disk.environment)
    with serving(keys, tmp_path, DATABASE_URL=environment["DATABASE_URL"]):
        pass  # which makes the store
    program = [sys.executable, "-m", "receiver", *command]
    with disk.frozen():
        hung = subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        pass_time(3, "a command that has come to its store")
        assert hung.poll() is None
        hung.send_signal(signal.SIGINT)
        _, text = hung.communicate(timeout=8)
    print(text)
    assert hung.returncode
    assert b"Traceback" not in text
