"""Keys: loaded from everywhere, checked once, found by kid for a tenant. Case H01."""

import json
import os
import uuid
from pathlib import Path

import pytest
from jwcrypto.jwk import JWK

from receiver import sealing, settings
from receiver.commands.keys import key_rows
from receiver.keys import keyring, passphrase
from receiver.keys.keyring import KeyFault, parse_key
from receiver.mock_platform.forging import b64, unb64
from receiver.mock_platform.keys import KeyPair, new_store
from receiver.secret import Secret
from receiver.settings import Settings
from tests.support.key_files import load, write_private

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
    ring, mistakes = load(variables)
    assert mistakes == []
    for role, pair in (("platform", registered.platform), ("receiver", registered.receiver)):
        key = ring.find(role, pair.kid.upper(), TENANT)
        assert (key.kid, key.tenants, key.thumbprint) == (pair.kid, None, pair.jwk.thumbprint())
        assert ring.find(role, str(uuid.uuid4()), TENANT) is None
    assert ring.find("platform", registered.receiver.kid, TENANT) is None


def test_a_private_half_that_the_receiver_has_no_use_for_is_dropped(registered, variables):
    variables["PLATFORM_KEY"] = json.dumps(registered.platform.private())
    ring, mistakes = load(variables)
    assert mistakes == []
    assert not hasattr(ring.find("platform", registered.platform.kid, TENANT).handle, "private_numbers")


def test_keys_of_a_directory_serve_any_tenant_or_that_of_their_folder(tmp_path, registered):
    own = new_store()
    (tmp_path / f"platform-{registered.platform.kid}.json").write_text(json.dumps(registered.platform.public()))
    write_private(tmp_path / "receiver.jwk", json.dumps(registered.receiver.private()))
    (tmp_path / TENANT).mkdir()
    (tmp_path / TENANT / f"platform_key_{own.platform.kid.replace('-', '_')}.json").write_text(
        json.dumps(own.platform.public())
    )
    write_private(tmp_path / TENANT / f"receiver-{own.receiver.kid}.json", json.dumps(own.receiver.private()))
    for ignored in ("README.md", ".gitignore", "mock-platform-x.json", ".hidden.json"):
        (tmp_path / ignored).write_text("not a key")
    ring, mistakes = load({}, tmp_path)
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
        write_private(tmp_path / tenant / "receiver.json", variables["RECEIVER_KEY"])
    ring, mistakes = load({"PLATFORM_KEY": variables["PLATFORM_KEY"]}, tmp_path)
    assert mistakes == []
    assert ring.find("receiver", registered.receiver.kid, TENANT).tenants == {TENANT, OTHER}
    ring, mistakes = load(variables, tmp_path)
    assert (mistakes, ring.find("receiver", registered.receiver.kid, TENANT).tenants) == ([], None)


def test_the_two_roles_may_share_a_kid(registered, variables):
    receiver = JWK.generate(kty="EC", crv="P-384", kid=registered.platform.kid).export()
    ring, mistakes = load(variables | {"RECEIVER_KEY": receiver})
    assert mistakes == []
    assert len(list(ring)) == 2


def private(registered):
    return registered.receiver.private()


FAULTS = {
    "not JSON": lambda registered: "not JSON",
    "an array": lambda registered: "[]",
    "a key set of two": lambda registered: json.dumps({"keys": [private(registered), private(new_store())]}),
    "a key set of none": lambda registered: json.dumps({"keys": []}),
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
    "key_ops of null in a list": lambda registered: json.dumps(private(registered) | {"key_ops": [None]}),
    "an x of 49 bytes that is no number": lambda registered: json.dumps(private(registered) | {"x": "B" + 65 * "A"}),
    "an x of 50 bytes": lambda registered: json.dumps(
        private(registered) | {"x": b64(bytes(2) + unb64(private(registered)["x"]))}
    ),
    "an empty d": lambda registered: json.dumps(private(registered) | {"d": ""}),
    "a surrogate": lambda registered: '{"kid": "\ud800"}',
}


