"""The command line, as a person types it."""

import json
import os
import re
import stat
import subprocess
import sys
import uuid

import pytest
from click.testing import CliRunner

from receiver import files
from receiver.commands import cli
from receiver.commands.config import markdown_table
from receiver.commands.keys import key_table
from receiver.keys import keyring
from receiver.mock_platform.flow_states import FlowRun
from receiver.settings import Settings
from receiver.states import Instant
from receiver.stores import open_store
from tests.support.commands import receiver
from tests.support.states import TENANT, a_state

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(folder_with_keys):
    return folder_with_keys


def test_generate_makes_what_the_platform_would_make(tmp_path):
    ran = receiver("keys", "generate", cwd=tmp_path)
    assert (ran.stderr, ran.returncode) == ("", 0)
    files = {path.name: json.loads(path.read_text()) for path in (tmp_path / "keys").iterdir()}
    assert sorted(name.rpartition("-")[0][:8] for name in files) == ["mock-pla", "platform", "receiver"]
    for name, members in files.items():
        assert members["kid"] in name
        assert ("d" in members) == (not name.startswith("platform"))
        assert stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    mock = next(members for name, members in files.items() if name.startswith("mock"))
    platform = next(members for name, members in files.items() if name.startswith("platform"))
    assert {**mock, "d": None} == {**platform, "d": None}


def test_generate_makes_keys_once_where_it_is_asked_to(folder):
    before = sorted(os.listdir(folder / "keys"))
    assert receiver("keys", "generate", "--if-none", cwd=folder).stdout == ""
    assert sorted(os.listdir(folder / "keys")) == before
    tenant = str(uuid.UUID(int=4))
    assert receiver("keys", "generate", "--tenant", tenant.upper(), cwd=folder).returncode == 0
    assert len(os.listdir(folder / "keys" / tenant)) == 3
    assert receiver("keys", "generate", "--tenant", "x", cwd=folder).returncode == 2


def test_generate_looks_where_the_receiver_looks_and_knows_every_kind_of_key_file(folder):
    for path in (folder / "keys").glob("[pr]*.json"):
        path.rename(path.with_suffix(".jwk"))
    before = sorted(os.listdir(folder / "keys"))
    assert receiver("keys", "generate", "--if-none", cwd=folder).returncode == 0
    assert sorted(os.listdir(folder / "keys")) == before
    (folder / "other").mkdir()
    assert receiver("keys", "generate", "--if-none", cwd=folder, STORAGE_KEYS="other").returncode == 0
    assert len(os.listdir(folder / "other")) == 3
    assert receiver("keys", "list", cwd=folder, STORAGE_KEYS="other").stdout.count(" other/") == 2


def test_generate_makes_none_beside_keys_of_the_environment(tmp_path, keys):
    environ = {"PLATFORM_KEY": json.dumps(keys.platform.public())}
    assert receiver("keys", "generate", "--if-none", cwd=tmp_path, **environ).returncode == 0
    assert not (tmp_path / "keys").exists()


def test_generate_never_overwrites_and_tells_where_it_may_not_write(folder, monkeypatch):
    name = next(path for path in (folder / "keys").iterdir() if path.name.startswith("receiver"))
    before = name.read_bytes()
    fixed = iter([str(uuid.uuid4()), name.stem.removeprefix("receiver-")] * 2)
    monkeypatch.setattr("receiver.mock_platform.keys.uuid.uuid4", lambda: next(fixed))
    ran = CliRunner().invoke(cli, ["keys", "generate", "--directory", str(folder / "keys")])
    assert ran.exit_code == 1
    assert "File exists" in ran.output
    assert name.read_bytes() == before
    assert "Not a directory" in receiver("keys", "generate", "--directory", f"{name}/x").stderr


