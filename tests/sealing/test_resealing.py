"""Content sealed anew or opened for good, also while the store is in use and where it is damaged."""

import contextlib
import itertools
import threading
from dataclasses import replace

import pytest
import sqlalchemy
from sqlite_utils.utils import sqlite3

from receiver.app import create_app
from receiver.problems import StoreDamaged
from receiver.sealing import SealingKeys
from receiver.settings import Settings
from receiver.states import Content
from receiver.stores import copying, open_store
from receiver.stores.filesystem import FilesystemStore
from receiver.stores.resealing import reseal
from receiver.stores.sealed import CLEAR
from receiver.stores.sqlite import SqliteStore
from tests.support.platform_client import InProcess, assert_problem, loaded, ring_of
from tests.support.sealing import FIRST, NEEDLE, SECOND, always, corrupt, flipped, sealed, text_of
from tests.support.states import NOW, OTHER, TENANT, a_state, uid

pytestmark = pytest.mark.slow


def test_resealing_leaves_nothing_under_the_old_key_and_forgets_it(inner):
    sealed(inner, FIRST).save(TENANT, [a_state(number, content=f"c{number}") for number in range(1, 251)], None)
    sealed(inner, FIRST).save(OTHER, [a_state(5, tenant=OTHER, content="theirs")], None)
    seen = []
    store = sealed(inner, FIRST, SECOND, now=NOW + 100)
    done = reseal(store, None, lambda: seen.append(1))
    assert (done.key, done.resealed, done.damaged, done.left, len(seen)) == (SECOND.kid, 251, {}, {}, 251)
    assert inner.key_uses() == {("sealing", SECOND.kid): NOW + 100}
    alone = sealed(inner, SECOND)
    assert [text_of(alone, number) for number in (1, 250)] == ["c1", "c250"]
    assert reseal(alone, None, lambda: None).resealed == 0


def test_resealing_one_tenant_keeps_the_key_that_others_need(inner):
    sealed(inner, FIRST).save(TENANT, [a_state()], None)
    sealed(inner, FIRST).save(OTHER, [a_state(5, tenant=OTHER)], None)
    done = reseal(sealed(inner, FIRST, SECOND, now=NOW + 100), TENANT, lambda: None)
    assert (done.resealed, dict(done.left)) == (1, {FIRST.kid: 1})
    assert set(inner.key_uses()) == {("sealing", FIRST.kid), ("sealing", SECOND.kid)}


def test_resealing_names_what_is_damaged_and_goes_on(inner):
    sealed(inner, FIRST).save(TENANT, [a_state(number) for number in (10, 11, 12)], None)
    corrupt(inner, 11, flipped)
    done = reseal(sealed(inner, FIRST, SECOND, now=NOW + 100), None, lambda: None)
    assert done.resealed == 2
    assert done.damaged
    assert list(done.damaged) == [(TENANT, uid(11))]
    assert done.left == {}
    assert ("sealing", FIRST.kid) in inner.key_uses()


def test_what_was_sealed_can_be_opened_for_good(inner):
    sealed(inner, FIRST).save(TENANT, [a_state(content="one"), a_state(11, content="two")], None)
    opening = sealed(inner, FIRST, clear_states="write", now=NOW + 100)
    done = reseal(opening, None, lambda: None)
    assert (done.key, done.resealed) == (CLEAR, 2)
    plain = sealed(inner)
    plain.prepare()
    assert [text_of(plain, number) for number in (10, 11)] == ["one", "two"]
    assert inner.find(TENANT, uid(10)).content == Content("one")


def test_a_content_is_exchanged_only_while_it_is_what_it_was(inner):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state(number) for number in (10, 11, 12)], None)
    old = [inner.find(TENANT, uid(number)) for number in (10, 11, 12)]
    pairs = [(one, replace(one, content=Content("x", FIRST.kid))) for one in old]
    store.save(TENANT, [a_state(10, content="saved meanwhile, at the same time")], None)
    store.delete(TENANT, [uid(11)], None)
    assert inner.replace_content(TENANT, pairs) == 1
    assert text_of(store) == "saved meanwhile, at the same time"
    assert inner.find(TENANT, uid(11)) is None
    assert inner.replace_content(OTHER, pairs) == 0


def test_the_last_use_of_a_key_only_goes_forward(inner):
    inner.note_key_uses({("platform", uid(1)): 5, ("sealing", uid(1)): 7})
    inner.note_key_uses({("platform", uid(1)): 4, ("receiver", uid(2)): 1})
    inner.note_key_uses({("sealing", uid(1)): 9})
    assert inner.key_uses() == {("platform", uid(1)): 5, ("sealing", uid(1)): 9, ("receiver", uid(2)): 1}
    inner.forget_key("sealing", uid(1))
    inner.forget_key("sealing", uid(3))
    assert set(inner.key_uses()) == {("platform", uid(1)), ("receiver", uid(2))}


def test_a_content_refuses_to_be_printed():
    state = a_state(content=NEEDLE)
    for told in (str(state), repr(state), f"{state.content}", str([state.content])):
        assert NEEDLE not in told
    assert str(state.content) == f"<content of {len(NEEDLE)} characters>"
    assert "sealed" in repr(SealingKeys([FIRST]).seal(state, FIRST.kid).content)


