"""When keys were used last: by proven requests only, noted without delaying or failing one of them."""

import threading
import time
import uuid

import pytest

from receiver.keys.usage import KeyUses
from receiver.problems import StoreUnavailable
from receiver.stores import open_store
from tests.support.serving import serving
from tests.support.waiting import until


class NotingStore:
    """As much of a store as keeps the uses of keys; ``fault`` is raised once, by the next call."""

    def __init__(self):
        self.kept, self.calls, self.fault = {}, [], None
        self.called = threading.Semaphore(0)

    def note_key_uses(self, uses):
        self.calls.append(dict(uses))
        self.called.release()
        if self.fault:
            fault, self.fault = self.fault, None
            raise fault
        self.kept |= uses

    def key_uses(self):
        return self.kept


@pytest.fixture
def noting():
    return NotingStore()


def test_a_save_and_a_load_note_the_keys_that_they_used(platform, ring, keys, state, clock):
    clock.offset = -5
    assert platform.save(state).status == 204
    assert platform.load(state["id"]).status == 200
    noted = {}
    ring.uses.set_sink(noted.update)
    ring.uses.flush()
    assert set(noted) == {("platform", keys.platform.kid), ("receiver", keys.receiver.kid)}
    assert all(abs(used - (time.time() - 5)) < 5 for used in noted.values())


@pytest.mark.slow
def test_each_worker_tells_the_store_by_itself(keys, platform_at, state, tmp_path):
    with serving(keys, tmp_path, STORAGE_WORKERS="2") as running:
        assert platform_at(running.url).save(state).status == 204
        store = open_store(f"sqlite:///{tmp_path}/states.db", 5, create=False)
        expected = {("platform", keys.platform.kid), ("receiver", keys.receiver.kid)}
        until(lambda: expected <= set(store.key_uses()), seconds=10, pause=0.1)
        kept = store.key_uses()
        store.close()
    assert expected <= set(kept)
    assert all(abs(kept[key] - time.time()) < 20 for key in expected)


def test_what_is_not_proven_is_no_use(platform, ring, foreign_keys, state):
    path = f"/api/storage/1/states/{platform.tenant}"
    headers = platform.headers(path)
    signature = headers["X-ManyWho-Signature"]
    for broken in (signature[:-8] + "AAAAAAAA", ""):
        assert (
            platform.call("GET", f"{path}/{state['id']}", headers=headers | {"X-ManyWho-Signature": broken}).status
            == 401
        )
    assert platform.call("GET", f"{path}/{uuid.uuid4()}", headers=headers).status == 401  # another path was signed
    noted = {}
    ring.uses.set_sink(noted.update)
    ring.uses.flush()
    assert noted == {}


def test_the_store_gets_what_is_new_soon_and_then_not_for_each_request(noting):
    uses = KeyUses(every=0.2)
    uses.set_sink(noting.note_key_uses)
    uses.note("receiver", "A", 100.9)
    assert noting.called.acquire(timeout=5)
    assert noting.calls == [{("receiver", "a"): 100}]
    for now in range(101, 1101):
        uses.note("receiver", "a", now)
        uses.note("platform", "b", now)
    assert noting.called.acquire(timeout=5)
    assert noting.key_uses() == {("receiver", "a"): 1100, ("platform", "b"): 1100}
    assert not noting.called.acquire(timeout=0.5)  # nothing new
    assert len(noting.calls) == 2


def test_a_store_that_fails_gets_it_again_and_no_request_notices(noting, caplog):
    caplog.set_level("INFO")
    uses = KeyUses(every=0.05)
    uses.set_sink(noting.note_key_uses)
    noting.fault = StoreUnavailable("down")
    uses.note("receiver", "a", 7)
    for _ in range(2):
        assert noting.called.acquire(timeout=5)
    noting.fault = RuntimeError("private matters")
    uses.note("receiver", "a", 8)
    for _ in range(2):
        assert noting.called.acquire(timeout=5)
    until(lambda: noting.key_uses() == {("receiver", "a"): 8})
    said = [record.getMessage() for record in caplog.records]
    assert said == ["the times of last use are noted later: down", "a defect"]


def test_a_store_that_hangs_delays_nobody():
    others = set(threading.enumerate())
    uses, silent = KeyUses(every=0.01), threading.Event()
    uses.set_sink(lambda _uses: silent.wait(30))
    began = time.monotonic()
    for now in range(1000):
        uses.note("receiver", "a", now)
    assert time.monotonic() - began < 10
    assert [thread.name for thread in threading.enumerate() if thread not in others] == ["key uses"]
    silent.set()


def test_without_a_store_nothing_starts():
    before = threading.active_count()
    KeyUses().note("receiver", "a", 1)
    assert threading.active_count() == before
