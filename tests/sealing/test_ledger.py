"""The ledger of sealing keys in a store: who may begin to seal, who has to stop, and what is forgotten."""

import json

import pytest

from receiver.problems import StoreMisplaced
from receiver.sealing import SealingKeys, generate, parse_keys
from receiver.stores.filesystem import FilesystemStore
from receiver.stores.resealing import reseal
from receiver.stores.sealed import CLEAR, UNREAD, Sealed
from tests.support.sealing import FIRST, NEEDLE, SECOND, always, sealed, text_of
from tests.support.states import NOW, TENANT, a_state, uid
from tests.support.waiting import until

pytestmark = pytest.mark.slow


@pytest.mark.case("G12")
def test_a_receiver_that_forgot_the_key_stops_writing_when_another_begins_to_seal(inner):
    now = [NOW]
    forgetful = Sealed(inner, always(), "refuse", lambda: now[0])
    forgetful.prepare()
    sealed(inner, FIRST).save(TENANT, [a_state(content=NEEDLE)], None)
    for later in (0, 100, 200):
        now[0] = NOW + later
        with pytest.raises(StoreMisplaced, match=FIRST.kid):
            forgetful.save(TENANT, [a_state(11)], None)
    assert inner.find(TENANT, uid(11)) is None
    assert set(inner.key_uses()) == {("sealing", FIRST.kid)}
    sealed(inner, FIRST).prepare()


@pytest.mark.case("G12")
def test_of_two_that_begin_at_once_the_one_without_the_key_gives_way(inner):
    forgetful, knowing = sealed(inner), sealed(inner, FIRST)
    forgetful.prepare()
    real = inner.note_key_uses

    def note(uses):
        real({("sealing", FIRST.kid): NOW})  # the other one's, in between
        real(uses)

    inner.note_key_uses = note
    with pytest.raises(StoreMisplaced):
        forgetful.save(TENANT, [a_state()], None)
    inner.note_key_uses = real
    assert inner.find(TENANT, uid(10)) is None
    knowing.save(TENANT, [a_state(content=NEEDLE)], None)
    assert set(inner.key_uses()) == {("sealing", FIRST.kid)}


def test_a_key_that_was_in_use_a_moment_ago_is_not_forgotten(inner):
    old = sealed(inner, FIRST)
    old.save(TENANT, [a_state()], None)
    done = reseal(sealed(inner, FIRST, SECOND, now=NOW + 9), None, lambda: None)
    assert (done.resealed, done.left, done.held) == (1, {}, [FIRST.kid])
    old.save(TENANT, [a_state(11)], None)  # it need not note the key again
    with pytest.raises(StoreMisplaced, match=FIRST.kid):
        sealed(inner, SECOND).prepare()
    done = reseal(sealed(inner, FIRST, SECOND, now=NOW + 100), None, lambda: None)
    assert (done.resealed, done.held) == (1, [])
    sealed(inner, SECOND).prepare()


def test_a_new_key_seals_when_its_time_has_come_and_opens_before(inner):
    now = [NOW]
    (late,) = parse_keys(json.dumps(generate(NOW, NOW + 300)), "a test")
    store = Sealed(inner, always(FIRST, late), "refuse", lambda: now[0])
    keys = ("sealing", FIRST.kid), ("sealing", late.kid)
    for second, key in ((0, FIRST), (299, FIRST), (300, late)):
        now[0] = NOW + second
        store.save(TENANT, [a_state()], None)
        assert inner.find(TENANT, uid(10)).content.sealing_key == key.kid
    assert set(inner.key_uses()) == set(keys)
    assert SealingKeys([late]).at(NOW) is None
    assert SealingKeys().at(NOW) is None


