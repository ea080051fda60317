"""Keys: loaded from everywhere, checked once, found by kid for a tenant. Row H01 of the cases."""

import json
import os
import uuid

import pytest
from jwcrypto.jwk import JWK

from receiver import keyring
from receiver.keyring import KeyFault, parse_key
from receiver.mock_platform.keys import KeyPair, new_store

TENANT, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


@pytest.fixture(scope="module")
def registered():
    return new_store()


@pytest.fixture
def variables(registered):
    return {
        "PLATFORM_KEY": json.dumps(registered.platform.public()),
        "RECEIVER_KEY": json.dumps(registered.receiver.private()),
    }


def key_text(**kind) -> str:
    return JWK.generate(**kind, kid=str(uuid.uuid4())).export()


def test_keys_of_the_environment_serve_any_tenant(registered, variables):
    ring, mistakes = keyring.load(variables, None)
    assert mistakes == []
    for role, pair in (("platform", registered.platform), ("receiver", registered.receiver)):
        key = ring.find(role, pair.kid.upper(), TENANT)
        assert (key.kid, key.tenants, key.thumbprint) == (pair.kid, None, pair.jwk.thumbprint())
        assert ring.find(role, str(uuid.uuid4()), TENANT) is None
    assert ring.find("platform", registered.receiver.kid, TENANT) is None


def test_a_private_half_that_the_receiver_has_no_use_for_is_dropped(registered, variables):
    variables["PLATFORM_KEY"] = json.dumps(registered.platform.private())
    ring, mistakes = keyring.load(variables, None)
    assert mistakes == []
    assert not ring.find("platform", registered.platform.kid, TENANT).jwk.has_private


def test_keys_of_a_directory_serve_any_tenant_or_that_of_their_folder(tmp_path, registered):
    own = new_store()
    (tmp_path / f"platform-{registered.platform.kid}.json").write_text(json.dumps(registered.platform.public()))
    (tmp_path / "receiver.jwk").write_text(json.dumps(registered.receiver.private()))
    (tmp_path / TENANT).mkdir()
    (tmp_path / TENANT / f"platform_key_{own.platform.kid.replace('-', '_')}.json").write_text(
        json.dumps(own.platform.public())
    )
    (tmp_path / TENANT / f"receiver-{own.receiver.kid}.json").write_text(json.dumps(own.receiver.private()))
    for ignored in ("README.md", ".gitignore", "mock-platform-x.json", ".hidden.json"):
        (tmp_path / ignored).write_text("not a key")
    ring, mistakes = keyring.load({}, tmp_path)
    assert mistakes == []
    for role in keyring.ROLES:
        any_kid, own_kid = getattr(registered, role).kid, getattr(own, role).kid
        assert ring.find(role, any_kid, TENANT) and ring.find(role, any_kid, OTHER)
        assert ring.find(role, own_kid, TENANT) and ring.find(role, own_kid, TENANT.upper())
        assert ring.find(role, own_kid, OTHER) is None
        assert ring.find(role, own_kid, "no uuid") is None


def test_the_very_same_key_from_two_places_serves_the_tenants_of_both(tmp_path, registered, variables):
    for tenant in (TENANT, OTHER):
        (tmp_path / tenant).mkdir()
        (tmp_path / tenant / "receiver.json").write_text(variables["RECEIVER_KEY"])
    ring, mistakes = keyring.load({"PLATFORM_KEY": variables["PLATFORM_KEY"]}, tmp_path)
    assert mistakes == []
    assert ring.find("receiver", registered.receiver.kid, TENANT).tenants == {TENANT, OTHER}
    ring, mistakes = keyring.load(variables, tmp_path)
    assert (mistakes, ring.find("receiver", registered.receiver.kid, TENANT).tenants) == ([], None)