@pytest.mark.case("H01")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_that_cannot_be_used_is_named_and_never_printed(registered, variables, fault):
    text = FAULTS[fault](registered)
    _, mistakes = load(variables | {"RECEIVER_KEY": text})
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
        {"key_ops": []},
    ],
)
def test_what_says_nothing_against_the_contract_is_accepted_and_dropped(registered, more):
    key = parse_key(json.dumps(private(registered) | more), "receiver", "RECEIVER_KEY")
    assert key == parse_key(json.dumps(private(registered)), "receiver", "RECEIVER_KEY")


@pytest.mark.case("H01")
def test_one_kid_for_two_keys_of_a_role_is_refused(registered, variables):
    other = JWK.generate(kty="EC", crv="P-384", kid=registered.receiver.kid).export()
    name = f"RECEIVER_KEY_{registered.receiver.kid}"
    _, mistakes = load(variables | {name: other})
    assert mistakes == [f'{name}: has the same "kid" as RECEIVER_KEY but is another key']


@pytest.mark.case("H01")
def test_one_key_in_both_roles_is_refused(registered, variables):
    text = json.dumps(registered.receiver.private() | {"kid": str(uuid.uuid4())})
    _, mistakes = load(variables | {"PLATFORM_KEY": text})
    assert mistakes == ["RECEIVER_KEY: is the same key as PLATFORM_KEY; platform and receiver keys must differ"]


@pytest.mark.case("H01")
@pytest.mark.parametrize("spelled", [lambda kid: kid, lambda kid: kid.replace("-", "_"), str.upper])
def test_a_kid_must_be_that_of_its_name(registered, variables, spelled):
    text = variables.pop("RECEIVER_KEY")
    good, bad = f"RECEIVER_KEY_{spelled(registered.receiver.kid)}", f"RECEIVER_KEY_{spelled(str(uuid.UUID(int=9)))}"
    assert load(variables | {good: text})[1] == []
    assert load(variables | {bad: text})[1] == [f'{bad}: has another "kid" than its name says']


def test_what_lies_in_the_directory_and_is_no_key_is_named(tmp_path, registered, variables):
    (tmp_path / "key.pem").write_text("x")
    (tmp_path / "not-a-tenant").mkdir()
    (tmp_path / TENANT / OTHER).mkdir(parents=True)
    write_private(tmp_path / f"receiver-{uuid.UUID(int=5)}.json", variables["RECEIVER_KEY"])
    os.mkfifo(tmp_path / "platform.json")
    _, mistakes = load(variables, tmp_path)
    named = sorted(mistake.removeprefix(f"{tmp_path}/").partition(": ")[0] for mistake in mistakes)
    assert named == sorted(
        ["key.pem", "not-a-tenant", f"{TENANT}/{OTHER}", f"receiver-{uuid.UUID(int=5)}.json", "platform.json"]
    )


def test_no_key_at_all_is_a_mistake_for_each_role(tmp_path):
    _, mistakes = load({}, tmp_path)
    assert [mistake.partition(":")[0] for mistake in mistakes] == ["PLATFORM_KEY", "RECEIVER_KEY"]


def test_a_key_never_shows_its_material(registered, variables):
    ring, _ = load(variables)
    shown = " ".join(repr(key) for key in ring)
    assert registered.receiver.kid in shown
    assert registered.receiver.private()["d"] not in shown
    assert registered.receiver.private()["x"] not in shown


def test_keys_are_parsed_once_and_not_for_each_request(platform, state, monkeypatch):
    def parsed(*_args, **_kwargs):
        raise AssertionError("a key was parsed")

    monkeypatch.setattr("receiver.keys.keyring.parse_key", parsed)
    assert platform.save(state).status == 204
    assert platform.load(state["id"]).status == 200


def test_a_pair_of_the_mock_platform_survives_its_file():
    pair = KeyPair.generate()
    assert KeyPair.of(pair.private()).private() == pair.private()
    with pytest.raises(KeyFault):
        parse_key(json.dumps(pair.public()), "receiver", "RECEIVER_KEY")


