"""A kill or an error at any instant leaves all or nothing of a change to the store of files."""

import errno
import shutil

import pytest

from receiver.idempotency import Effect
from receiver.problems import Problem, StoreFull, StoreUnavailable
from receiver.stores.filesystem import FilesystemStore
from tests.support.filesystem import (
    IDS,
    NEW,
    OLD,
    a_store_to_change,
    change_of,
    files,
    group_of,
    killed_at,
    leftovers,
    repeated_of_group,
    view,
    watching,
)
from tests.support.states import TENANT, a_receipt, a_state

pytestmark = pytest.mark.slow


def without_reserve(found):
    return {name: data for name, data in found.items() if not name.startswith(".reserve/")}


def views_around(kind, folder) -> list[tuple]:
    store = a_store_to_change(folder / "around")
    views = [view(store, kind)]
    change_of(kind, store)
    return [*views, view(store, kind)]


@pytest.mark.case("G01", "G02")
@pytest.mark.parametrize("seen_by", ["a running store", "a new store"])
@pytest.mark.parametrize("kind", ["save", "delete", "purge", "group"])
def test_a_process_that_is_killed_at_any_instant_leaves_all_or_nothing(tmp_path, kind, seen_by):
    before, after = views_around(kind, tmp_path)
    a_store_to_change(tmp_path / "base")
    outcomes, code = [], 9
    while code:
        place = shutil.copytree(tmp_path / "base", tmp_path / str(len(outcomes)))
        store = FilesystemStore(str(place), 5)
        if seen_by == "a running store":
            assert view(store, kind) == before
        code = killed_at(len(outcomes) + 1, lambda place=place: change_of(kind, FilesystemStore(str(place), 5)))
        if seen_by == "a new store":
            assert {state.id for state in store.scan()} in [
                {id for id, content in zip(IDS, contents, strict=True) if content is not None}
                for contents, _ in (before, after)
            ]
        outcomes.append(view(store, kind))
        change_of(kind, store)
        assert view(store, kind) == after
        assert store.save(TENANT, [a_state(id=IDS[3], updated=NEW)], None) == Effect(stored=1)
        assert not leftovers(place)
        shutil.rmtree(place)
    assert outcomes == [before] * outcomes.count(before) + [after] * outcomes.count(after)
    assert min(outcomes.count(before), outcomes.count(after)) > 3


@pytest.mark.case("G01", "G02")
@pytest.mark.parametrize("kind", ["save", "delete", "purge", "group"])
def test_a_process_that_is_killed_while_it_recovers_leaves_all_or_nothing(tmp_path, kind):
    views = views_around(kind, tmp_path)
    a_store_to_change(tmp_path / "base")
    tried, code, number = 0, 9, 0
    while code:
        number += 1
        left = shutil.copytree(tmp_path / "base", tmp_path / "left")
        code = killed_at(number, lambda left=left: change_of(kind, FilesystemStore(str(left), 5)))
        if (left / TENANT / ".change" / "record").exists() or (leftovers(left) and number % 5 == 0):
            expected = view(FilesystemStore(str(shutil.copytree(left, tmp_path / "whole")), 5), kind)
            shutil.rmtree(tmp_path / "whole")
            again, second = 9, 0
            while again:
                second += 1
                place = shutil.copytree(left, tmp_path / "again")
                again = killed_at(second, FilesystemStore(str(place), 5).prepare)
                assert again or not leftovers(place)
                store = FilesystemStore(str(place), 5)
                assert view(store, kind) == expected in views
                store.save(TENANT, [], a_receipt("further"))
                assert not leftovers(place)
                shutil.rmtree(place)
                tried += 1
        shutil.rmtree(left)
    assert tried > 20


@pytest.mark.case("G07", "G08")
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, None])
@pytest.mark.parametrize("kind", ["save", "delete", "purge"])
def test_an_error_at_any_instant_leaves_all_or_nothing_and_is_told_as_what_it_is(tmp_path, kind, fault):
    before, after = views_around(kind, tmp_path)
    raised, outcomes = True, set()
    for number in range(1, 100):
        place = tmp_path / str(number)
        store = a_store_to_change(place)
        at_rest = without_reserve(files(place))
        steps, raised = iter(range(1, 100)), False

        def step(number=number, steps=steps):
            nonlocal raised
            if next(steps) == number:
                raised = True
                raise KeyboardInterrupt if fault is None else OSError(fault, "a fault")

        try:
            with watching(step):
                change_of(kind, store)
            told = None
        except (Problem, KeyboardInterrupt) as problem:
            told = type(problem)
        seen = view(store, kind)
        outcomes.add((told, seen))
        if told is StoreFull:
            assert without_reserve(files(place)) == at_rest
        store.save(TENANT, [], a_receipt("further"))
        assert not leftovers(place)
        assert view(store, kind) == seen
        if not raised:
            break
    assert (told, seen) == (None, after)
    room = fault in (errno.ENOSPC, errno.EDQUOT)
    if room:  # the reserve is there for what is committed; only opening the lock may still fail for a delete
        assert outcomes == {(None, after), (StoreFull, before)}
    else:
        failed = KeyboardInterrupt if fault is None else StoreUnavailable
        assert outcomes == {(failed, before), (failed, after), (None, after)}


@pytest.mark.case("G07", "G08")
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_instant_of_a_group_leaves_all_or_nothing_of_each_change_and_tells_its_caller(tmp_path, fault):
    raised, seen = True, set()
    for number in range(1, 100):
        place = tmp_path / str(number)
        store = a_store_to_change(place)
        steps, raised = iter(range(1, 100)), False

        def step(number=number, steps=steps):
            nonlocal raised
            if next(steps) == number:
                raised = True
                raise OSError(fault, "a fault")

        try:
            with watching(step):
                outcomes = group_of(store)
        except StoreUnavailable as problem:
            outcomes = [problem] * 3
        done = tuple(repeated_of_group(store))
        seen.add((done, *(type(outcome) for outcome in outcomes)))
        contents = tuple(state and state.content.text for state in (store.find(TENANT, id) for id in IDS))
        assert contents == ((NEW, "anew", "new", OLD) if all(done) else (OLD, NEW, None, OLD))
        store.save(TENANT, [], a_receipt("further"))
        assert not leftovers(place)
        if not raised:
            break
    assert not raised
    all_done, none_done, failed = (True,) * 3, (False,) * 3, (StoreUnavailable,) * 3
    # Once more, one by one, is what an error before the commit leads to; after it, nobody can say that it lasts.
    committed = set() if fault == errno.ENOSPC else {(all_done, *failed)}
    assert seen == {(all_done, Effect, Effect, Effect), (none_done, *failed)} | committed