def test_the_two_roles_may_share_a_kid(registered, variables):
    receiver = JWK.generate(kty="EC", crv="P-384", kid=registered.platform.kid).export()
    ring, mistakes = keyring.load(variables | {"RECEIVER_KEY": receiver}, None)
    assert mistakes == []
    assert len(list(ring)) == 2


def private(registered):
    return registered.receiver.private()


FAULTS = {
    "not JSON": lambda registered: "not JSON",
    "an array": lambda registered: "[]",
    "a key set": lambda registered: json.dumps({"keys": [private(registered)]}),
    "a member twice": lambda registered: '{"kty": "EC", "kty": "EC"}',
    "P-256": lambda registered: key_text(kty="EC", crv="P-256"),
    "P-521": lambda registered: key_text(kty="EC", crv="P-521"),
    "RSA": lambda registered: key_text(kty="RSA", size=2048),
    "oct": lambda registered: key_text(kty="oct", size=256),
    "OKP": lambda registered: key_text(kty="OKP", crv="X448"),
    "P-256 called P-384": lambda registered: json.dumps(json.loads(key_text(kty="EC", crv="P-256")) | {"crv": "P-384"}),
    "no kid": lambda registered: json.dumps(private(registered) | {"kid": None}),
    "a kid that is no UUID": lambda registered: json.dumps(private(registered) | {"kid": "key-1"}),
    "no d": lambda registered: json.dumps(registered.receiver.public()),
    "a foreign d": lambda registered: json.dumps(private(registered) | {"d": private(new_store())["d"]}),
    "a d of zero": lambda registered: json.dumps(private(registered) | {"d": "A" * 64}),
    "a d that is too large": lambda registered: json.dumps(private(registered) | {"d": "_" * 64}),
    "a short d": lambda registered: json.dumps(private(registered) | {"d": private(registered)["d"][:60]}),
    "a point off the curve": lambda registered: json.dumps(private(registered) | {"y": private(registered)["x"]}),
    "a point of zeros": lambda registered: json.dumps(private(registered) | {"x": "A" * 64, "y": "A" * 64}),
    "a number for x": lambda registered: json.dumps(private(registered) | {"x": 1}),
    "an x in other base64": lambda registered: json.dumps(private(registered) | {"x": "+" * 64}),
    "another alg": lambda registered: json.dumps(private(registered) | {"alg": "RS256"}),
    "ES256": lambda registered: json.dumps(private(registered) | {"alg": "ES256"}),
    "an alg that is a list": lambda registered: json.dumps(private(registered) | {"alg": ["ES384"]}),
    "another use": lambda registered: json.dumps(private(registered) | {"use": "tls"}),
    "alg against use": lambda registered: json.dumps(private(registered) | {"alg": "ES384", "use": "enc"}),
    "use against alg": lambda registered: json.dumps(private(registered) | {"alg": "ECDH-ES+A192KW", "use": "sig"}),
    "key_ops against use": lambda registered: json.dumps(
        private(registered) | {"use": "sig", "key_ops": ["deriveKey"]}
    ),
    "unknown key_ops": lambda registered: json.dumps(private(registered) | {"key_ops": ["fly"]}),
    "no key_ops": lambda registered: json.dumps(private(registered) | {"key_ops": []}),
    "a surrogate": lambda registered: '{"kid": "\ud800"}',
}


@pytest.mark.case("H01")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_that_cannot_be_used_is_named_and_never_printed(registered, variables, fault):
    text = FAULTS[fault](registered)
    _, mistakes = keyring.load(variables | {"RECEIVER_KEY": text}, None)
    assert len(mistakes) == 1, mistakes
    assert mistakes[0].startswith("RECEIVER_KEY: ")
    for secret in (private(registered)["d"], private(registered)["x"], text):
        assert secret not in mistakes[0]