def exposed(path, **more) -> tuple[list[str], list[str]]:
    """Return the mistakes that everybody's access to ``path`` makes, and the warnings that it makes instead."""
    path.chmod(0o444)
    refused = keyring.load(Settings(**more))[1]
    ring, mistakes = keyring.load(Settings(**more, insecure_keys="warn"))
    assert mistakes == []
    path.chmod(0o440)
    assert keyring.load(Settings(**more))[1] == []
    return refused, list(ring.exposed)


@pytest.mark.case("H03")
def test_each_kind_of_file_with_a_private_key_must_not_be_everybodys(tmp_path, registered, variables):
    texts = {name: Secret(text) for name, text in variables.items()}
    path = write_private(tmp_path / "a file", variables["RECEIVER_KEY"])
    sealing_key = {"sealing_key": Secret(json.dumps(sealing.generate(1_700_000_000)))}
    from_variable = {"RECEIVER_KEY_FILE": texts["RECEIVER_KEY"], "PLATFORM_KEY": texts["PLATFORM_KEY"]}
    full = {
        "PLATFORM_KEY_FILE": Secret(json.dumps(registered.platform.private())),
        "RECEIVER_KEY": texts["RECEIVER_KEY"],
    }
    nowhere = {"keys": Path("/no/such/directory")}
    for source, more in (
        ("RECEIVER_KEY_FILE", {"key_texts": from_variable}),
        ("PLATFORM_KEY_FILE", {"key_texts": full}),
        (
            "STORAGE_SEALING_KEY_FILE",
            {"key_texts": texts, "sources": {"sealing_key": "STORAGE_SEALING_KEY_FILE"}} | sealing_key,
        ),
        (
            "STORAGE_KEY_PASSPHRASE_FILE",
            {"key_texts": texts, "sources": {"key_passphrase": "STORAGE_KEY_PASSPHRASE_FILE"}},
        ),
    ):
        (refused,), (warning,) = exposed(path, paths={source: str(path)}, **more, **nowhere)
        assert refused.startswith(
            f"{source}: everybody on this machine may use the private key in {path} (mode 0444): "
        )
        assert f"chmod o= '{path}';" in refused
        assert refused == f"{warning}; STORAGE_INSECURE_KEYS=warn only warns"


@pytest.mark.case("H03")
@pytest.mark.parametrize("mode", [0o601, 0o602, 0o604, 0o644, 0o777])
def test_the_mode_of_the_file_itself_counts_and_public_keys_may_be_read(tmp_path, registered, variables, mode):
    (tmp_path / "secret").mkdir()
    (tmp_path / "keys").mkdir()
    path = write_private(tmp_path / "secret" / "x", variables["RECEIVER_KEY"])
    (tmp_path / "keys" / "receiver.json").symlink_to(path)
    (tmp_path / "keys" / "platform.json").write_text(variables["PLATFORM_KEY"])
    (tmp_path / "keys" / "platform.json").chmod(0o644)
    assert load({}, tmp_path / "keys")[1] == []
    path.chmod(mode)
    (mistake,) = load({}, tmp_path / "keys")[1]
    assert mistake.startswith(f"{tmp_path}/keys/receiver.json: everybody ")
    assert f"(mode {mode:04o})" in mistake


def test_the_files_that_variables_name_are_judged_by_their_mode(tmp_path, variables):
    path = write_private(tmp_path / "key", variables["RECEIVER_KEY"])
    environ = {
        "PLATFORM_KEY": variables["PLATFORM_KEY"],
        "RECEIVER_KEY_FILE": str(path),
        "STORAGE_KEYS": str(tmp_path / "k"),
    }
    (tmp_path / "k").mkdir()
    (tmp_path / "phrase").write_text("x")
    (tmp_path / "phrase").chmod(0o644)
    found, mistakes = settings.read(environ | {"STORAGE_KEY_PASSPHRASE_FILE": str(tmp_path / "phrase")})
    assert mistakes == []
    ring, (mistake,) = keyring.load(found)
    assert mistake.startswith("STORAGE_KEY_PASSPHRASE_FILE: everybody ")
    receiver_key = next(key for key in ring if key.role == "receiver")
    assert receiver_key.made == int(path.stat().st_mtime)


