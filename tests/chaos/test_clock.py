"""The machine's clock steps under load: by ten minutes forward, by an hour back; the monotonic clock with it, or not."""

import json
import time
import uuid

import pytest

from receiver.mock_platform.flow_states import FlowRun
from receiver.stores.breaker import PROBE_EVERY
from tests.chaos.clocks.faking import FakedClock, FollowingClient
from tests.support.backends import url_of_an_empty_store
from tests.support.callers import Caller, calling
from tests.support.servers import needed
from tests.support.serving import children_of, serving
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow

FORWARD, BACK = 600, -3600


class Follower(Caller):
    """Saves new states and loads them; its clock steps with the receiver's. ``kept`` is what was acknowledged."""

    def __init__(self, client):
        super().__init__(client)
        self.flow, self.kept, self.wrong = FlowRun(client.tenant, uuid.uuid4().int), {}, []

    def turn(self):
        self.flow.step()
        self.flow.entries.clear()
        state = self.flow.state() | {"id": str(uuid.uuid4()), "content": json.dumps({"number": len(self.kept)})}
        saved = self.asked(self.client.save, state).status
        if saved == 204:
            self.kept[state["id"]] = state["content"]
        try:
            self.check(state["id"])
        except Exception as cause:
            self.wrong.append(repr(cause))
        # A step forward makes what is under way fail; then a store is known to hang, and is tried again within a second.
        return PROBE_EVERY if saved == 503 else 0.005

    def check(self, id):
        before = self.client.clock.offset
        answer = self.asked(self.client.load, id)
        # The clock may have stepped meanwhile: then the reply's times are of before or of after.
        offsets = {before, self.client.clock.offset}
        if answer.status == 200 and id in self.kept:  # a save that got 503 may have had its effect
            found = [self.client.open_at(id, answer, time.time() + offset) for offset in offsets]
            assert self.kept[id] in found, found


@pytest.fixture(params=[False, True], ids=["wall", "wall and monotonic"])
def clock(request, tmp_path):
    needed("faketime", "cc")
    made = FakedClock(tmp_path / "clock", request.param)
    made.step(0)
    return made


@pytest.fixture
def connect(clock, tenant, keys):
    """A function from the URL of a receiver to a client of it whose clock is ``clock``; ``close()`` as of platform_at."""
    made = []

    def connect(url):
        client = FollowingClient(url, tenant, keys)
        client.clock = clock
        made.append(client)
        return client

    def close():
        for client in made:
            client.close()

    connect.close = close
    yield connect
    close()


@pytest.mark.case("G18")
@pytest.mark.parametrize("backend", ["sqlite", "filesystem", "postgresql", "mariadb"])
def test_a_clock_that_steps_costs_no_worker_and_no_state(request, backend, clock, keys, tenant, connect, tmp_path):
    url = url_of_an_empty_store(request, backend, tmp_path / "states")
    environment = {"DATABASE_URL": url, "STORAGE_WORKERS": "2", "STORAGE_LOG_LEVEL": "warning"}
    with serving(keys, tmp_path, **environment, **clock.environment) as running:
        # The admin listener is off, so that all children are workers.
        workers = until(lambda: len(found := children_of(running.process.pid)) == 2 and found)
        unaware = connect(running.url)
        unaware.follows = False
        state = FlowRun(tenant, 1).state()
        with calling(Follower(connect(running.url)) for _ in range(4)) as callers:
            for offset in (0, FORWARD, 0, BACK, FORWARD, BACK, 0):
                clock.step(offset)
                pass_time(1, "load at that time; a worker that is silent is looked for each second")
                wanted = 204 if offset == 0 else 401
                assert unaware.save(state).status == wanted
                assert unaware.delete([str(uuid.uuid4())]).status == wanted
                assert unaware.load(state["id"]).status == (200 if offset == 0 else 401)
                assert unaware.health().status == 200
        assert children_of(running.process.pid) == workers
        reader = connect(running.url)
        for caller in callers:
            assert caller.wrong == []
            # A request that was under way during a step was signed before it, or has taken an hour by the receiver's clock.
            odd = [status for _, status, _ in caller.answers if status not in (200, 204, 404)]
            assert set(odd) <= {400, 401} | ({503} if clock.monotonic else set())
            assert len(odd) < 30  # six steps; each costs the save and the load under way, and those of the next second
            assert max(seconds for *_, seconds in caller.answers) < 10
            for id, content in caller.kept.items():
                assert reader.open(id, reader.load(id)) == content
        assert sum(len(caller.kept) for caller in callers) > 30
        connect.close()
    assert "TIMEOUT" not in (tmp_path / "log").read_text()


@pytest.mark.case("G18", "A21")
@pytest.mark.parametrize("backend", ["sqlite", "filesystem", "postgresql", "mariadb"])
def test_a_receipt_outlives_a_step_forward_that_is_taken_back(request, backend, clock, keys, tenant, connect, tmp_path):
    """Or a request that was seen could be sent once more, and would undo what came after it."""
    if clock.monotonic:
        pytest.skip("receipts know the wall clock alone")
    url = url_of_an_empty_store(request, backend, tmp_path / "states")
    with serving(keys, tmp_path, DATABASE_URL=url, **clock.environment) as running:
        client = connect(running.url)
        state = FlowRun(tenant, 1).state()
        assert client.save(state).status == 204
        path = f"/api/storage/1/states/{tenant}"
        headers = client.headers(path, iat=int(time.time()), exp=int(time.time()) + 300)
        body = json.dumps([state["id"]]).encode()
        assert client.call("DELETE", path, body, headers).status == 204
        assert client.save(state).status == 204
        clock.step(FORWARD)
        for number in range(600):  # so that old receipts are looked for
            assert client.delete([str(uuid.UUID(int=number))]).status == 204
        clock.step(0)
        assert client.call("DELETE", path, body, headers).status == 204
        assert client.load(state["id"]).status == 200
        connect.close()