def test_list_and_check_show_fingerprints_and_no_material(folder):
    listed, checked = (receiver("keys", word, cwd=folder) for word in ("list", "check"))
    assert (listed.returncode, checked.returncode) == (0, 0)
    assert listed.stdout == checked.stdout
    for path in (folder / "keys").glob("[pr]*.json"):
        members = json.loads(path.read_text())
        assert members["kid"] in listed.stdout
        for secret in (members["x"], members["y"], members.get("d", "no d")):
            assert secret not in listed.stdout + checked.stderr
    names = ["role", "kid", "tenant", "age", "thumbprint", "protected", "from"]
    assert [line.split()[0] for line in listed.stdout.split("\n\n")[0].splitlines()] == names
    assert max(map(len, listed.stdout.splitlines())) <= 80


def test_check_names_what_is_wrong_with_a_key(folder):
    receiver_key = next((folder / "keys").glob("receiver*.json"))
    receiver_key.write_text("{}")
    ran = receiver("keys", "check", cwd=folder, STORAGE_WORKERS="none")
    assert ran.returncode == 78
    assert "STORAGE_WORKERS: " in ran.stderr
    assert f"keys/{receiver_key.name}: must be an EC key on P-384" in ran.stderr


@pytest.mark.case("H03")
def test_a_private_key_that_everybody_may_read_stops_the_start_or_is_warned_about(folder):
    receiver_key = next((folder / "keys").glob("receiver*.json"))
    receiver_key.chmod(0o644)
    path = f"keys/{receiver_key.name}"
    for words in (("serve",), ("keys", "check")):
        ran = receiver(*words, cwd=folder)
        assert (ran.returncode, ran.stdout) == (78, "")
        assert f"  {path}: everybody on this machine may use the private key in {path} (mode 0644): " in ran.stderr
        for mended in (f"chmod o= {path}", "defaultMode: 0440", "mode: 0440", "STORAGE_INSECURE_KEYS=warn"):
            assert mended in ran.stderr
    ran = receiver("keys", "check", cwd=folder, STORAGE_INSECURE_KEYS="warn")
    assert ran.returncode == 0
    assert ran.stderr.startswith(f"warning: {path}: everybody on this machine may use the private key in {path}")
    subprocess.run(["chmod", "o=", path], cwd=folder, check=True)
    assert receiver("keys", "check", cwd=folder).returncode == 0


@pytest.mark.case("H03")
def test_a_warning_about_a_key_that_everybody_may_read_is_in_the_log(folder):
    next((folder / "keys").glob("receiver*.json")).chmod(0o604)
    environ = {"STORAGE_INSECURE_KEYS": "warn", "STORAGE_BIND": "127.0.0.1:0", "STORAGE_KEYS": "keys"}
    environ |= {"STORAGE_ADMIN_BIND": "off", "STORAGE_LOG_FORMAT": "text"}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", "serve"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **environ},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert any("make demo" in line for line in process.stdout)
    finally:
        process.terminate()
        process.communicate(timeout=30)
    warnings = [line for line in (folder / "log").read_text().splitlines() if " WARNING " in line]
    (line,) = [line for line in warnings if "runs as root" not in line]
    assert "everybody on this machine may use the private key in keys/receiver-" in line


