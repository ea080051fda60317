"""Runs and migrations of the simulated platform, with real receivers as their stores."""

import contextlib
import http.server
import json
import re
import threading
import uuid

import pytest

from receiver.mock_platform.crowd import Crowd
from receiver.mock_platform.delivery import Network, Undelivered
from receiver.mock_platform.migration import migrate
from receiver.mock_platform.model import Refusal, StorageSettings
from receiver.mock_platform.platform import Platform
from receiver.mock_platform.runtime import Runtime, Visitor
from tests.support.commands import receiver as run_receiver
from tests.support.simulators import a_receiver
from tests.support.waiting import pass_time

pytestmark = pytest.mark.slow

GERMAN, SINGAPOREAN = Visitor("DE"), Visitor("SG", "22222222-2222-4333-8444-555555555555")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One receiver for all tests that neither stop it nor look into its log alone."""
    with a_receiver(tmp_path_factory.mktemp("shared"), STORAGE_WORKERS="2") as receiver:
        yield receiver


class World:
    """A platform with one tenant and one store, which is ``receiver``."""

    def __init__(self, receiver, *settings, **options):
        self.receiver = receiver
        self.platform = Platform(seed=7, **options)
        self.store = self.platform.register("local", receiver.url, keys=receiver.keys)
        self.tenant = self.platform.add_tenant(str(uuid.uuid4()), "T")
        self.mode(*settings)
        self.runtime = Runtime(self.platform)

    def mode(self, states, replication=False):
        self.tenant.storage = StorageSettings(states, replication, self.store.id)

    @property
    def line(self):
        return self.platform.channel(self.store.id, self.tenant.id)

    def start(self, visitor=GERMAN, **how):
        return self.runtime.start(self.tenant, "Claim", visitor, **how)["stateId"]

    def act(self, id, action, visitor=GERMAN, *more):
        return self.runtime.act(self.tenant, id, action, visitor, *more)

    def held(self, id):
        found = self.platform.held.find(self.tenant.id, id)
        return found and found.state

    def migrate(self, size=50, batches=None):
        return migrate(self.platform, self.tenant, self.store, size, batches)

    def batches(self):
        """Return (stored, ignored) of each save that the receiver answered 204 for this tenant."""
        pattern = rf"POST /api/storage/1/states/{self.tenant.id} 204 .* stored=(\d+) ignored=(\d+)"
        return [tuple(map(int, found)) for found in re.findall(pattern, self.receiver.log())]


@pytest.fixture
def world(shared):
    made = []

    def make(*settings, receiver=shared, **options):
        made.append(World(receiver, *settings, **options))
        return made[-1]

    yield make
    for one in made:
        one.platform.close()


@contextlib.contextmanager
def refused(status, text):
    with pytest.raises(Refusal, match=re.escape(text), check=lambda refusal: refusal.status == status):
        yield


def test_each_mode_keeps_the_state_where_it_says(world):
    here, there, both = world(False), world(True), world(True, True)
    for one in (here, there, both):
        one.id = one.start()
        one.act(one.id, "step")
    assert here.held(here.id)["content"]
    assert here.line.load(here.id) is None
    assert there.held(there.id) is None
    assert json.loads(there.line.load(there.id))["compositeId"]["guid"] == there.id
    assert both.line.load(both.id) == both.held(both.id)["content"]
    assert len(json.loads(both.held(both.id)["content"])["stateEntries"]) == 7


def test_a_run_is_joined_from_another_region_voted_in_and_finished(world):
    one = world(True)
    id = one.start()
    joined = one.act(id, "join", SINGAPOREAN)
    assert (joined["region"], joined["host"][:3]) == ("SG", "sg.")
    assert joined["updatedAt"].endswith("+08:00")
    assert SINGAPOREAN.user in joined["users"]
    one.act(id, "vote", SINGAPOREAN, "no")
    voted = one.act(id, "vote", GERMAN, "yes")
    assert sorted(voted["votes"].values()) == ["no", "yes"]
    assert voted["updatedAt"].endswith("+01:00")
    finished = one.act(id, "finish")
    assert finished["isDone"]
    document = json.loads(one.line.load(id))
    assert document["joinedUsers"] == {SINGAPOREAN.user: "SG"}
    assert document["isDone"] is True
    with refused(409, "the run is finished"):
        one.act(id, "step")


def test_an_expired_run_is_refused_and_purged_by_the_receiver(world, tmp_path):
    with a_receiver(tmp_path) as receiver:
        one = world(True, receiver=receiver)
        id, other = one.start(), one.start()
        assert one.act(id, "expire")["expired"]
        with refused(410, "the run has expired"):
            one.act(id, "step")
        pass_time(1, "a purge takes what expired before the present second")
        ran = run_receiver("store", "purge", cwd=tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/states.db")
        assert (ran.returncode, ran.stdout) == (0, "1 expired state deleted\n")
        assert one.line.load(id) is None
        assert one.line.load(other) is not None
        receiver.stop(one.platform)


@pytest.mark.parametrize("settings", [(False,), (True,), (True, True)])
def test_a_deleted_run_is_nowhere(world, settings):
    one = world(*settings)
    id = one.start()
    one.runtime.delete(one.tenant, id)
    one.runtime.delete(one.tenant, id)
    assert (one.held(id), one.line.load(id)) == (None, None)
    with refused(404, "no such state"):
        one.act(id, "step")
    assert one.runtime.latest(one.tenant) == []


def test_a_run_that_began_on_the_platform_goes_on_in_the_store(world):
    one = world(False)
    id = one.start()
    one.mode(True)
    assert one.act(id, "step")["keptBy"] == ["local"]
    assert one.held(id) is None
    assert len(json.loads(one.line.load(id))["stateEntries"]) == 7


def test_restrictions_hold_for_starting_and_for_joining(world):
    one = world(False)
    id = one.start()
    one.tenant.restriction = one.tenant.restriction.__class__(countries=frozenset({"DE"}))
    one.act(id, "step")
    with refused(403, "users from DE only; this one is in SG"):
        one.act(id, "join", SINGAPOREAN)
    with refused(403, "users from DE only"):
        one.start(SINGAPOREAN)


def test_states_of_every_size_go_to_the_store_and_come_back(world):
    one = world(True)
    ids = [one.start(size=4 << 20), *(one.start(drawn=True) for _ in range(20))]
    sizes = [len(one.line.load(id).encode()) for id in ids]
    assert sizes[0] >= 4 << 20
    assert min(sizes) < 20_000
    assert one.act(ids[0], "step")["bytes"] > 4 << 20


def test_a_crowd_over_a_bad_network_loses_nothing(world):
    one = world(True, network=Network(lose=0.2, late=0.3, seed=3))
    crowd = Crowd(one.runtime, one.tenant, users=6, seconds=3)
    crowd.wait()
    report = crowd.report()
    assert (report["lost"], report["verdict"], report["reasons"]) == (0, "no save lost", {})
    assert report["saves"] > 50
    assert report["runs"] > 6
    calls = one.platform.traffic.after(0, 1000)
    notes = [call["note"] for call in calls]
    assert notes.count("reply lost") > 10
    assert sum("arrives late" in note for note in notes) > 10
    assert set(one.platform.traffic.counts()) <= {"200", "204"}
    # The receiver saw the repeated requests as retries and the late ones as older, and kept the newest.
    log = [line for line in one.receiver.log().splitlines() if one.tenant.id in line]
    assert sum("jti=repeated" in line for line in log) > 5
    assert sum(ignored for _, ignored in one.batches()) > 5
    for call in calls:
        assert set(call) == {
            *("number", "at", "store", "call", "states", "id", "attempt", "status", "bytes", "milliseconds", "note")
        }


def test_a_crowd_tells_when_saves_are_lost(world):
    one = world(True)
    crowd = Crowd(one.runtime, one.tenant, users=2, seconds=1)
    for user in crowd._users:
        user.join()
    one.line.delete(list(crowd._newest))
    again = Crowd(one.runtime, one.tenant, users=0, seconds=0)
    again._newest = dict(crowd._newest)
    again.wait()
    again._read_back()
    assert again.report()["lost"] == len(crowd._newest) > 0
    assert again.report()["verdict"] == "saves were lost"


def test_without_its_store_a_run_stands_still_outside_and_goes_on_with_a_copy(world, tmp_path):
    with a_receiver(tmp_path) as receiver:
        outside = world(True, receiver=receiver, patience=0)
        both = world(True, True, receiver=receiver, patience=0)
        first, second = outside.start(), both.start()
        receiver.stop(outside.platform, both.platform)
        with refused(502, "the store local: no answer ("):
            outside.act(first, "step")
        behind = both.act(second, "step")
        assert behind["keptBy"] == ["platform"]
        assert "no answer" in behind["behind"]
        assert not outside.line.is_well()
        receiver.start()
        assert outside.line.is_well()
        assert len(json.loads(outside.line.load(first))["stateEntries"]) == 6
        assert len(json.loads(both.line.load(second))["stateEntries"]) == 6
        report = both.migrate()
        assert (report.moved, report.already_there, report.remaining) == (1, 0, 0)
        assert both.line.load(second) == both.held(second)["content"]
        receiver.stop(outside.platform, both.platform)


def test_saves_wait_for_a_receiver_that_restarts(world, tmp_path):
    with a_receiver(tmp_path) as receiver:
        one = world(True, receiver=receiver)
        crowd = Crowd(one.runtime, one.tenant, users=4, seconds=3)
        receiver.restart()
        crowd.wait()
    assert (crowd.report()["lost"], crowd.report()["refused"]) == (0, 0)
    assert one.platform.traffic.counts()["no answer"] > 0


def test_keys_that_the_receiver_does_not_have_yet_are_refused_and_retired_ones_answer_no_more(world):
    one = world(True)
    id, old = one.start(), one.store.in_use
    one.store.make_keys()
    one.store.use_keys()
    with refused(502, "the store local answered 40"):
        one.act(id, "step")
    one.store.in_use, one.store.accepted = old, ()
    assert one.line.load(id)

    send = one.line._send

    def retiring(*arguments, **more):
        answer = send(*arguments, **more)
        one.store.make_keys()
        one.store.use_keys()
        one.store.retire_keys()
        return answer

    one.line._send = retiring
    with pytest.raises(Undelivered, match="used retired keys for its answer"):
        one.line.load(id)


def test_a_migration_that_is_broken_off_goes_on_and_moves_each_state_once(world, tmp_path):
    with a_receiver(tmp_path) as receiver:
        one = world(False, receiver=receiver, patience=0)
        ids = [one.start() for _ in range(60)]
        part = one.migrate(size=12, batches=2)
        assert (part.moved, part.batches, part.remaining, part.stopped) == (24, 2, 36, "after 2 batches, as asked")
        receiver.stop(one.platform)
        broken = one.migrate(size=12)
        assert (broken.moved, broken.already_there, broken.remaining) == (0, 24, 36)
        assert "no answer" in broken.stopped
        receiver.start()
        rest = one.migrate(size=12)
        assert (rest.held, rest.moved, rest.already_there, rest.batches) == (60, 36, 24, 3)
        assert (rest.remaining, rest.failed, rest.stopped) == (0, {}, None)
        assert one.batches() == [(12, 0)] * 5
        assert all(one.line.load(id) == one.held(id)["content"] for id in ids)
        one.act(ids[3], "step")
        assert one.migrate().moved == 1
        one.mode(True)
        one.migrate()
        assert one.platform.held.ids(one.tenant.id) == []
        assert one.act(ids[3], "step")["keptBy"] == ["local"]
        receiver.stop(one.platform)


def test_a_migration_whose_replies_are_lost_stores_each_state_once(world):
    one = world(False, network=Network(lose=0.4, seed=2))
    for _ in range(40):
        one.start()
    report = one.migrate(size=10)
    assert (report.moved, report.batches, report.stopped) == (40, 4, None)
    assert sum(stored for stored, _ in one.batches()) == 40
    assert len(one.platform.traffic.after(0)) > 4


def test_a_state_that_the_store_refuses_keeps_no_others_back(world):
    one = world(False)
    ids = [one.start() for _ in range(20)]
    one.held(ids[7])["content"] = "\0"
    report = one.migrate(size=10)
    assert report.moved == 19
    assert list(report.failed) == [ids[7]]
    assert report.failed[ids[7]].startswith("the store local answered 400: ")
    assert report.remaining == 0
    assert one.line.load(ids[7]) is None
    assert one.migrate().failed.keys() == {ids[7]}


def test_large_states_go_in_smaller_batches(world):
    one = world(False)
    ids = [one.start(size=3 << 20) for _ in range(3)]
    report = one.migrate(size=50)
    assert (report.moved, report.batches, report.failed) == (3, 2, {})
    assert all(len(one.line.load(id).encode()) >= 3 << 20 for id in ids)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b"", "is not acceptable"),
        (200, b'{"token": "a.b.c.d.e"}', "is not acceptable"),
        (200, b'{"token": {}}', "is not acceptable"),
        (200, b"[" * 100_000, "is not acceptable"),
        (301, b"", "answered 301"),
        (400, b'{"message": "line\\nbreak"}', "answered 400: linebreak"),
        (418, b"[" * 100_000, "answered 418"),
        (500, b"x", "it answers 500"),
    ],
)
def test_whatever_a_store_answers_is_told_and_breaks_nothing(status, body, told):
    class Strange(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    platform = Platform(patience=0)
    try:
        store = platform.register("strange", f"http://127.0.0.1:{server.server_port}")
        line = platform.channel(store.id, str(uuid.uuid4()))
        with pytest.raises(Undelivered, match=re.escape(told)):
            line.load(str(uuid.uuid4()))
    finally:
        platform.close()
        server.shutdown()
        server.server_close()
