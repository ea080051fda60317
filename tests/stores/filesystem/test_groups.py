"""Changes to the store of files that share one record and its syncs."""

import errno
import os
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from receiver.idempotency import Effect
from receiver.problems import ReplayRefused, StoreDamaged, StoreFull, StoreUnavailable
from receiver.states import Instant
from receiver.stores.filesystem import FilesystemStore, durable, formats
from tests.support.filesystem import NEW, counted_syncs, leftovers
from tests.support.states import NOW, TENANT, a_receipt, a_state, uid
from tests.support.waiting import until


@contextmanager
def waiting_together(store, root, *changes):
    """Start a thread for each of ``changes``, in this order, and hold the tenant's lock until all wait for it.

    Yields the list of what each of them returns or raises, which is filled when the context ends; what is done in it is
    done while they wait.
    """
    told = [None] * len(changes)

    def call(number):
        try:
            told[number] = changes[number]()
        except Exception as cause:
            told[number] = cause

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(changes))]
    store.save(TENANT, [], None)
    with durable.locked(str(root / TENANT), time.monotonic()):
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: len(store._tenants[TENANT]._group._queue) > number)
        yield told
    for thread in threads:
        thread.join()


def test_threads_get_their_turn_in_the_order_in_which_they_asked(store, root):
    impatient = FilesystemStore(str(root), 0.05)
    impatient._tenants = store._tenants
    order = [1, 0, 3, 2, 4, 5]
    changes = [partial(store.save, TENANT, [a_state(content=str(number))], a_receipt(str(number))) for number in order]
    with waiting_together(store, root, *changes), pytest.raises(StoreUnavailable):
        impatient.save(TENANT, [a_state(content="impatient")], a_receipt("impatient"))
    assert store.find(TENANT, uid(10)).content.text == "5"
    assert not store.was_done(TENANT, a_receipt("impatient"))
    [record] = {path.read_bytes() for path in (root / TENANT / ".receipts").iterdir()}
    assert [receipt["jti"] for receipt in formats.from_line(record)["receipts"]] == [str(number) for number in order]


@pytest.mark.parametrize("waiting", [1, 2, 12, 40])
def test_changes_that_wait_at_the_same_moment_share_their_syncs(store, root, waiting):
    numbers = range(waiting)
    store.save(TENANT, [a_state(10)], a_receipt())
    same = [partial(store.save, TENANT, [a_state(10, NEW, content=str(number))], None) for number in numbers]
    receipts = [partial(store.save, TENANT, [], a_receipt(f"receipt {number}")) for number in numbers]
    others = [
        partial(store.save, TENANT, [a_state(100 + number)], a_receipt(f"other {number}", expires=NOW + number))
        for number in numbers
    ]
    deletions = [partial(store.delete, TENANT, [uid(100 + number)], None) for number in numbers]
    # Record, .change and .receipts or shard are shared; each state that is stored has a file of its own besides.
    for changes, syncs in ((same, 4), (receipts, 3), (others, 4 + waiting), (deletions, 3)):
        with counted_syncs() as synced:
            with waiting_together(store, root, *changes) as told:
                pass
            stored = 0 if changes is receipts else 1
            assert told == [Effect(stored=stored)] * waiting
        assert len(synced) == syncs
        if changes is others:
            assert all(store.was_done(TENANT, a_receipt(f"other {number}")) for number in numbers)
    assert store.find(TENANT, uid(10)).content.text == str(waiting - 1)
    assert [state.id for state in store.scan()] == [uid(10)]
    assert not leftovers(root)


def test_the_receipts_of_one_record_expire_each_at_its_time(store, root):
    receipts = [a_receipt(str(number), expires=NOW + 100 * number) for number in range(4)]
    with waiting_together(store, root, *(partial(store.save, TENANT, [], receipt) for receipt in receipts)):
        pass
    later = [a_receipt(str(number), now=NOW + 150) for number in range(4)]
    assert [store.was_done(TENANT, receipt) for receipt in later] == [False, False, True, True]
    for path in (root / TENANT / ".receipts").iterdir():
        os.utime(path, (1, 1))  # as a copy may bear
    store.save(TENANT, [], a_receipt("late", now=NOW + 250, expires=NOW + 600))
    assert len(os.listdir(root / TENANT / ".receipts")) == 2
    assert store.was_done(TENANT, later[3])
    store.save(TENANT, [], a_receipt("last", now=NOW + 301 + 60, expires=NOW + 600))
    assert len(os.listdir(root / TENANT / ".receipts")) == 2


