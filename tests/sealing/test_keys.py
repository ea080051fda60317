"""Keys for content at rest: missing, newer, exchanged and not yet due ones."""

import pytest

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores.resealing import reseal
from tests.support.sealing import FIRST, NEEDLE, SECOND, always, sealed, text_of
from tests.support.states import NOW, TENANT, a_state, uid


@pytest.mark.case("G12")
@pytest.mark.parametrize("keys", [(), (SECOND,)], ids=["none", "another"])
def test_a_receiver_that_lacks_the_key_does_not_start_and_writes_nothing(inner, keys):
    sealed(inner, FIRST).save(TENANT, [a_state(content=NEEDLE)], None)
    store = sealed(inner, *keys)
    for call in (
        store.prepare,
        lambda: store.save(TENANT, [a_state(11)], None),
        lambda: store.find(TENANT, uid(10)),
        lambda: list(store.scan()),
    ):
        with pytest.raises(StoreMisplaced, match=FIRST.kid):
            call()
    assert inner.find(TENANT, uid(11)) is None
    assert inner.key_uses() == {("sealing", FIRST.kid): NOW}
    assert [one.id for one in store.summaries()] == [uid(10)]  # what needs no key still answers


@pytest.mark.case("G12")
def test_a_key_over_clear_states_stops_the_start_until_they_are_sealed_or_allowed(inner):
    sealed(inner).save(TENANT, [a_state(content="clear")], None)
    with pytest.raises(StoreMisplaced, match="receiver store reseal"):
        sealed(inner, FIRST).prepare()
    reading = sealed(inner, FIRST, clear_states="read")
    reading.save(TENANT, [a_state(11)], None)
    assert (text_of(reading), inner.find(TENANT, uid(11)).content.sealing_key) == ("clear", FIRST.kid)
    with pytest.raises(StoreMisplaced, match="receiver store reseal"):
        sealed(inner, FIRST).prepare()
    assert reseal(reading, None, lambda: None, still_held=0).resealed == 1
    assert text_of(sealed(inner, FIRST)) == "clear"


def test_states_from_before_there_was_sealing_count_as_clear(inner):
    inner.save(TENANT, [a_state(content="clear")], None)
    with pytest.raises(StoreMisplaced, match="in the clear"):
        sealed(inner, FIRST).prepare()
    reading = sealed(inner, FIRST, clear_states="read")
    reading.save(TENANT, [a_state(11)], None)
    with pytest.raises(StoreMisplaced, match="in the clear"):
        sealed(inner, FIRST).prepare()


@pytest.mark.case("G12")
def test_the_newest_key_seals_and_older_ones_open(inner):
    sealed(inner, FIRST).save(TENANT, [a_state(content="one"), a_state(11, content="two")], None)
    both = sealed(inner, SECOND, FIRST)
    both.save(TENANT, [a_state(11, content="anew")], None)
    assert [inner.find(TENANT, uid(number)).content.sealing_key for number in (10, 11)] == [FIRST.kid, SECOND.kid]
    assert [text_of(both, number) for number in (10, 11)] == ["one", "anew"]


def test_keys_that_are_exchanged_while_it_runs_are_taken_and_a_missing_one_takes_only_its_states(inner):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state(content="one")], None)
    store.sealing_keys = always(SECOND)
    store.save(TENANT, [a_state(11, content="two")], None)
    assert text_of(store, 11) == "two"
    with pytest.raises(StoreUnavailable, match=FIRST.kid):
        store.find(TENANT, uid(10))
    store.sealing_keys = always(FIRST, SECOND)
    assert text_of(store) == "one"
    store.sealing_keys = always()
    with pytest.raises(StoreUnavailable, match=FIRST.kid):
        store.save(TENANT, [a_state(12)], None)
    assert inner.find(TENANT, uid(12)) is None
