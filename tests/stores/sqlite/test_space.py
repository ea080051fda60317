"""SQLite on a disk that is full, and with a limit on the size of files."""

import os
import resource
import time

import pytest

from receiver.problems import StoreFull
from receiver.stores import open_store
from tests.support.filesystem import exit_code, forked
from tests.support.serving import serving
from tests.support.small_disks import KINDS, filled, on_a_small_disk
from tests.support.states import TENANT, a_receipt, a_state, uid

MIB = 24
pytestmark = pytest.mark.slow

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def saved(store, numbers, size):
    """Save states with these numbers, of ``size`` characters each; return those that found room."""
    found = []
    for number in numbers:
        try:
            store.save(TENANT, [a_state(number, content=chr(97 + number % 26) * size)], a_receipt(f"save {number}"))
            found.append(number)
        except StoreFull:
            pass
    return found


def assert_there(store, numbers, size):
    for number in numbers:
        assert store.find(TENANT, uid(number)).content.text == chr(97 + number % 26) * size


@pytest.mark.case("G07")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [0, 20, 200])
def test_on_a_full_disk_loads_and_deletes_work_and_what_they_free_can_be_used(tmp_path, kind, before):
    disk = tmp_path / "disk"

    def fill():
        store = open_store(f"sqlite:///{disk}/states.db", 5)
        store.prepare()
        kept = saved(store, range(1000, 1000 + before), 30_000)  # some of it lies in the log only
        filler = filled(disk)
        kept += saved(store, range(2000, 2010), 30_000)
        with pytest.raises(StoreFull):
            store.save(TENANT, [a_state(1, content="x" * 4_000_000)], a_receipt("too large"))
        assert_there(store, kept, 30_000)
        for number in kept:
            assert store.delete(TENANT, [uid(number)], a_receipt(f"delete {number}")).stored == 1
        assert len(kept) < 3 or saved(store, range(3000, 3002), 30_000)
        os.unlink(filler)
        began = time.monotonic()
        assert store.save(TENANT, [a_state(1, content="x" * 4_000_000)], a_receipt("there is room")).stored == 1
        assert time.monotonic() - began < 1
        assert store.find(TENANT, uid(1)).content.text == "x" * 4_000_000
        store.close()

    on_a_small_disk(disk, kind, MIB, fill)


@pytest.mark.case("G07")
@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_states_have_filled_takes_deletes_time_and_again(tmp_path, kind):
    disk = tmp_path / "disk"

    def fill():
        store = open_store(f"sqlite:///{disk}/states.db", 5)
        store.prepare()
        for turn in range(2):
            kept = saved(store, range(1000 * turn, 1000 * turn + 400), 70_000)
            assert 50 < len(kept) < 400, (turn, len(kept))
            filled(disk)
            for number in kept:
                assert store.delete(TENANT, [uid(number)], a_receipt(f"delete {number}")).stored == 1
        assert os.stat(disk / "states.db-reserve").st_blocks
        store.close()

    on_a_small_disk(disk, kind, MIB, fill)


@pytest.mark.case("G07")
@pytest.mark.parametrize("kind", KINDS)
def test_a_receiver_starts_on_a_full_disk_and_heals_without_a_restart(tmp_path, kind, keys, platform_at, state):
    disk = tmp_path / "disk"
    run = tmp_path / "run"
    run.mkdir()

    def fill():
        with serving(keys, run, DATABASE_URL=f"sqlite:///{disk}/states.db") as running:
            client = platform_at(running.url)
            assert client.save(state).status == 204
            client.close()
        filler = filled(disk)
        with serving(keys, run, DATABASE_URL=f"sqlite:///{disk}/states.db") as running:
            client = platform_at(running.url)
            large = state | {"id": uid(7), "content": "x" * 2_000_000}
            assert client.load(state["id"]).status == 200
            assert client.save(large).status == 507
            assert client.health().status == 200
            assert client.delete([state["id"]]).status == 204
            assert client.load(state["id"]).status == 404
            os.unlink(filler)
            began = time.monotonic()
            assert client.save(large).status == 204
            print(f"{kind}: 204 {time.monotonic() - began:.3f} s after there was room")
            assert time.monotonic() - began < 1
            client.close()

    on_a_small_disk(disk, kind, MIB, fill)


@pytest.mark.case("G08")
@pytest.mark.parametrize("limit", [300_000, 1_000_000, 3_000_000])
def test_files_that_may_not_grow_make_507_and_small_states_still_fit(tmp_path, limit):
    def fill():
        store = open_store(f"sqlite:///{tmp_path}/states.db", 5)
        store.prepare()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for turn in range(3):
            with pytest.raises(StoreFull):
                store.save(TENANT, [a_state(1, content="x" * 2 * limit)], a_receipt(f"too large {turn}"))
            assert len(saved(store, range(100 * turn, 100 * turn + 5), 2_000)) == 5
        kept = [*saved(store, range(1000, 1400), 20_000)]
        assert limit / 20_000 / 3 < len(kept) < 300
        assert_there(store, kept, 20_000)
        for number in kept:
            assert store.delete(TENANT, [uid(number)], a_receipt(f"delete {number}")).stored == 1
        assert len(saved(store, range(2000, 2003), 20_000)) == 3
        resource.setrlimit(resource.RLIMIT_FSIZE, UNLIMITED)
        assert store.save(TENANT, [a_state(1, content="x" * 2 * limit)], a_receipt("no limit")).stored == 1
        store.close()

    assert exit_code(forked(fill)) == 0