def test_list_tells_age_use_and_protection_in_a_table_and_as_json(folder):
    receiver_key = next((folder / "keys").glob("receiver*.json"))
    made = json.loads(receiver_key.read_text())
    receiver_key.write_text(json.dumps(made | {"iat": 1_700_000_000}))
    platform_key = next((folder / "keys").glob("platform*.json"))
    os.utime(platform_key, (1_700_086_400, 1_700_086_400))
    rows = json.loads(receiver("keys", "list", "--json", cwd=folder).stdout)
    assert rows == json.loads(receiver("keys", "check", "--json", cwd=folder).stdout)  # no store yet: no last use
    of_platform, of_receiver = rows
    assert set(of_receiver) == {"role", "kid", "tenants", "madeAt", "thumbprint", "protected", "from"}
    assert (of_receiver["kid"], of_receiver["tenants"]) == (made["kid"], None)
    assert (of_receiver["madeAt"], of_receiver["protected"]) == ("2023-11-14T22:13:20Z", False)
    assert of_platform["madeAt"] == "2023-11-15T22:13:20Z"

    ring, _ = keyring.load(Settings(keys=folder / "keys"))
    store = open_store(f"sqlite:///{folder}/states.db", 5)
    store.prepare()
    store.note_key_uses({("receiver", made["kid"]): 1_700_172_800 - 7_300})
    uses = store.key_uses()
    store.close()
    table = key_table(ring, uses, now=1_700_172_800, width=400).splitlines()
    assert table[0].split() == ["role", "kid", "tenant", "age", "last", "used", "thumbprint", "protected", "from"]
    assert re.search(r"any +1 d +- +\S+ +no ", table[1])
    assert re.search(r"any +2 d +2 h +\S+ +no ", table[2])
    listed = receiver("keys", "list", "--json", cwd=folder, DATABASE_URL=f"sqlite:///{folder}/states.db")
    assert [row["lastUsedAt"] for row in json.loads(listed.stdout)] == [None, "2023-11-16T20:11:40Z"]
    down = receiver("keys", "list", cwd=folder, DATABASE_URL="postgresql://u:hunter2@127.0.0.1:9/d")
    assert (down.returncode, down.stdout.count("keys/")) == (0, 2)
    assert down.stderr.startswith("the times of last use are not known now: OperationalError: ")
    assert "hunter2" not in down.stderr


def test_a_protected_key_is_opened_by_its_passphrase_and_nothing_else_of_it_stays(folder):
    path = next((folder / "keys").glob("receiver*.json"))
    name, before = f"keys/{path.name}", path.read_text()
    path.chmod(0o640)
    phrase = {"STORAGE_KEY_PASSPHRASE": "correct horse battery staple"}
    ran = receiver("keys", "protect", name, cwd=folder, **phrase)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"protected {name}\n", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    everything = b"".join(one.read_bytes() for one in folder.rglob("*") if one.is_file() and "mock" not in one.name)
    assert json.loads(before)["d"].encode() not in everything
    assert json.loads(before)["kid"] == json.loads(path.read_text())["kid"]

    listed = json.loads(receiver("keys", "list", "--json", cwd=folder, **phrase).stdout)
    assert [row["protected"] for row in listed] == [False, True]
    assert receiver("keys", "protect", name, cwd=folder, **phrase).stderr == f"Error: {name}: is protected already\n"
    for wrong, said in (
        ({}, "is protected by a passphrase: set STORAGE_KEY_PASSPHRASE, or"),
        ({"STORAGE_KEY_PASSPHRASE": "guessed"}, "cannot be opened: STORAGE_KEY_PASSPHRASE is not its passphrase"),
    ):
        ran = receiver("keys", "check", cwd=folder, **wrong)
        assert (ran.returncode, ran.stdout) == (78, "")
        assert f"  {name}: {said}" in ran.stderr
        assert "guessed" not in ran.stderr

    assert receiver("keys", "unprotect", name, cwd=folder, **phrase).stdout == f"opened {name}\n"
    assert path.read_text() == before
    assert sorted(one.name[:8] for one in (folder / "keys").iterdir()) == ["mock-pla", "platform", "receiver"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(0o440, 0o440), (0o400, 0o400), (0o640, 0o640), (0o600, 0o600), (0o646, 0o640), (0o770, 0o660)],
)
def test_a_key_file_that_is_replaced_stays_readable_for_those_who_could_read_it_except_everybody(
    tmp_path, before, after
):
    path = tmp_path / "key.json"
    path.write_text("old")
    if os.geteuid() == 0:
        os.chown(path, 0, 10_001)  # as in a container: root's, for the group of the receiver
    path.chmod(before)
    group = path.stat().st_gid
    files.replace_text(path, "new")
    found = path.stat()
    assert (path.read_text(), stat.S_IMODE(found.st_mode), found.st_gid) == ("new", after, group)


