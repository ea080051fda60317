"""A sync that fails drops what it held, and the next one of the same folder says that all is well."""

import shutil
import sys
from functools import partial

import pytest

from receiver.problems import Problem
from receiver.stores.filesystem import FilesystemStore
from tests.support.filesystem import IDS, NEW, OLD, view
from tests.support.power_cuts import Disk, Killed
from tests.support.states import OTHER, TENANT, a_receipt, a_state

pytestmark = pytest.mark.slow

REQUESTS = (
    lambda store: store.save(TENANT, [a_state(id=IDS[0]), a_state(id=IDS[1])], a_receipt("one")),
    lambda store: store.save(TENANT, [a_state(id=IDS[0], updated=NEW), a_state(id=IDS[2])], a_receipt("two")),
    lambda store: store.delete(TENANT, [IDS[1]], a_receipt("x", method="DELETE")),
    lambda store: store.save(OTHER, [a_state(id=IDS[3], tenant=OTHER)], None),
)
DONE = (a_receipt("one"), a_receipt("two"), a_receipt("x", method="DELETE"))


def acknowledged(disk, store, request):
    """Send ``request`` until it is acknowledged, by ``store`` or after a kill by a new one; return the store."""
    for _ in range(4):
        try:
            REQUESTS[request](store) if request == 3 or not store.was_done(TENANT, DONE[request]) else None
            return store
        except Problem:
            pass
        except Killed:
            disk.stop_after = sys.maxsize
            store = FilesystemStore(store.path, 5)
    raise AssertionError("never acknowledged")


def seen(store):
    try:
        return view(store, "delete"), store.was_done(TENANT, DONE[1]), bool(store.find(OTHER, IDS[3]))
    except Problem as problem:
        return problem.cause


@pytest.mark.case("G08")
@pytest.mark.parametrize("failures", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("killed", [False, True], ids=["running on", "killed"])
def test_what_a_failed_sync_dropped_is_written_anew_before_it_is_acknowledged(tmp_path, killed, failures):
    images = number = 0
    lost = []
    while True:
        number += 1
        root = tmp_path / str(number) / "store"
        root.parent.mkdir()
        FilesystemStore(str(root), 5).prepare()
        disk, store = Disk(root.parent), FilesystemStore(str(root), 5)
        store._ready()
        disk.cuts_at_each_step, disk.samples = False, 6
        disk.failing, disk.killed_by_failure = tuple(range(number, number + failures)), killed
        with disk.watched():
            for request in range(len(REQUESTS)):
                store = acknowledged(disk, store, request)
            disk.cut()
        for image in disk.images:
            place = disk.after_cut(image, tmp_path / "cut") / "store"
            found = seen(FilesystemStore(str(place), 5, create=False))
            if found != (((NEW, None, OLD, None), True), True, True):
                lost.append((number, found))
            shutil.rmtree(place.parent)
        images += len(disk.images)
        shutil.rmtree(root.parent)
        if disk.syncs < number:
            break
    assert number > 20 and images > 90
    assert not lost, f"{len(lost)} of {images} states lost what was acknowledged: {lost[0]}"


def test_a_load_answers_while_syncs_fail_and_a_save_is_refused(store, root, monkeypatch):
    store.save(TENANT, [a_state(id=IDS[0])], a_receipt("one"))
    disk = Disk(root.parent)
    disk.cuts_at_each_step = False
    disk.failing = range(5, 1000)  # the change is committed, and then no sync succeeds any more
    with disk.watched():
        calls = [partial(request, store) for request in REQUESTS[1:3]]
        for call in calls:
            with pytest.raises(Problem):
                call()
            assert view(store, "delete")[0] == (NEW, None, OLD, None)
        disk.failing = ()
        calls[1]()
        disk.cut()
    assert view(store, "delete") == ((NEW, None, OLD, None), True)
    assert disk.images