def mounted(volume, number, store):
    """Lay the keys of ``store`` into ``volume`` as the kubelet does: a new folder, a link to it, links into that link."""
    folder = volume / f"..2026_01_0{number}_00_00_00.{number}"
    folder.mkdir()
    for name, members in (
        (f"platform-{store.platform.kid}.json", store.platform.public()),
        (f"receiver-{store.receiver.kid}.json", store.receiver.private()),
    ):
        write_private(folder / name, json.dumps(members)).chmod(0o440)
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    (volume / "..data_tmp").symlink_to(folder.name)
    os.replace(volume / "..data_tmp", volume / "..data")
    for name in os.listdir(volume):
        if not name.startswith(".") and not (volume / name).exists():
            (volume / name).unlink()


def test_a_secret_that_kubernetes_mounts_is_read_and_after_it_was_swapped_too(tmp_path, registered):
    mounted(tmp_path, 1, registered)
    ring, mistakes = load({}, tmp_path)
    assert mistakes == []
    assert ring.find("receiver", registered.receiver.kid, TENANT)
    renewed = new_store()
    mounted(tmp_path, 2, renewed)
    ring, mistakes = load({}, tmp_path)
    assert mistakes == []
    assert ring.find("receiver", renewed.receiver.kid, TENANT) and len(list(ring)) == 2
    (tmp_path / "..data" / f"receiver-{renewed.receiver.kid}.json").chmod(0o644)  # as without defaultMode: 0440
    (mistake,) = load({}, tmp_path)[1]
    assert "in Kubernetes set defaultMode: 0440" in mistake


def credentials(folder, **named):
    """Lay ``named`` (name to text) down as systemd does: in a folder of the service's own, for nobody to write."""
    for name, text in named.items():
        write_private(folder / name, text).chmod(0o440)
    folder.chmod(0o550)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def test_keys_that_systemd_loads_are_read_from_its_folder_and_what_else_lies_there_is_passed_over(tmp_path, registered):
    own = new_store()
    environ = credentials(
        tmp_path,
        **{
            f"keys_platform-{registered.platform.kid}.json": json.dumps(registered.platform.public()),
            f"keys_receiver-{registered.receiver.kid}.json": json.dumps(registered.receiver.private()),
            f"keys_{TENANT}_platform-{own.platform.kid}.json": json.dumps(own.platform.public()),
            f"keys_{TENANT}_receiver.json": json.dumps(own.receiver.private()),
            f"keys_mock-platform-{own.platform.kid}.json": "not for us",
            "tls.key": "-----BEGIN PRIVATE KEY-----",
            "keys_README.md": "# Keys",
        },
    )
    found, mistakes = settings.read(environ | {"STORAGE_KEYS": str(tmp_path)})
    ring, more = keyring.load(found)
    assert mistakes + more == []
    for role in keyring.ROLES:
        assert ring.find(role, getattr(registered, role).kid, OTHER)
        assert ring.find(role, getattr(own, role).kid, TENANT)
        assert ring.find(role, getattr(own, role).kid, OTHER) is None
    assert any("tls.key: must be named" in mistake for mistake in load({}, tmp_path)[1])


def test_a_credential_that_is_named_like_a_variable_counts_as_the_file_that_it_names(tmp_path, variables):
    kid = json.loads(variables["RECEIVER_KEY"])["kid"]
    named = {f"RECEIVER_KEY_{kid}": variables["RECEIVER_KEY"], "PLATFORM_KEY": variables["PLATFORM_KEY"]}
    environ = credentials(tmp_path, DATABASE_PASSWORD="from systemd\n", HOME="x", STORAGE_TYPO="x", **named)
    found, mistakes = settings.read(environ)
    assert mistakes == []
    assert (found.database_password, found.sources["database_password"]) == (
        Secret("from systemd"),
        "DATABASE_PASSWORD_FILE",
    )
    ring, mistakes = keyring.load(found)
    assert (mistakes, {key.role for key in ring}) == ([], set(keyring.ROLES))
    _, (mistake,) = settings.read(environ | {"DATABASE_PASSWORD": "another"})
    assert mistake == "DATABASE_PASSWORD_FILE: DATABASE_PASSWORD is set as well; only one of them is valid"
    assert settings.read({"CREDENTIALS_DIRECTORY": "/no/such/folder"})[1] == []


