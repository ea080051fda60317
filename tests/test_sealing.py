"""Content at rest: sealed, bound to its state, opened by its key; on every store."""

import contextlib
import itertools
import json
import random
import subprocess
import threading
from dataclasses import replace

import pytest
import sqlalchemy
from sqlite_utils.utils import sqlite3

from receiver import sealing
from receiver.app import create_app
from receiver.problems import StoreDamaged, StoreMisplaced, StoreUnavailable
from receiver.sealing import SealingFault, SealingKeys, generate, parse_keys
from receiver.settings import Settings
from receiver.states import Content, Instant
from receiver.stores import copying, open_store
from receiver.stores.filesystem import FilesystemStore
from receiver.stores.resealing import reseal
from receiver.stores.sealed import CLEAR, Sealed
from receiver.stores.sqlite import SqliteStore
from tests.conftest import InProcess, assert_problem, loaded, ring_of
from tests.test_stores import NOW, OTHER, SERVERS, TENANT, a_receipt, a_state, uid

STORES = ["sqlite", "filesystem", "postgresql", "mariadb"]
NEEDLE = "the content that nobody may find"


def a_key(issued: int = NOW) -> sealing.SealingKey:
    (key,) = parse_keys(json.dumps(generate(issued)), "a test")
    return key


FIRST, SECOND = a_key(NOW - 10), a_key(NOW - 5)