def test_resealing_while_the_store_is_in_use_loses_no_save(inner):
    """Equal times as well: of those the later arrival wins, and what was resealed arrives never."""
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state(number, content="-1") for number in range(1, 241)], None)
    store.sealing_keys = always(FIRST, SECOND)
    over, wrong, newest = threading.Event(), [], {}

    def write(numbers):
        for version in itertools.count():
            for number in numbers:
                second = version // 2 % 60  # two versions of each time
                updated = f"2026-01-01T{version // 7200:02}:{version // 120 % 60:02}:{second:02}Z"
                store.save(TENANT, [a_state(number, updated, content=str(version))], None)
                newest[number] = str(version)
                if text_of(store, number) != str(version):
                    wrong.append((number, version))
            store.delete(TENANT, [uid(1000 + numbers[0])], None)
            if over.is_set():
                return

    writers = [threading.Thread(target=write, args=(range(first, 41, 4),)) for first in range(1, 5)]
    for writer in writers:
        writer.start()
    count = sum(reseal(sealed(inner, FIRST, SECOND, now=NOW + 100), None, lambda: None).resealed for _ in range(5))
    opening = sealed(inner, FIRST, SECOND, clear_states="write", now=NOW + 100)
    store.clear_states = "read"
    for _ in range(3):
        count += reseal(opening, None, lambda: None).resealed
    over.set()
    for writer in writers:
        writer.join()
    assert wrong == []
    assert count >= 2 * 200  # those that nobody saved were sealed anew, and opened
    assert {number: text_of(store, number) for number in newest} == newest
    assert len(newest) == 40


@pytest.mark.case("G12")
def test_a_service_without_the_key_answers_503_and_writes_nothing_in_the_clear(keys, tenant, state, tmp_path):
    url = f"sqlite:///{tmp_path}/states.db"
    with contextlib.closing(open_store(url, 10)) as inner:
        inner.prepare()
        sealed(inner, FIRST).save(TENANT, [a_state()], None)
        for others in ((), (SECOND,)):
            app = create_app(Settings(), ring_of(keys), sealed(inner, *others))
            platform = InProcess(app.test_client(), tenant, keys)
            for answer in (platform.save(state), platform.load(state["id"]), platform.save(state)):
                assert_problem(answer, 503)
                assert "retry-after" in answer.headers
                assert FIRST.kid not in answer.body.decode()
        assert [one.id for one in inner.summaries()] == [uid(10)]
        served = create_app(Settings(), ring_of(keys), sealed(inner, FIRST))
        platform = InProcess(served.test_client(), tenant, keys)
        assert platform.save(state).status == 204
        assert loaded(platform, state["id"]) == state["content"]
        assert inner.find(tenant, state["id"]).content.sealing_key == FIRST.kid


def damage_one(inner, number):
    """Damage what is known of a state without its content, as a bad disk would."""
    if isinstance(inner, FilesystemStore):
        (path,) = inner.path.rglob(f"{uid(number)}.state")
        path.write_bytes(b"x" + path.read_bytes()[1:])
        return
    sql = f"update states set updated_at = 'never' where id = '{uid(number)}'"
    if isinstance(inner, SqliteStore):
        with contextlib.closing(sqlite3.connect(inner.path)) as connection:
            connection.execute(sql)
            connection.commit()
        return
    with inner._engine().begin() as connection:
        connection.execute(sqlalchemy.text(sql))


@pytest.mark.case("G10")
@pytest.mark.parametrize("clear_states", ["read", "refuse"])
def test_one_damaged_state_of_an_older_store_takes_no_other_down(inner, clear_states):
    inner.save(TENANT, [a_state(number) for number in (10, 11, 12)], None)
    damage_one(inner, 10)
    store = sealed(inner, *([FIRST] if clear_states == "read" else []), clear_states=clear_states)
    store.prepare()
    assert text_of(store, 11) == "2026-01-01T00:00:00Z"
    store.save(TENANT, [a_state(13)], None)
    with pytest.raises(StoreDamaged):
        store.find(TENANT, uid(10))
    told = []
    assert [one.id for one in store.summaries(TENANT, told.append)] == [uid(11), uid(12), uid(13)]
    assert len(told) == 1
    with pytest.raises(StoreDamaged):
        list(store.scan())


def test_resealing_and_copying_pass_by_what_is_damaged(inner, tmp_path):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state(number) for number in (10, 11, 12, 13)], None)
    damage_one(inner, 10)
    corrupt(inner, 11, flipped)
    done = reseal(sealed(inner, FIRST, SECOND, now=NOW + 100), None, lambda: None)
    assert (done.resealed, len(done.damaged), done.left) == (2, 2, {})
    with contextlib.closing(open_store(f"sqlite:///{tmp_path}/copy.db", 10)) as there:
        target, told = sealed(there, SECOND), []
        target.prepare()
        source = sealed(inner, FIRST, SECOND, now=NOW + 100)
        assert copying.copy(source, target, None, lambda: None, told.append) == {TENANT: 2}
        (verdict,) = copying.compare(source, target, None, lambda: None, told.append)
        assert (verdict.states, verdict.is_complete) == (2, True)
        assert len({damage.cause for damage in told}) == 2
        assert [text_of(target, number) for number in (12, 13)] == ["2026-01-01T00:00:00Z"] * 2
