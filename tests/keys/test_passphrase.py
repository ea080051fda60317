"""Key files that a passphrase protects: only it opens them, no change goes unseen, and no file makes a start expensive."""

import json

import pytest

from receiver.keys import passphrase
from receiver.keys.passphrase import open_text, protect
from receiver.mock_platform.keys import KeyPair
from receiver.settings.key_sources import KeyFault

PHRASE = "correct horse battery stäple"


@pytest.fixture(scope="module")
def key():
    return json.dumps(KeyPair.generate().private())


@pytest.fixture(scope="module")
def protected(key):
    return protect(key, PHRASE)


def changed(protected, **members) -> str:
    return json.dumps(json.loads(protected) | members)


def test_what_was_protected_comes_back_and_never_looks_the_same(key, protected):
    assert open_text(protected, PHRASE) == key
    again = protect(key, PHRASE)
    assert json.loads(again)["salt"] != json.loads(protected)["salt"]
    assert open_text(again, PHRASE) == key
    assert open_text(key, PHRASE) == key
    assert (passphrase.is_protected(protected), passphrase.is_protected(key)) == (True, False)


def test_a_sealing_key_is_protected_as_well():
    text = json.dumps({"kty": "oct", "kid": "01234567-89ab-cdef-0123-456789abcdef", "k": "A" * 43, "iat": 1})
    assert open_text(protect(text, PHRASE), PHRASE) == text


def test_only_the_kid_can_be_read(key, protected):
    members = json.loads(protected)
    assert members["kid"] == json.loads(key)["kid"]
    for secret in (json.loads(key)["d"], json.loads(key)["x"], PHRASE):
        assert secret not in protected


def test_a_phrase_that_is_another_one_or_missing_is_told_without_repeating_it(protected):
    with pytest.raises(KeyFault, match=r"^cannot be opened: STORAGE_KEY_PASSPHRASE is not its passphrase") as fault:
        open_text(protected, "correct horse battery staple")
    assert "horse" not in str(fault.value)
    with pytest.raises(KeyFault, match=r"^is protected by a passphrase: set STORAGE_KEY_PASSPHRASE, or"):
        open_text(protected, "")


def test_a_change_of_anything_is_seen(protected):
    members = json.loads(protected)
    other = "01234567-89ab-cdef-0123-456789abcdef"
    half = len(members["sealed"]) // 2
    flipped = "A" if members["sealed"][half] != "A" else "B"
    for change in (
        {"kid": other},
        {"passes": members["passes"] + 1},
        {"memory": members["memory"] * 2},
        {"salt": "A" * len(members["salt"])},
        {"salt": members["salt"][:-2]},
        {"salt": None},
        {"sealed": members["sealed"][:half] + flipped + members["sealed"][half + 1 :]},
        {"sealed": members["sealed"][:20]},
        {"sealed": ""},
        {"sealed": 7},
    ):
        with pytest.raises(KeyFault, match=r"^cannot be opened"):
            open_text(changed(protected, **change), PHRASE)


@pytest.mark.parametrize(
    "work",
    [
        {"memory": 10 << 30},
        {"memory": (256 << 20) + 1},
        {"memory": 1},
        {"passes": 9},
        {"passes": 10**9},
        {"passes": 0},
        {"passes": -1},
        {"passes": True},
        {"passes": "2"},
        {"passes": 2.0},
        {"memory": None},
    ],
)
def test_a_file_cannot_ask_for_more_work_than_is_sensible(protected, work, monkeypatch):
    monkeypatch.setattr(passphrase.argon2id, "kdf", lambda *_work, **_limits: pytest.fail("it did the work"))
    with pytest.raises(KeyFault, match=r"^must take 1 to 8 passes over at most 256 MiB"):
        open_text(changed(protected, **work), PHRASE)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kid": "no uuid", "d": "x"}', "\ud800"])
def test_what_is_no_key_is_not_protected(text):
    with pytest.raises(KeyFault, match=r"^must be one JWK"):
        protect(text, PHRASE)


def test_what_is_public_or_protected_is_not_protected(key, protected):
    public = {name: value for name, value in json.loads(key).items() if name != "d"}
    with pytest.raises(KeyFault, match=r"^holds nothing private$"):
        protect(json.dumps(public), PHRASE)
    with pytest.raises(KeyFault, match=r"^is protected already$"):
        protect(protected, PHRASE)