def test_the_first_key_waits_for_its_time_where_contents_in_the_clear_are_read(inner):
    now = [NOW]
    (late,) = parse_keys(json.dumps(generate(NOW, NOW + 300)), "a test")
    store = Sealed(inner, always(late), "read", lambda: now[0])
    for second, key in ((0, None), (299, None), (300, late.kid)):
        now[0] = NOW + second
        store.save(TENANT, [a_state(content=str(second))], None)
        assert inner.find(TENANT, uid(10)).content.sealing_key == key
        assert text_of(store) == str(second)
    assert set(inner.key_uses()) == {("sealing", CLEAR), ("sealing", late.kid)}


def test_a_key_before_its_time_seals_where_contents_in_the_clear_are_refused(inner):
    (late,) = parse_keys(json.dumps(generate(NOW, NOW + 300)), "a test")
    store = sealed(inner, late)
    store.save(TENANT, [a_state(content=NEEDLE)], None)
    assert inner.find(TENANT, uid(10)).content.sealing_key == late.kid
    assert text_of(store) == NEEDLE


def test_a_worker_whose_keys_fitted_at_the_start_serves_on_when_another_key_appears(inner):
    sealed(inner, FIRST).save(TENANT, [a_state(content="one")], None)
    sealed(inner, SECOND, clear_states="read").inner.note_key_uses({("sealing", SECOND.kid): NOW})
    idle = Sealed(inner, always(FIRST), "refuse", lambda: NOW, strict=False)
    assert text_of(idle) == "one"
    keyless = Sealed(inner, always(), "refuse", lambda: NOW, strict=False)
    for call in (keyless.ping, lambda: keyless.save(TENANT, [a_state(11)], None)):
        with pytest.raises(StoreMisplaced):
            call()


@pytest.mark.case("G12")
def test_a_ledger_that_is_gone_is_made_anew_from_the_contents(inner):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state(content="one")], None)
    inner.forget_key("sealing", FIRST.kid)
    with pytest.raises(StoreMisplaced, match=FIRST.kid):
        sealed(inner).prepare()
    if isinstance(inner, FilesystemStore):
        (inner.path / "key-uses").write_bytes(b"damaged")
        with pytest.raises(StoreMisplaced, match=FIRST.kid):
            sealed(inner).save(TENANT, [a_state(11)], None)
    fresh = sealed(inner, FIRST)
    fresh.prepare()
    assert text_of(fresh) == "one"
    assert ("sealing", FIRST.kid) in inner.key_uses()


@pytest.mark.case("G12")
def test_a_large_store_without_a_ledger_serves_at_once_and_the_rest_is_read_in_the_background(inner, caplog):
    inner.save(TENANT, [a_state(number) for number in range(10, 230)], None)
    inner.save(TENANT, [always(FIRST)().seal(a_state(900, content=NEEDLE), FIRST.kid)], None)
    keyless = sealed(inner)
    keyless.prepare()
    assert set(inner.key_uses()) == {("sealing", CLEAR), ("sealing", UNREAD)}
    assert keyless.is_clear()
    keyless.save(TENANT, [a_state(11)], None)
    until(lambda: ("sealing", UNREAD) not in inner.key_uses() and FIRST.kid in caplog.text)
    assert set(inner.key_uses()) == {("sealing", CLEAR), ("sealing", FIRST.kid)}
    with pytest.raises(StoreMisplaced, match=FIRST.kid):
        keyless.save(TENANT, [a_state(12)], None)
    assert keyless.find(TENANT, uid(11))
    assert text_of(sealed(inner, FIRST, clear_states="read"), 900) == NEEDLE


def test_a_key_that_is_lost_with_nothing_left_under_it_is_forgotten_by_resealing(inner):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state()], None)
    store.delete(TENANT, [uid(10)], None)
    with pytest.raises(StoreMisplaced, match="receiver store reseal"):
        sealed(inner, SECOND, now=NOW + 100).prepare()
    done = reseal(sealed(inner, SECOND, now=NOW + 100), None, lambda: None)
    assert (done.left, done.held, done.damaged) == ({}, [], {})
    sealed(inner, SECOND, now=NOW + 100).prepare()