def test_a_key_file_is_not_opened_to_another_group_when_its_own_cannot_be_given_it(tmp_path, monkeypatch):
    path = tmp_path / "key.json"
    path.write_text("old")
    path.chmod(0o640)

    def refuse(_file, owner, _group):
        assert owner == -1
        raise PermissionError

    monkeypatch.setattr(os, "geteuid", lambda: 10_001)
    monkeypatch.setattr(os, "fchown", refuse)
    files.replace_text(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)


def test_what_a_kill_left_behind_is_in_nobodys_way(tmp_path):
    path, left = tmp_path / "key.json", tmp_path / ".key.json.new"
    path.write_text("old")
    left.write_text("half a k")
    left.chmod(0o400)
    files.replace_text(path, "new")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("key.json", "new")]


def test_a_passphrase_is_asked_for_twice(folder, monkeypatch):
    monkeypatch.delenv("STORAGE_KEY_PASSPHRASE", raising=False)
    path = next((folder / "keys").glob("receiver*.json"))
    before = path.read_text()
    differ = CliRunner().invoke(cli, ["keys", "protect", str(path)], input="one\nanother\n")
    assert (differ.exit_code, path.read_text()) == (1, before)
    asked = CliRunner().invoke(cli, ["keys", "protect", str(path)], input="a phrase\na phrase\n")
    assert asked.exit_code == 0, asked.output
    assert "a phrase" not in asked.output
    opened = CliRunner().invoke(cli, ["keys", "unprotect", str(path)], input="a phrase\n")
    assert (opened.exit_code, path.read_text()) == (0, before)


def test_of_several_files_none_is_protected_when_one_cannot_be(folder):
    path = next((folder / "keys").glob("receiver*.json"))
    public = next((folder / "keys").glob("platform*.json"))
    before = path.read_text()
    phrase = {"STORAGE_KEY_PASSPHRASE": "x"}
    ran = receiver("keys", "protect", str(path), str(public), cwd=folder, **phrase)
    assert (ran.returncode, ran.stderr) == (1, f"Error: {public}: holds nothing private\n")
    assert path.read_text() == before
    ran = receiver("keys", "unprotect", str(path), cwd=folder, **phrase)
    assert (ran.returncode, ran.stderr) == (1, f"Error: {path}: is not protected\n")
    missing = receiver("keys", "protect", "none.json", cwd=folder, STORAGE_KEY_PASSPHRASE_FILE="/no/such")
    assert missing.returncode == 78
    assert "STORAGE_KEY_PASSPHRASE_FILE: the file it names cannot be read" in missing.stderr


def test_the_name_of_a_file_cannot_move_the_cursor_of_who_reads_of_it(folder):
    (folder / "keys" / "x\x1b[2K\nreceiver: all is well.json").touch()
    ran = receiver("keys", "check", cwd=folder)
    assert ran.returncode == 78
    assert "  keys/x\\x1b[2K\\nreceiver: all is well.json: must be named " in ran.stderr


def test_serve_with_three_mistakes_names_all_three_and_exits_78(tmp_path):
    environ = {
        "STORAGE_WORKERS": "many",
        "STORAGE_REPLAI": "off",
        "PLATFORM_KEY": '{"kty": "RSA"}',
        "RECEIVER_KEY": "x",
    }
    ran = receiver("serve", cwd=tmp_path, **environ)
    assert ran.returncode == 78
    assert ran.stderr.splitlines() == [
        "receiver: 4 mistakes in the settings:",
        "  STORAGE_REPLAI: there is no such setting; the nearest is STORAGE_REPLAY",
        "  STORAGE_WORKERS: must be a whole number from 1 to 256",
        '  PLATFORM_KEY: must be an EC key on P-384 ("kty": "EC", "crv": "P-384")',
        "  RECEIVER_KEY: must be one JWK as a JSON object",
    ]
    assert ran.stdout == ""
    assert not (tmp_path / "var").exists()