def test_a_key_tells_when_it_was_made(tmp_path, registered, variables):
    dated = json.dumps(private(registered) | {"iat": 1_700_000_000})
    (tmp_path / "platform.json").write_text(variables["PLATFORM_KEY"])
    os.utime(tmp_path / "platform.json", (1_600_000_000, 1_600_000_000))
    ring, _ = load({"RECEIVER_KEY": dated}, tmp_path)
    assert {key.role: key.made for key in ring} == {"receiver": 1_700_000_000, "platform": 1_600_000_000}
    assert {key.made for key in load(variables)[0]} == {None}


def test_a_protected_key_is_opened_wherever_it_lies_and_only_once(tmp_path, registered, variables, monkeypatch):
    protected = passphrase.protect(variables["RECEIVER_KEY"], "a phrase")
    opened = []
    kdf = passphrase.argon2id.kdf
    monkeypatch.setattr(passphrase.argon2id, "kdf", lambda *words, **more: opened.append(1) or kdf(*words, **more))
    ring, mistakes = load(variables | {"RECEIVER_KEY": protected}, key_passphrase=Secret("a phrase"))
    assert (mistakes, len(opened)) == ([], 1)
    key = ring.find("receiver", registered.receiver.kid, TENANT)
    assert ring.protected == {"RECEIVER_KEY"} and key.thumbprint == registered.receiver.jwk.thumbprint()
    (tmp_path / "platform.json").write_text(variables["PLATFORM_KEY"])
    write_private(tmp_path / f"receiver-{registered.receiver.kid}.json", protected)
    assert load({}, tmp_path, key_passphrase=Secret("a phrase"))[1] == []
    (mistake,) = load({}, tmp_path)[1]
    assert mistake.startswith(
        f"{tmp_path}/receiver-{registered.receiver.kid}.json: is protected by a passphrase: set STORAGE_"
    )


def test_sealing_keys_lie_beside_the_others_and_are_protected_alike(tmp_path, variables):
    one, two, three = (sealing.generate(made) for made in (1, 2, 3))
    write_private(tmp_path / f"sealing-{one['kid']}.json", json.dumps(one))
    write_private(tmp_path / f"keys_sealing-{two['kid']}.json", passphrase.protect(json.dumps(two), "a phrase"))
    more = {
        "sealing_key": Secret(passphrase.protect(json.dumps(three), "a phrase")),
        "sources": {"sealing_key": "STORAGE_SEALING_KEY"},
        "key_passphrase": Secret("a phrase"),
    }
    ring, mistakes = load(variables, tmp_path, **more)
    assert (mistakes, {key.kid for key in ring.sealing}) == ([], {one["kid"], two["kid"], three["kid"]})
    assert ring.protected == {"STORAGE_SEALING_KEY", f"{tmp_path}/keys_sealing-{two['kid']}.json"}
    alone, mistakes = keyring.load_sealing(Settings(keys=tmp_path, **more))
    assert (mistakes, alone.sealing.last.kid, list(alone)) == ([], three["kid"], [])
    assert keyring.is_empty({}, tmp_path)  # of what a platform needs
    _, mistakes = load(variables, tmp_path)
    assert [mistake.partition(": ")[2][:28] for mistake in mistakes] == ["is protected by a passphrase"]
    rows = {row["kid"]: row for row in key_rows(ring, {("sealing", one["kid"]): 7}, lambda moment: moment)}
    assert [rows[key["kid"]]["protected"] for key in (one, two, three)] == [False, True, True]
    assert (rows[one["kid"]]["madeAt"], rows[one["kid"]]["lastUsedAt"]) == (1, 7)
