"""A power cut at any instant leaves all or nothing of a change to the store of files."""

import os
import shutil
import sys

import pytest

from receiver.idempotency import Effect
from receiver.states import NANOSECONDS
from receiver.stores.filesystem import FilesystemStore
from tests.support.filesystem import (
    IDS,
    NEW,
    OLD,
    PAST,
    a_store_to_change,
    counted_syncs,
    group_of,
    leftovers,
    view,
)
from tests.support.power_cuts import Disk, Killed
from tests.support.states import NOW, TENANT, a_receipt, a_state

pytestmark = pytest.mark.slow


def changes_in_a_row():
    """Return changes that build on each other, and on the leftovers of each other."""
    return (
        lambda store: store.prepare(),
        lambda store: store.save(TENANT, [a_state(id=IDS[0]), a_state(id=IDS[1], expires_at=PAST)], a_receipt("one")),
        lambda store: store.delete(TENANT, [IDS[0]], None),
        lambda store: store.save(TENANT, [a_state(id=IDS[0], content="again"), a_state(id=IDS[2])], a_receipt("x")),
        lambda store: store.purge(NOW * NANOSECONDS),
        group_of,
    )


def test_after_a_power_cut_at_any_instant_each_change_is_whole_and_acknowledged_ones_are_there(tmp_path):
    store, views = FilesystemStore(str(tmp_path / "model" / "store"), 5), []
    (tmp_path / "model").mkdir()
    for change in changes_in_a_row():
        change(store)
        views.append(view(store))
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "model").mkdir()
    disk, store = Disk(tmp_path / "model"), FilesystemStore(str(tmp_path / "model" / "store"), 5)
    with disk.watched():
        for change in changes_in_a_row():
            change(store)
            disk.done += 1
        disk.cut()
    seen = set()
    for number, (image, done) in enumerate(disk.images.items()):
        place = disk.after_cut(image, tmp_path / str(number)) / "store"
        found = FilesystemStore(str(place), 5, create=done == 0)
        position = views.index(view(found))
        assert position >= done - 1
        seen.add(position)
        assert found.save(TENANT, [a_state(id=IDS[3])], a_receipt("further")) == Effect(stored=1)
        assert not leftovers(place)
        shutil.rmtree(place.parent)
    assert seen == set(range(len(views)))
    assert len(disk.images) > 150


@pytest.mark.parametrize("later", ["a new process", "a running process", "a retry"])
def test_after_a_kill_and_a_later_power_cut_what_another_process_acknowledged_is_there(tmp_path, later):
    views, stopped = set(), True
    for number in range(100):
        root = tmp_path / str(number) / "store"
        root.parent.mkdir()
        other = FilesystemStore(str(root), 5)
        if later == "a running process":
            other.prepare()
        disk, acknowledged = Disk(root.parent), True
        disk.stop_after = number
        with disk.watched():
            try:
                FilesystemStore(str(root), 5).save(TENANT, [a_state(id=IDS[0]), a_state(id=IDS[1])], a_receipt("x"))
                stopped = False
            except Killed:
                pass
            disk.stop_after = sys.maxsize
            if later == "a retry":
                acknowledged = other.was_done(TENANT, a_receipt("x"))
            else:
                other.save(TENANT, [a_state(id=IDS[0], updated=NEW)], None)
            disk.images.clear()
            disk.cut()
        for image in disk.images:
            place = disk.after_cut(image, tmp_path / "cut") / "store"
            found = view(FilesystemStore(str(place), 5, create=False))
            views.add((acknowledged, *found))
            shutil.rmtree(place.parent)
        if not stopped:
            break
    assert not stopped
    if later == "a retry":
        assert views == {(True, (OLD, OLD, None, None), True), (False, (None,) * 4, False)}
    else:
        assert views == {(True, (NEW, None, None, None), False), (True, (NEW, OLD, None, None), True)}


def test_after_a_power_cut_a_change_is_whole_also_where_a_copy_had_lost_the_empty_folders(tmp_path):
    (tmp_path / "model").mkdir()
    store = a_store_to_change(tmp_path / "model" / "store")
    before = view(store)
    (tmp_path / "model" / "store" / TENANT / ".change").rmdir()
    disk = Disk(tmp_path / "model")
    with disk.watched():
        store.save(TENANT, [a_state(id=IDS[0], content="new"), a_state(id=IDS[3], content="new")], a_receipt("x"))
        disk.cut()
    after, seen = view(store), set()
    for image in disk.images:
        place = disk.after_cut(image, tmp_path / "cut") / "store"
        seen.add(view(FilesystemStore(str(place), 5, create=False)))
        shutil.rmtree(place.parent)
    assert seen == {before, after}


def test_every_file_is_synced_before_its_name_and_every_folder_after_it(tmp_path):
    root = tmp_path / "model" / "store"
    root.parent.mkdir()
    store, disk = FilesystemStore(str(root), 5), Disk(root.parent)
    with disk.watched():
        for change in changes_in_a_row():
            change(store)
            last = {step: number for number, step in enumerate(disk.steps)}
            for number, (name, path) in enumerate(disk.steps):
                if path.startswith("store/.reserve"):
                    continue
                folder = os.path.dirname(path) or "."
                if name in ("mkdir", "rename", "link") or (name == "unlink" and path.endswith(".state")):
                    assert last["fsync", folder] > number, (name, path)
                if name == "write":
                    later = disk.steps[number + 1 :]
                    named = next(place for place, (name, _) in enumerate(later) if name in ("rename", "link"))
                    assert ("fsync", path) in later[:named], path
    commits = [number for number, step in enumerate(disk.steps) if step == ("rename", f"store/{TENANT}/.change/record")]
    assert len(commits) == 5
    for number in commits:
        assert disk.steps[number + 1] == ("fsync", f"store/{TENANT}/.change")


def test_a_save_of_one_state_costs_five_syncs(store):
    store.save(TENANT, [a_state()], a_receipt())
    with counted_syncs() as synced:
        store.save(TENANT, [a_state(updated=NEW)], a_receipt("two"))
    assert len(synced) == 5