@pytest.fixture(params=STORES)
def inner(request, tmp_path):
    """An empty store of each kind, as it is without sealing."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/sealed.db"
    elif request.param == "filesystem":
        url = f"file://{tmp_path}/sealed"
    else:
        url = request.getfixturevalue(request.param).url(request.getfixturevalue(SERVERS[request.param]).new_database())
    with contextlib.closing(open_store(url, 10)) as opened:
        opened.prepare()
        yield opened


def always(*keys):
    found = SealingKeys(keys)
    return lambda: found


def sealed(inner, *keys, clear_states="refuse", now=NOW) -> Sealed:
    return Sealed(inner, always(*keys), clear_states, lambda: now)


def text_of(store, number=10) -> str:
    return store.find(TENANT, uid(number)).content.text


@pytest.mark.parametrize("content", ["", NEEDLE, "ü\U0010ffff\x01" * 1000, "a" * 3_000_000])
def test_what_was_sealed_opens_to_the_same_bytes(content):
    keys = SealingKeys([FIRST])
    state = a_state(content=content)
    shut = keys.seal(state, FIRST.kid)
    assert (shut.content.sealing_key, keys.open(shut)) == (FIRST.kid, state)
    assert keys.seal(state, FIRST.kid).content.text != shut.content.text
    assert not content or content not in shut.content.text


def test_compressible_content_takes_less_room_and_noise_hardly_more():
    keys = SealingKeys([FIRST])
    noise = random.Random(7).randbytes(30_000).hex()
    assert len(keys.seal(a_state(content="{}" * 50_000), FIRST.kid).content.text) < 2_000
    assert len(keys.seal(a_state(content=noise), FIRST.kid).content.text) < 1.4 * len(noise) + 100


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("part", ["nonce", "middle", "tag"])
def test_no_changed_bit_opens(part, bit):
    keys = SealingKeys([FIRST])
    state = keys.seal(a_state(content=NEEDLE), FIRST.kid)
    raw = bytearray(sealing.pybase64.b64decode(state.content.text))
    raw[{"nonce": 0, "middle": len(raw) // 2, "tag": -1}[part]] ^= 1 << bit
    changed = sealing.pybase64.b64encode(bytes(raw)).decode()
    with pytest.raises(StoreDamaged, match=uid(10)) as damage:
        keys.open(replace(state, content=Content(changed, FIRST.kid)))
    assert NEEDLE not in damage.value.cause


@pytest.mark.parametrize(
    "change",
    [{"tenant": OTHER}, {"id": uid(11)}, {"updated_at": Instant.parse("2026-01-01T00:00:00.000000001Z")}],
    ids=["tenant", "id", "updatedAt"],
)
def test_content_opens_only_where_it_belongs(change):
    keys = SealingKeys([FIRST])
    state = keys.seal(a_state(content=NEEDLE), FIRST.kid)
    with pytest.raises(StoreDamaged):
        keys.open(replace(state, **change))
    assert keys.open(state).content.text == NEEDLE


@pytest.mark.parametrize("text", ["", "=", "AAAA", "not base64", "A" * 55 + "\n", "ü" * 40])
def test_what_was_never_sealed_is_damage_and_nothing_else(text):
    with pytest.raises(StoreDamaged):
        SealingKeys([FIRST]).open(replace(a_state(), content=Content(text, FIRST.kid)))


def test_a_key_is_told_by_what_it_is():
    made = generate(NOW)
    (key,) = parse_keys(json.dumps(made), "a test")
    assert (key.kid, key.issued) == (made["kid"], NOW)
    assert made["k"] not in repr(key) + str(key)
    both = json.dumps({"keys": [made, generate(NOW + 5)]})
    assert SealingKeys(parse_keys(both, "a test")).last.issued == NOW + 5


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        *(("", "one JWK"), ("[]", "one JWK"), ('{"keys": []}', "one JWK"), ('{"keys": 7}', "one JWK")),
        *(('{"kty": "EC"}', "keys sealing"), ('{"keys": [7]}', "keys sealing")),
        *((json.dumps(generate(NOW) | {"k": "AAAA"}), "32 bytes"), (json.dumps(generate(NOW) | {"k": 7}), "32 bytes")),
        *((json.dumps(generate(NOW) | {"iat": value}), '"iat"') for value in ("7", -1, 1.5, True, 1 << 60)),
        (json.dumps(generate(NOW) | {"kid": uid(7)}), "one of them was changed"),
        (json.dumps(generate(NOW) | {"k": generate(NOW)["k"]}), "one of them was changed"),
    ],
)
def test_what_is_no_sealing_key_is_told_without_repeating_it(text, valid):
    with pytest.raises(SealingFault, match=valid) as fault:
        parse_keys(text, "a test")
    if '"k"' in text:
        assert str(json.loads(text)["k"]) not in str(fault.value)


def test_a_sealed_store_answers_what_was_saved_and_holds_nothing_of_it(inner):
    store = sealed(inner, FIRST)
    assert store.save(TENANT, [a_state(content=NEEDLE), a_state(11, content="two")], a_receipt()).stored == 2
    assert text_of(store) == NEEDLE
    assert [state.content.text for state in store.scan()] == [NEEDLE, "two"]
    raw = inner.find(TENANT, uid(10))
    assert raw.content.sealing_key == FIRST.kid
    assert NEEDLE not in raw.content.text
    assert {one.sealing_key for one in inner.summaries()} == {FIRST.kid}
    assert inner.key_uses() == {("sealing", FIRST.kid): NOW}


def test_no_program_finds_the_content_in_the_files_of_a_sealed_store(tmp_path):
    for url in (f"sqlite:///{tmp_path}/states.db", f"file://{tmp_path}/states"):
        inner = open_store(url, 10)
        store = sealed(inner, FIRST)
        store.prepare()
        for version in range(30):
            store.save(
                TENANT,
                [a_state(n, f"2026-01-01T00:00:{version:02}Z", content=f"{NEEDLE} {n} " * 50) for n in range(20)],
                None,
            )
        files = [str(path) for path in tmp_path.rglob("*") if path.is_file()]
        assert any(name.endswith(("-wal", ".state")) for name in files)
        found = subprocess.run(
            ["grep", "-c", "-a", "-F", "-e", NEEDLE[:12], *files], capture_output=True, text=True, check=False
        )
        assert found.stdout.count(":0\n") == len(files)  # grep counts lines of binaries too, as strings would print
        inner.close()


def corrupt(inner, number, change):
    """Do with the stored content of a state what somebody with write access to the store could do."""
    state = inner.find(TENANT, uid(number))
    assert inner.replace_content(TENANT, [(state, replace(state, content=change(state.content)))]) == 1


def flipped(content):
    last = len(content.text) // 2
    other = "A" if content.text[last] != "A" else "B"
    return Content(content.text[:last] + other + content.text[last + 1 :], content.sealing_key)


@pytest.mark.case("G10")
def test_a_flipped_byte_is_damage_of_that_state_alone(inner):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state(number, content=f"{NEEDLE} {number}") for number in (10, 11)], None)
    corrupt(inner, 10, flipped)
    with pytest.raises(StoreDamaged, match=uid(10)):
        store.find(TENANT, uid(10))
    assert text_of(store, 11) == f"{NEEDLE} 11"
    store.save(TENANT, [a_state(10, content="anew")], None)
    assert text_of(store) == "anew"


def test_two_contents_that_were_swapped_are_damage_of_both_alone(inner):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state(number, content=str(number)) for number in (10, 11, 12)], None)
    one, two = (inner.find(TENANT, uid(number)).content for number in (10, 11))
    corrupt(inner, 10, lambda _content: two)
    corrupt(inner, 11, lambda _content: one)
    for number in (10, 11):
        with pytest.raises(StoreDamaged, match=uid(number)):
            store.find(TENANT, uid(number))
    assert text_of(store, 12) == "12"


def test_an_older_content_under_newer_columns_is_damage(inner):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state(content="old"), a_state(11)], None)
    old = inner.find(TENANT, uid(10)).content
    store.save(TENANT, [a_state(updated="2026-01-02T00:00:00Z", content="new")], None)
    corrupt(inner, 10, lambda _content: old)
    with pytest.raises(StoreDamaged, match=uid(10)):
        store.find(TENANT, uid(10))
    assert text_of(store, 11) == "2026-01-01T00:00:00Z"


def test_clear_content_that_somebody_put_there_is_refused(inner):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state(content="mine"), a_state(11)], None)
    corrupt(inner, 10, lambda _content: Content("forged"))
    with pytest.raises(StoreDamaged, match="in the clear"):
        store.find(TENANT, uid(10))
    corrupt(inner, 10, lambda _content: Content("forged", uid(99)))
    with pytest.raises(StoreDamaged, match=uid(99)):
        store.find(TENANT, uid(10))
    assert text_of(store, 11) == "2026-01-01T00:00:00Z"


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


def test_a_key_that_is_lost_with_nothing_left_under_it_is_forgotten_by_resealing(inner):
    store = sealed(inner, FIRST)
    store.save(TENANT, [a_state()], None)
    store.delete(TENANT, [uid(10)], None)
    with pytest.raises(StoreMisplaced, match="receiver store reseal"):
        sealed(inner, SECOND, now=NOW + 100).prepare()
    done = reseal(sealed(inner, SECOND, now=NOW + 100), None, lambda: None)
    assert (done.left, done.held, done.damaged) == ({}, [], {})
    sealed(inner, SECOND, now=NOW + 100).prepare()