def test_serve_tells_wrong_places_together_with_wrong_values(tmp_path):
    environ = {"STORAGE_WORKERS": "0", "DATABASE_URL": "sqlite:////no/such/folder/x.db", "STORAGE_BIND": "192.0.2.1:80"}
    ran = receiver("serve", cwd=tmp_path, **environ)
    assert ran.returncode == 78
    named = {line.strip().partition(":")[0] for line in ran.stderr.splitlines()[1:]}
    assert named == {"STORAGE_WORKERS", "DATABASE_URL", "STORAGE_BIND", "PLATFORM_KEY", "RECEIVER_KEY"}


def test_the_variable_that_named_the_wrong_place_is_told(folder):
    ran = receiver("serve", cwd=folder, JDBC_DATABASE_URL="jdbc:sqlite:/no/such/folder/x.db")
    assert ran.returncode == 78
    assert ran.stderr.splitlines()[1].startswith("  JDBC_DATABASE_URL: /no/such/folder/x.db: ")


def test_serve_on_a_file_that_is_no_database_says_so(folder):
    (folder / "x.db").write_text("no database" * 1000)
    ran = receiver("serve", cwd=folder, DATABASE_URL="sqlite:///x.db")
    assert (ran.returncode, ran.stdout) == (78, "")
    assert "DATABASE_URL: x.db: SQLITE_NOTADB: file is not a database" in ran.stderr
    assert "Traceback" not in ran.stderr
    ran = receiver("serve", cwd=folder, DATABASE_URL="sqlite:///keys")
    assert ran.returncode == 78
    assert "DATABASE_URL: keys: is not a file" in ran.stderr


@pytest.mark.parametrize("command", ["serve", "config", "keys list", "store stats", "store purge", "store residency"])
def test_no_command_takes_the_default_store_for_one_whose_name_is_misspelt(folder, command):
    ran = receiver(*command.split(), cwd=folder, **{"\ufeffDATABASE_URL": "postgresql://u:hunter2@h/d"})
    assert ran.returncode == 78
    assert (
        "\\ufeffDATABASE_URL: there is no such setting; the nearest is DATABASE_URL (its name begins with" in ran.stderr
    )
    assert "hunter2" not in ran.stderr
    assert not (folder / "var").exists()


@pytest.mark.parametrize("command", ["config", "store stats"])
def test_a_name_that_could_be_meant_is_warned_about_where_the_setting_is_there(folder, command):
    ran = receiver(*command.split(), cwd=folder, DATABASE_URL=f"sqlite:///{folder}/x.db", DB_URL="mysql://h/d")
    assert "WARNING DB_URL: there is no such setting; the nearest is DATABASE_URL. It is not read" in ran.stderr


def test_config_shows_what_is_in_force_where_it_came_from_and_no_secret(folder):
    ran = receiver("config", cwd=folder, DATABASE_PASSWORD="hunter2", STORAGE_MAX_BODY="1048576")
    assert ran.returncode == 0
    assert re.search(r"STORAGE_MAX_BODY +1MiB +STORAGE_MAX_BODY", ran.stdout)
    assert re.search(r"STORAGE_THREADS +8 +default", ran.stdout)
    assert re.search(r"DATABASE_PASSWORD +\*{8} +DATABASE_PASSWORD", ran.stdout)
    assert "hunter2" not in ran.stdout + ran.stderr
    assert receiver("config", "--markdown").stdout.strip() == markdown_table()


def test_config_as_json_holds_the_same_and_no_secret(folder):
    ran = receiver("config", "--json", cwd=folder, DATABASE_PASSWORD="hunter2", STORAGE_MAX_BODY="1048576")
    rows = {row["setting"]: row for row in json.loads(ran.stdout)}
    assert rows["STORAGE_MAX_BODY"] == {"setting": "STORAGE_MAX_BODY", "value": "1MiB", "from": "STORAGE_MAX_BODY"}
    assert rows["DATABASE_PASSWORD"]["value"] == "********"
    assert "hunter2" not in ran.stdout + ran.stderr


