"""A sealed receiver as people run it: its files, its log, its start, and the commands that change what is sealed."""

import contextlib
import json
import stat

import pytest
from sqlite_utils.utils import sqlite3

from receiver.mock_platform.flow_states import FlowRun
from receiver.stores import open_store
from tests.support.commands import receiver
from tests.support.platform_client import assert_problem, loaded
from tests.support.sealing import seal
from tests.support.serving import serving
from tests.support.states import OTHER, TENANT, a_state, uid
from tests.support.waiting import pass_time

pytestmark = pytest.mark.slow

NEEDLE = "Wilhelmine Querfurth"  # as nothing else in a store is named


@pytest.fixture
def url(request, tmp_path):
    made = {"sqlite": f"sqlite:///{tmp_path}/states.db", "filesystem": f"file://{tmp_path}/states"}
    return made[request.param]


on_both = pytest.mark.parametrize("url", ["sqlite", "filesystem"], indirect=True)


def files_with(text, folder) -> list[str]:
    """Return the files below ``folder`` that hold ``text``, as strings would find it."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log"]
    assert files
    return [path.name for path in files if text.encode() in path.read_bytes()]


def filled(url):
    with contextlib.closing(open_store(url, 10)) as store:
        store.prepare()
        store.save(TENANT, [a_state(number, content=f"{NEEDLE} {number}" * 9) for number in range(1, 40)], None)
        store.save(OTHER, [a_state(7, tenant=OTHER, content=NEEDLE)], None)


def test_keys_sealing_makes_a_key_for_its_owner_alone_and_once_where_it_is_asked_to(tmp_path):
    kid = seal(tmp_path)
    (path,) = (tmp_path / "keys").iterdir()
    assert path.name == f"sealing-{kid}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(json.loads(path.read_text())) == {"kty", "kid", "iat", "nbf", "k"}
    assert receiver("keys", "sealing", "--if-none", cwd=tmp_path).stdout == ""
    assert seal(tmp_path) != kid
    assert receiver("keys", "sealing", "--directory", "/proc", cwd=tmp_path).returncode == 1


@on_both
def test_strings_finds_no_content_in_the_files_of_a_sealed_receiver(keys, platform_at, flow, url, tmp_path):
    seal(tmp_path)
    with serving(keys, tmp_path, DATABASE_URL=url) as running:
        client = platform_at(running.url)
        for number in range(20):
            flow.step()
            state = flow.state() | {"content": json.dumps({"name": NEEDLE, "step": number, "entries": ["x" * 90] * 40})}
            assert client.save(state).status == 204
        assert json.loads(loaded(client, flow.id))["name"] == NEEDLE
        assert files_with(NEEDLE, tmp_path) == []
        assert files_with("entries", tmp_path) == []
        assert files_with(flow.id, tmp_path)  # so that it was looked where states are
    assert files_with(NEEDLE, tmp_path) == []


@pytest.mark.case("G10")
def test_damage_is_one_states_500_and_one_line_of_the_log(keys, platform_at, tenant, tmp_path):
    seal(tmp_path)
    runs = [FlowRun(tenant, seed) for seed in range(3)]
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        for run in runs:
            assert client.save(run.state() | {"content": NEEDLE}).status == 204
        with contextlib.closing(sqlite3.connect(tmp_path / "states.db")) as connection:
            one = "(select content from states where id = ?)"
            values = (
                f"content = {one}, content_crc32 = (select content_crc32 from states where id = ?), row_crc32 = null"
            )
            connection.execute(f"update states set {values} where id = ?", [runs[1].id, runs[1].id, runs[0].id])
            connection.commit()
        assert_problem(client.load(runs[0].id), 500)
        for run in runs[1:]:
            assert loaded(client, run.id) == NEEDLE
    (line,) = [line for line in (tmp_path / "log").read_text().splitlines() if "StoreDamaged" in line]
    assert f"state {runs[0].id} of tenant {tenant}" in line


@pytest.mark.case("G12")
@on_both
def test_a_start_without_the_key_or_over_clear_states_is_refused_with_what_to_do(keys, folder_with_keys, url):
    folder = folder_with_keys
    filled(url)
    before = files_with(NEEDLE, folder)
    kid = seal(folder)
    ran = receiver("serve", cwd=folder, DATABASE_URL=url)
    assert ran.returncode == 78
    assert "DATABASE_URL: the store holds states in the clear" in ran.stderr
    assert "receiver store reseal" in ran.stderr
    assert receiver("store", "reseal", "--stopped", cwd=folder, DATABASE_URL=url).returncode == 0
    (folder / f"keys/sealing-{kid}.json").rename(folder / "elsewhere.json")
    ran = receiver("serve", cwd=folder, DATABASE_URL=url)
    assert ran.returncode == 78
    assert f"sealed with the key {kid}, which is not configured" in ran.stderr
    another = seal(folder)
    ran = receiver("serve", cwd=folder, DATABASE_URL=url)
    assert ran.returncode == 78
    assert kid in ran.stderr
    assert another not in ran.stderr
    assert before
    assert files_with(NEEDLE, folder) == []


@on_both
def test_what_was_clear_is_sealed_then_sealed_anew_then_opened(url, tmp_path):
    filled(url)
    ran = receiver("store", "reseal", "--stopped", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.returncode, "there is no sealing key" in ran.stderr) == (2, True)
    first = seal(tmp_path)
    ran = receiver("store", "reseal", "--stopped", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.returncode, f"40 states were resealed and are sealed with {first}" in ran.stdout) == (0, True)
    assert "resealing: 40 states" in ran.stderr
    assert files_with(NEEDLE, tmp_path) == []
    pass_time(1, "a key's times are whole seconds, and the second one's has to have come")
    second = seal(tmp_path)
    made = json.loads((tmp_path / f"keys/sealing-{second}.json").read_text())
    (tmp_path / f"keys/sealing-{second}.json").unlink()
    environ = {"DATABASE_URL": url, "STORAGE_SEALING_KEY": json.dumps(made)}
    assert made["iat"] > json.loads((tmp_path / f"keys/sealing-{first}.json").read_text())["iat"]
    ran = receiver("store", "reseal", "--stopped", "--json", "--tenant", TENANT, cwd=tmp_path, **environ)
    (row,) = json.loads(ran.stdout)
    assert (ran.returncode, row["key"], row["damaged"], row["left"]) == (0, second, [], {})
    ran = receiver("store", "show", OTHER, uid(7), "--content", cwd=tmp_path, **environ)
    assert ran.stdout.endswith(f"\n{NEEDLE}\n")
    ran = receiver("store", "reseal", "--stopped", "--open", cwd=tmp_path, **environ)
    assert (ran.returncode, "40 states were resealed and are in the clear" in ran.stdout) == (0, True)
    with contextlib.closing(open_store(url, 10)) as store:
        assert store.find(TENANT, uid(3)).content.text == f"{NEEDLE} 3" * 9
        assert set(store.key_uses()) == {("sealing", "clear")}


def test_a_copy_is_sealed_with_the_keys_of_the_receiver(tmp_path):
    here, there = f"sqlite:///{tmp_path}/states.db", f"file://{tmp_path}/copy"
    filled(here)
    kid = seal(tmp_path)
    ran = receiver("store", "copy", "--to", there, "--json", cwd=tmp_path, DATABASE_URL=here)
    assert ran.returncode == 0, ran.stderr
    assert {row["verdict"] for row in json.loads(ran.stdout)["tenants"]} == {"complete"}
    assert files_with(NEEDLE, tmp_path / "copy") == []
    with contextlib.closing(open_store(there, 10)) as store:
        assert {one.sealing_key for one in store.summaries()} == {kid}


def test_what_needs_no_content_needs_no_sealing_key(tmp_path):
    url = f"sqlite:///{tmp_path}/states.db"
    filled(url)
    kid = seal(tmp_path)
    assert receiver("store", "reseal", "--stopped", cwd=tmp_path, DATABASE_URL=url).returncode == 0
    (tmp_path / f"keys/sealing-{kid}.json").unlink()
    ran = receiver("store", "stats", "--json", cwd=tmp_path, DATABASE_URL=url)
    assert [row["states"] for row in json.loads(ran.stdout)] == [39, 1]
    ran = receiver("store", "show", TENANT, uid(3), cwd=tmp_path, DATABASE_URL=url)
    assert (ran.returncode, kid in ran.stderr) == (1, True)
    ran = receiver("store", "delete", TENANT, uid(3), "--yes", cwd=tmp_path, DATABASE_URL=url)
    assert ran.stdout == "1 state deleted\n"


def test_a_sealing_key_under_a_wrong_name_stops_what_would_go_on_without_it(tmp_path):
    url = f"sqlite:///{tmp_path}/states.db"
    filled(url)
    kid = seal(tmp_path)
    (tmp_path / f"keys/sealing-{kid}.json").rename(tmp_path / "keys/sealing.json.bak")
    ran = receiver("store", "copy", "--to", f"file://{tmp_path}/copy", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.returncode, "sealing.json.bak: must be named" in ran.stderr) == (78, True)
    assert not (tmp_path / "copy").exists()
    assert receiver("keys", "sealing", "--if-none", cwd=tmp_path).stdout == ""
    assert len(list((tmp_path / "keys").iterdir())) == 1


def test_a_copy_passes_by_what_is_damaged_and_says_so(tmp_path):
    url = f"sqlite:///{tmp_path}/states.db"
    filled(url)
    with contextlib.closing(sqlite3.connect(tmp_path / "states.db")) as connection:
        connection.execute("update states set content = 'other' where tenant = ? and id = ?", [TENANT, uid(3)])
        connection.commit()
    ran = receiver("store", "copy", "--to", f"file://{tmp_path}/copy", "--json", cwd=tmp_path, DATABASE_URL=url)
    told = json.loads(ran.stdout)
    assert (ran.returncode, [uid(3) in line for line in told["damaged"]]) == (1, [True])
    assert sum(row["copied"] for row in told["tenants"]) == 39
    ran = receiver("store", "copy", "--to", f"file://{tmp_path}/copy", cwd=tmp_path, DATABASE_URL=url)
    assert f"NOT COPIED, damaged: state {uid(3)}" in ran.stdout


def test_a_key_that_is_good_at_once_comes_with_the_steps_for_stopped_receivers(tmp_path):
    url = f"sqlite:///{tmp_path}/states.db"
    with contextlib.closing(open_store(url, 5)) as store:
        store.prepare()
        store.save(TENANT, [a_state()], None)
    (tmp_path / "keys").mkdir()
    ran = receiver("keys", "sealing", "--delay", "0", cwd=tmp_path, DATABASE_URL=url)
    assert ran.returncode == 0, ran.stderr
    assert "While every receiver on it is stopped, run:\n  receiver store reseal --stopped" in ran.stderr
    assert "Without an outage" not in ran.stderr
    assert receiver("store", "reseal", "--stopped", cwd=tmp_path, DATABASE_URL=url).returncode == 0
