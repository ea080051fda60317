"""Changes to the store of files that a stop left unfinished: who finishes them, and what if that cannot be."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from receiver.problems import Problem, StoreFull, StoreUnavailable
from receiver.stores.filesystem import FilesystemStore, durable
from tests.support.filesystem import IDS, NEW, OLD, a_store_to_change, change_of, killed_at, leftovers, view, watching
from tests.support.states import TENANT, a_receipt, a_state, uid

pytestmark = pytest.mark.slow


@pytest.fixture
def unfinished(tmp_path) -> Path:
    """The folder of a store in which a process died just after it had committed a change."""
    base, place = tmp_path / "base", tmp_path / "unfinished"
    a_store_to_change(base)
    for number in range(1, 100):
        shutil.copytree(base, place)
        killed_at(number, lambda: change_of("save", FilesystemStore(str(place), 5)))
        if (place / TENANT / ".change" / "record").exists():
            break
        shutil.rmtree(place)
    return place


def test_an_unfinished_change_whose_files_were_lost_is_dropped_as_a_whole(tmp_path, unfinished):
    names = os.listdir(unfinished / TENANT / ".change")
    assert len(names) == 3
    for name in names:
        for data in (None, b"", b"{"):
            place = shutil.copytree(unfinished, tmp_path / "place")
            path = place / TENANT / ".change" / name
            path.unlink() if data is None else path.write_bytes(data)
            store = FilesystemStore(str(place), 5)
            assert view(store) == ((OLD, NEW, None, OLD), False)
            store.save(TENANT, [], a_receipt("further"))
            assert not leftovers(place)
            shutil.rmtree(place)


def test_an_unfinished_change_is_finished_in_a_copy_without_the_empty_folders(unfinished):
    (unfinished / TENANT / IDS[2][:2]).rmdir()
    assert view(FilesystemStore(str(unfinished), 5)) == ((NEW, NEW, "new", OLD), True)


def test_an_unfinished_change_is_finished_in_a_copy_without_the_lock(tmp_path, unfinished):
    (unfinished / TENANT / ".lock").unlink()
    shutil.copytree(unfinished, tmp_path / "another")
    store = FilesystemStore(str(unfinished), 5)
    store._prepared = durable.identity(str(unfinished / "format"))  # a folder that was copied into a running store
    assert view(store) == ((NEW, NEW, "new", OLD), True)
    FilesystemStore(str(tmp_path / "another"), 5, create=False).prepare()
    assert not leftovers(tmp_path / "another")


@pytest.mark.case("G07")
def test_while_a_change_cannot_be_finished_for_want_of_room_nobody_says_that_nothing_was_changed(unfinished):
    store = FilesystemStore(str(unfinished), 5)
    store._prepared = durable.identity(str(unfinished / "format"))  # as in a process that runs since before
    outcomes = []
    for call in (
        lambda: store.find(TENANT, IDS[0]).content.text,
        lambda: store.was_done(TENANT, a_receipt("x")),
        lambda: change_of("save", store),
        lambda: store.was_done(TENANT, a_receipt("another")),
        lambda: store.save(TENANT, [a_state(id=IDS[3], updated=NEW)], a_receipt("another")),
    ):
        locking = iter([True])

        def step(locking=locking):
            if not next(locking, False):
                raise OSError(errno.ENOSPC, "full")

        try:
            with watching(step):
                outcomes.append(call())
        except Problem as problem:
            outcomes.append(type(problem))
    assert outcomes == [NEW, StoreUnavailable, StoreUnavailable, False, StoreFull]
    assert view(store) == ((NEW, NEW, "new", OLD), True)


def test_a_reader_waits_for_the_change_that_it_met_and_for_no_later_one(store, root):
    store.save(TENANT, [a_state()], None)
    record = root / TENANT / ".change" / "record"
    record.write_text("1")
    (root / TENANT / ".change" / "next").write_text("2")
    with durable.locked(str(root / TENANT), time.monotonic()):
        changing = threading.Timer(0.2, os.rename, (root / TENANT / ".change" / "next", record))
        changing.start()
        began = time.monotonic()
        assert store.find(TENANT, uid(10)) == a_state()
        assert 0.1 < time.monotonic() - began < 2
        changing.join()
