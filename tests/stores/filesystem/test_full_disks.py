"""A full disk: loads go on, saves are refused and leave nothing, deletes make room."""

import errno
import os
import time
from functools import partial

import pytest

from receiver.idempotency import Effect
from receiver.problems import Problem, StoreFull, StoreUnavailable
from receiver.stores.filesystem import FilesystemStore
from tests.support.filesystem import IDS, NEW, OLD, files, leftovers, view, watching
from tests.support.small_disks import KINDS, on_a_small_disk
from tests.support.states import OTHER, TENANT, a_receipt, a_state, uid

pytestmark = pytest.mark.slow


def fill(path, inodes=False):
    """Fill the disk of ``path`` to the last block, or the last inode; return the files that do."""
    made = []
    try:
        for number in range(1 << 20):
            made.append(path / f"filler {number}")
            with open(made[-1], "wb", buffering=0) as file:
                while not inodes and file.write(bytes(4096)):
                    os.fsync(file.fileno())
    except OSError as cause:
        assert cause.errno == errno.ENOSPC
    return made


def outcome(call):
    try:
        return call()
    except Problem as problem:
        return type(problem)


@pytest.mark.case("G07")
@pytest.mark.parametrize("inodes", [False, True], ids=["blocks", "inodes"])
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_full_disk_loads_answer_saves_are_refused_deletes_work_and_room_is_used_at_once(root, kind, inodes):
    def run():
        store = FilesystemStore(str(root / "store"), 5)
        store.prepare()
        for tenant in (TENANT, OTHER):
            for number in range(10, 40):
                store.save(tenant, [a_state(number, tenant=tenant, content="x" * 7000)], a_receipt(f"{number}"))
        kept = {tenant: list(range(10, 40)) for tenant in (TENANT, OTHER)}
        fillers = fill(root, inodes)
        for number in range(40, 60):  # other stores of the process, as other workers have
            for tenant in (TENANT, OTHER):
                saved = a_state(number, tenant=tenant, content="y" * 7000)
                told = outcome(lambda tenant=tenant, saved=saved: store.save(tenant, [saved], a_receipt(saved.id)))
                assert told in (StoreFull, Effect(stored=1))
                kept[tenant] += [number] if told == Effect(stored=1) else []
                assert [state.id for state in store.scan(tenant)] == [uid(one) for one in kept[tenant]]
                assert (store.find(tenant, saved.id) is not None) == (told == Effect(stored=1))
        assert told is StoreFull
        for number in range(10, 22):
            for tenant in (TENANT, OTHER):
                receipt = a_receipt(f"delete {number}", method="DELETE")
                other = FilesystemStore(str(root / "store"), 5, create=False)
                assert other.delete(tenant, [uid(number)], receipt) == Effect(stored=1)
                assert store.find(tenant, uid(number)) is None
        for path in fillers:
            path.unlink(missing_ok=True)  # the last may not have been made
        began = time.monotonic()
        assert store.save(TENANT, [a_state(99)], a_receipt("freed")) == Effect(stored=1)
        assert time.monotonic() - began < 1
        assert len(os.listdir(root / "store" / ".reserve")) == 16
        assert not leftovers(root / "store")

    on_a_small_disk(root, kind, 1 if kind == "tmpfs" else 8, run, inodes=512)


@pytest.mark.case("G07")
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT])
def test_wherever_the_disk_fills_up_loads_answer_and_the_same_save_is_done_once_there_is_room(tmp_path, fault):
    reached = True
    number, seen = 0, set()
    while reached:
        number += 1
        root = tmp_path / str(number)
        store = FilesystemStore(str(root), 5)
        store.save(TENANT, [a_state(id=IDS[0]), a_state(id=IDS[1])], a_receipt("before"))
        steps, reached = iter(range(1, 1000)), False

        def step(number=number, steps=steps):
            nonlocal reached
            if next(steps) >= number:
                reached = True
                raise OSError(fault, "full")

        def save(store=store):
            return store.save(TENANT, [a_state(id=IDS[0], updated=NEW), a_state(id=IDS[2])], a_receipt("x"))

        with watching(step):
            told = outcome(save)
            loaded = tuple(found and found.content.text for found in (store.find(TENANT, id) for id in IDS))
            again = outcome(save)
            outcome(lambda store=store: store.save(TENANT, [a_state(id=IDS[3])], a_receipt("y")))
            assert (
                tuple(found and found.content.text for found in map(partial(store.find, TENANT), IDS[:3])) == loaded[:3]
            )
        before, after = (OLD, OLD, None, None), (NEW, OLD, OLD, None)
        if told is StoreFull:
            assert (loaded, again) == (before, StoreFull)
        else:
            assert (told, loaded, again) in (
                (StoreUnavailable, after, StoreUnavailable),
                (Effect(stored=2), after, Effect(jti_was="repeated")),
                (Effect(stored=2), after, StoreFull),
            )
        seen.add(told if isinstance(told, type) else Effect)
        store.save(TENANT, [], a_receipt("further"))
        assert view(store)[0][:3] == loaded[:3]
        assert not leftovers(root)
    assert seen == {StoreFull, StoreUnavailable, Effect}


def test_a_limit_on_the_size_of_a_file_costs_the_reserve_and_no_save(root, monkeypatch):
    def refuse(_descriptor, _start, _size):
        raise OSError(errno.EFBIG, "too large")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    store = FilesystemStore(str(root), 5)
    assert store.save(TENANT, [a_state()], a_receipt()) == Effect(stored=1)
    assert not [name for name in files(root) if name.startswith(".reserve")]