@pytest.mark.parametrize(
    "more",
    [
        {"alg": "ES384"},
        {"alg": "ECDH-ES+A256KW", "use": "enc"},
        {"use": "sig"},
        {"key_ops": ["sign", "deriveKey"]},
        {"ext": True, "x5t": "x"},
    ],
)
def test_what_says_nothing_against_the_contract_is_accepted_and_dropped(registered, more):
    key = parse_key(json.dumps(private(registered) | more), "receiver", "RECEIVER_KEY")
    assert set(key.jwk.export(as_dict=True)) == {"kty", "crv", "x", "y", "d"}


@pytest.mark.case("H01")
def test_one_kid_for_two_keys_of_a_role_is_refused(registered, variables):
    other = JWK.generate(kty="EC", crv="P-384", kid=registered.receiver.kid).export()
    name = f"RECEIVER_KEY_{registered.receiver.kid}"
    _, mistakes = keyring.load(variables | {name: other}, None)
    assert mistakes == [f'{name}: has the same "kid" as RECEIVER_KEY but is another key']


@pytest.mark.case("H01")
def test_one_key_in_both_roles_is_refused(registered, variables):
    text = json.dumps(registered.receiver.private() | {"kid": str(uuid.uuid4())})
    _, mistakes = keyring.load(variables | {"PLATFORM_KEY": text}, None)
    assert mistakes == ["RECEIVER_KEY: is the same key as PLATFORM_KEY; platform and receiver keys must differ"]


@pytest.mark.case("H01")
@pytest.mark.parametrize("spelled", [lambda kid: kid, lambda kid: kid.replace("-", "_"), str.upper])
def test_a_kid_must_be_that_of_its_name(registered, variables, spelled):
    text = variables.pop("RECEIVER_KEY")
    good, bad = f"RECEIVER_KEY_{spelled(registered.receiver.kid)}", f"RECEIVER_KEY_{spelled(str(uuid.UUID(int=9)))}"
    assert keyring.load(variables | {good: text}, None)[1] == []
    assert keyring.load(variables | {bad: text}, None)[1] == [f'{bad}: has another "kid" than its name says']


def test_what_lies_in_the_directory_and_is_no_key_is_named(tmp_path, registered, variables):
    (tmp_path / "key.pem").write_text("x")
    (tmp_path / "not-a-tenant").mkdir()
    (tmp_path / TENANT / OTHER).mkdir(parents=True)
    (tmp_path / f"receiver-{uuid.UUID(int=5)}.json").write_text(variables["RECEIVER_KEY"])
    os.mkfifo(tmp_path / "platform.json")
    _, mistakes = keyring.load(variables, tmp_path)
    named = sorted(mistake.removeprefix(f"{tmp_path}/").partition(": ")[0] for mistake in mistakes)
    assert named == sorted(
        ["key.pem", "not-a-tenant", f"{TENANT}/{OTHER}", f"receiver-{uuid.UUID(int=5)}.json", "platform.json"]
    )


def test_no_key_at_all_is_a_mistake_for_each_role(tmp_path):
    _, mistakes = keyring.load({}, tmp_path)
    assert [mistake.partition(":")[0] for mistake in mistakes] == ["PLATFORM_KEY", "RECEIVER_KEY"]


def test_a_key_never_shows_its_material(registered, variables):
    ring, _ = keyring.load(variables, None)
    shown = " ".join(repr(key) for key in ring)
    assert registered.receiver.kid in shown
    assert registered.receiver.private()["d"] not in shown
    assert registered.receiver.private()["x"] not in shown


def test_keys_are_parsed_once_and_not_for_each_request(platform, state, monkeypatch):
    def parsed(*_args, **_kwargs):
        raise AssertionError("a key was parsed")

    monkeypatch.setattr("receiver.keyring.parse_key", parsed)
    assert platform.save(state).status == 204
    assert platform.load(state["id"]).status == 200


def test_a_pair_of_the_mock_platform_survives_its_file():
    pair = KeyPair.generate()
    assert KeyPair.of(pair.private()).private() == pair.private()
    with pytest.raises(KeyFault):
        parse_key(json.dumps(pair.public()), "receiver", "RECEIVER_KEY")