def test_one_mistake_is_one_mistake(folder):
    ran = receiver("config", cwd=folder, STORAGE_WORKERS="none")
    assert ran.stderr.splitlines()[0] == "receiver: 1 mistake in the settings:"


@pytest.mark.parametrize("command", ["store stats", "store purge", "keys list", "keys check", "config", "health"])
def test_commands_beside_the_service_load_neither_flask_nor_gunicorn(folder, command):
    url = f"sqlite:///{folder}/states.db"
    open_store(url, 5).prepare()
    program = """
import atexit, sys
atexit.register(lambda: print("loaded:", sorted({"flask", "werkzeug", "gunicorn"} & sys.modules.keys())))
from receiver.commands import main
main()
"""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.getcwd(),
        "DATABASE_URL": url,
        "STORAGE_RUN_DIR": str(folder),
    }
    ran = subprocess.run(
        [sys.executable, "-c", program, *command.split()],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == (1 if command == "health" else 0), ran.stderr  # nothing runs here that could be well
    assert ran.stdout.splitlines()[-1] == "loaded: []"


def test_purge_deletes_what_has_expired(folder):
    url = f"sqlite:///{folder}/states.db"
    store = open_store(url, 5)
    store.save(TENANT, [a_state(1), a_state(2, expires_at=Instant.parse("2020-01-01T00:00:00Z"))], None)
    ran = receiver("store", "purge", cwd=folder, DATABASE_URL=url)
    assert (ran.stdout, ran.returncode) == ("1 expired state deleted\n", 0)
    assert len(list(store.scan())) == 1
    store.close()
    ran = receiver("store", "purge", cwd=folder, DATABASE_URL=f"sqlite:///{folder}/typo.db")
    assert ran.returncode == 1
    assert not (folder / "typo.db").exists()


def test_demo_plays_the_platform_and_says_how_it_went():
    ran = CliRunner().invoke(cli, ["demo", "--seed", "5"])
    assert ran.exit_code == 0, ran.output
    assert re.search(r"save 12 +204 +[\d,]+ B +[\d.]+ ms +ok", ran.output)
    assert re.search(r"load: gone +404 +[\d.]+ ms +ok", ran.output)
    assert "19 of 19 calls answered as the contract says" in ran.output
    sizes = [int(size.replace(",", "")) for size in re.findall(r"save \d+ +204 +([\d,]+) B", ran.output)]
    assert len(sizes) == 12
    assert sizes == sorted(sizes)
    assert 4_500 < sizes[0] < sizes[-1] < 16_000


def test_demo_fails_when_an_answer_is_not_what_the_contract_says(monkeypatch):
    monkeypatch.setattr("receiver.mock_platform.client.Client.open", lambda *_args: "something else")
    ran = CliRunner().invoke(cli, ["demo"])
    assert ran.exit_code == 1
    assert "17 of 19 calls answered as the contract says" in ran.output


@pytest.mark.parametrize("seed", range(20))
def test_a_made_up_state_has_the_size_and_shape_of_a_real_one(seed):
    flow = FlowRun(str(uuid.UUID(int=1)), seed)
    again = FlowRun(str(uuid.UUID(int=1)), seed)
    sizes = []
    for _ in range(12):
        state, same = flow.state(), again.state()
        assert state == same
        document = json.loads(state["content"])
        assert {"stateEntries", "valueElementValues", "authorizationContext", "log", "compositeId"} <= set(document)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}\+01:00", state["updatedAt"])
        sizes.append(len(state["content"].encode()))
        flow.step(), again.step()
    assert sizes == sorted(sizes)
    assert 4_500 < sizes[0] < sizes[-1] < 17_000