def test_a_refused_change_takes_no_other_of_its_group_with_it(store, root):
    store.save(TENANT, [a_state(12)], a_receipt())
    Path(store._folder(TENANT).receipts.file_of("three")).write_bytes(b"damaged")
    changes = (
        lambda: store.save(TENANT, [a_state(10)], a_receipt("two")),
        lambda: store.delete(TENANT, [uid(10)], a_receipt(method="DELETE")),
        lambda: store.save(TENANT, [a_state(13), a_state(12)], a_receipt("three")),
        lambda: store.save(TENANT, [a_state(11)], a_receipt("four")),
    )
    with waiting_together(store, root, *changes) as told:
        pass
    assert [type(outcome) for outcome in told] == [Effect, ReplayRefused, StoreDamaged, Effect]
    assert [bool(store.find(TENANT, uid(number))) for number in (10, 11, 13)] == [True, True, False]
    assert [store.was_done(TENANT, a_receipt(jti)) for jti in ("two", "four")] == [True, True]


@pytest.mark.parametrize("together", [True, False])
def test_a_jti_that_comes_twice_in_a_group_stands_as_if_one_had_come_after_the_other(store, root, together):
    seen = a_receipt("seen", enforce=False)
    changes = (
        lambda: store.save(TENANT, [a_state(10)], a_receipt()),
        lambda: store.save(TENANT, [a_state(10)], a_receipt()),
        lambda: store.delete(TENANT, [uid(10)], a_receipt(method="DELETE")),
        lambda: store.delete(TENANT, [uid(10)], a_receipt(method="DELETE", enforce=False)),
        lambda: store.save(TENANT, [a_state(11)], a_receipt("short", expires=NOW + 1)),
        lambda: store.delete(TENANT, [uid(11)], a_receipt("short", method="DELETE", now=NOW + 2)),
        lambda: store.save(TENANT, [a_state(12)], seen),
        lambda: store.save(TENANT, [a_state(12)], seen),
    )
    if together:
        with waiting_together(store, root, *changes) as told:
            pass
    else:
        told = [change() if number != 2 else None for number, change in enumerate(changes)]
        with pytest.raises(ReplayRefused) as refused:
            changes[2]()
        told[2] = refused.value
    assert isinstance(told.pop(2), ReplayRefused)
    assert told == [
        Effect(stored=1),
        Effect(jti_was="repeated"),
        Effect(stored=1, jti_was="conflicting"),
        Effect(stored=1),
        Effect(stored=1),
        Effect(stored=1),
        Effect(stored=1),
    ]
    assert [state.id for state in store.scan()] == [uid(12)]
    assert store.was_done(TENANT, a_receipt("short", method="DELETE"))
    assert store.was_done(TENANT, a_receipt())


@pytest.mark.parametrize("stored_before", [True, False])
def test_a_state_that_is_saved_deleted_and_saved_in_one_group_is_new(store, root, stored_before):
    if stored_before:
        store.save(TENANT, [a_state(parent=uid(3))], None)
    created = Instant.parse("2026-05-05T00:00:00Z")
    last = a_state(updated="2025-01-01T00:00:00Z", parent=uid(5))
    changes = (
        lambda: store.save(TENANT, [a_state(updated=NEW, parent=uid(4)), a_state(11)], None),
        lambda: store.delete(TENANT, [uid(10), uid(10), uid(11), uid(12)], None),
        lambda: store.delete(TENANT, [uid(10), uid(11)], None),
        lambda: store.save(TENANT, [last], None),
        lambda: store.save(TENANT, [a_state(updated="2024-01-01T00:00:00Z")], None),
        lambda: store.save(TENANT, [a_state(updated=NEW, parent=uid(6), created_at=created)], None),
    )
    with waiting_together(store, root, *changes) as told:
        pass
    assert told == [Effect(2), Effect(2), Effect(), Effect(1), Effect(0, 1), Effect(1)]
    kept = a_state(updated=NEW, parent=uid(5), created_at=last.created_at)
    assert list(store.scan()) == [kept]


@pytest.mark.case("G07")
def test_one_state_that_finds_no_room_does_not_fail_the_others_of_its_group(store, root, monkeypatch):
    real = os.write

    def write(descriptor, data):
        if b"too large" in bytes(data):
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    contents = ["a", "too large", "b"]
    changes = [
        partial(store.save, TENANT, [a_state(number, content=content), a_state(20 + number)], a_receipt(str(number)))
        for number, content in enumerate(contents)
    ]
    with waiting_together(store, root, *changes) as told:
        pass
    assert [type(outcome) for outcome in told] == [Effect, StoreFull, Effect]
    assert [state.id for state in store.scan()] == [uid(number) for number in (0, 2, 20, 22)]
    assert [store.was_done(TENANT, a_receipt(str(number))) for number in range(3)] == [True, False, True]
    assert not leftovers(root)
