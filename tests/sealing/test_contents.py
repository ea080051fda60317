"""Content at rest: sealed, bound to its state, and damage told; on every store."""

import json
import random
import subprocess
from dataclasses import replace

import pytest

from receiver import sealing
from receiver.problems import StoreDamaged
from receiver.sealing import SealingFault, SealingKeys, generate, parse_keys
from receiver.states import Content, Instant
from receiver.stores import open_store
from tests.support.sealing import FIRST, NEEDLE, corrupt, flipped, sealed, text_of
from tests.support.states import NOW, OTHER, TENANT, a_receipt, a_state, uid

pytestmark = pytest.mark.slow


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
