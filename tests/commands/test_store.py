"""``receiver store``: counting, listing, showing, deleting, copying."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.app import create_app
from receiver.settings import Settings, read
from receiver.states import Instant
from receiver.stores import copying, open_store
from tests.support.commands import receiver
from tests.support.platform_client import InProcess, loaded
from tests.support.states import OTHER, TENANT, a_state, uid
from tests.support.store_commands import filled, some_states
from tests.support.waiting import until

pytestmark = pytest.mark.slow

BACKENDS = ["sqlite", "filesystem", "postgresql", "mariadb"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_stats_list_show_and_delete_say_what_is_there(backend, new_url, tmp_path):
    url = new_url(backend)
    with filled(url, *some_states()) as store:
        environ = {"cwd": tmp_path, "DATABASE_URL": url}
        stats = json.loads(receiver("store", "stats", "--json", **environ).stdout)
        assert [row["tenant"] for row in stats] == [TENANT, OTHER]
        assert (stats[0]["states"], stats[0]["expired"], stats[1]["contentBytes"]) == (30, 20, 2 * sum(range(5)))
        assert stats[1]["newest"] == "2026-05-05T05:05:05.1234567+02:00"
        assert stats[1]["storedBytes"] == stats[1]["contentBytes"]
        shown = receiver("store", "stats", **environ).stdout
        assert re.search(rf"^tenant +{TENANT}\nstates +30\ncontentBytes +[\d,]+\nstoredBytes ", shown, re.MULTILINE)
        assert max(map(len, shown.splitlines())) <= 80
        assert receiver("store", "stats", "--tenant", OTHER, **environ).stdout.count("tenant ") == 1
        assert receiver("store", "stats", "--tenant", uid(99), **environ).stdout == "there are no states\n"
        listed = json.loads(receiver("store", "list", OTHER, "--json", **environ).stdout)
        assert [row["id"] for row in listed] == [uid(number) for number in range(5)]
        assert (listed[4]["contentBytes"], listed[4]["storedBytes"]) == (8, 8)
        header, first, *_ = shown = receiver("store", "list", OTHER, **environ).stdout.splitlines()
        assert header.split("  ")[0] == "id" and "updated (UTC)" in header
        assert first.startswith(f"{uid(0)}  2026-0") and max(map(len, shown)) <= 80
        assert receiver("store", "list", uid(99), **environ).stdout == "there are no states\n"
        assert json.loads(receiver("store", "list", uid(99), "--json", **environ).stdout) == []
        shown = receiver("store", "show", OTHER, uid(3), **environ)
        assert "2026-05-05T05:05:05.1234567+02:00" in shown.stdout
        assert "ü" not in shown.stdout
        assert (
            json.loads(receiver("store", "show", OTHER, uid(3), "--content", "--json", **environ).stdout)["content"]
            == "üüü"
        )
        assert receiver("store", "show", OTHER, uid(77), **environ).returncode == 1
        asked = receiver("store", "delete", OTHER, uid(3), **environ)
        assert asked.returncode == 1
        assert store.find(OTHER, uid(3))
        ran = receiver("store", "delete", OTHER, uid(3), uid(3), uid(88), "--yes", "--json", **environ)
        assert (ran.returncode, json.loads(ran.stdout), ran.stderr) == (0, {"deleted": 1}, "1 state was not there\n")
        ran = receiver("store", "delete", OTHER, uid(3), uid(88), "--yes", **environ)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "0 states deleted\n", "2 states were not there\n")
        assert receiver("store", "delete", OTHER, "--all", "--yes", **environ).stdout == "4 states deleted\n"
        assert receiver("store", "delete", OTHER, "--yes", **environ).returncode == 2
        assert json.loads(receiver("store", "purge", "--json", **environ).stdout) == {"deleted": 20}
        assert [state.id for state in store.scan()] == [uid(number) for number in range(0, 30, 3)]


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(BACKENDS, 2)))
def test_any_store_is_copied_into_any_other_to_the_last_byte(source, target, new_url, tmp_path):
    here, there = new_url(source), new_url(target)
    odd = a_state(
        50, "9999-12-31T23:59:59.9999999-18:00", parent=uid(3), is_done=True, current_user=uid(4), current_map_element=uid(5),
        expires_at=Instant.parse("0001-01-01T00:00:00+18:00"), content="\u2028\U0010ffff\x01'\"\\%s",
    )  # fmt: skip
    with filled(here, *some_states(), odd) as first:
        ran = receiver("store", "copy", "--to", there, "--json", cwd=tmp_path, DATABASE_URL=here)
        assert ran.returncode == 0, ran.stderr
        rows = json.loads(ran.stdout)["tenants"]
        assert [(row["tenant"], row["states"], row["copied"]) for row in rows] == [(TENANT, 31, 31), (OTHER, 5, 5)]
        assert all(row["digest"] == row["digestThere"] for row in rows)
        with contextlib.closing(open_store(there, 10)) as second:
            assert list(second.scan()) == list(first.scan())
        again = json.loads(receiver("store", "copy", "--to", there, "--json", cwd=tmp_path, DATABASE_URL=here).stdout)
        assert [row["copied"] for row in again["tenants"]] == [0, 0]
        assert [row["digest"] for row in again["tenants"]] == [row["digest"] for row in rows]


@pytest.mark.case("I09")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_expiry_in_year_1_is_saved_shown_copied_and_never_counted_as_past(
    backend, new_url, tmp_path, keys, ring, flow
):
    url, other, unset = new_url(backend), new_url("sqlite"), "0001-01-01T00:00:00.0000000+14:00"
    state = flow.state() | {"expiresAt": unset}
    with filled(url) as store:
        client = InProcess(create_app(Settings(), ring, store).test_client(), state["tenant"], keys)
        assert client.save(state).status == 204
        environ = {"cwd": tmp_path, "DATABASE_URL": url}
        assert json.loads(receiver("store", "purge", "--json", **environ).stdout) == {"deleted": 0}
        (row,) = json.loads(receiver("store", "stats", "--json", **environ).stdout)
        assert row["expired"] == 0
        assert receiver("store", "copy", "--to", other, **environ).returncode == 0
        for place in (url, other):
            shown = receiver("store", "show", state["tenant"], state["id"], "--json", "--url", place, **environ)
            assert json.loads(shown.stdout)["expiresAt"] == unset
        assert loaded(client, state["id"]) == state["content"]


def test_a_copy_keeps_what_is_newer_there_and_brings_what_is_newer_here(new_url, tmp_path):
    here, there = new_url("sqlite"), new_url("sqlite")
    older, newer = "2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
    with (
        filled(here, a_state(1, older), a_state(2, newer), a_state(3)),
        filled(there, a_state(1, newer), a_state(2, older), a_state(4), a_state(5, tenant=OTHER)) as target,
    ):
        ran = receiver("store", "copy", "--from", here, "--to", there, "--json", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        mine, theirs = json.loads(ran.stdout)["tenants"]
        assert {name: mine[name] for name in ("states", "copied", "newerThere", "onlyThere", "verdict")} == {
            "states": 3, "copied": 2, "newerThere": 1, "onlyThere": 1, "verdict": "complete",
        }  # fmt: skip
        assert (theirs["states"], theirs["onlyThere"]) == (0, 1)
        assert [state.updated_at.text for state in target.scan(TENANT)][:2] == [newer, newer]


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_a_copy_goes_where_an_earlier_one_was_removed(new_url, tmp_path, kind):
    here, path = new_url("sqlite"), tmp_path / "backup"
    there = f"{kind}:///{path}" if kind == "sqlite" else f"file://{path}"
    with filled(here, *some_states()) as first:
        for _ in range(2):
            ran = receiver("store", "copy", "--to", there, cwd=tmp_path, DATABASE_URL=here)
            assert ran.returncode == 0, ran.stderr
            with contextlib.closing(open_store(there, 10)) as second:
                assert list(second.scan()) == list(first.scan())
            if kind == "file":
                shutil.rmtree(path)
            else:
                for ending in ("", "-wal", "-shm"):
                    Path(f"{path}{ending}").unlink(missing_ok=True)
    served = receiver("store", "copy", "--from", here, "--to", there, cwd=tmp_path, DATABASE_URL=there)
    assert served.returncode == 78, served.stderr
    assert "was here: put it back" in served.stderr


def test_a_copy_of_one_tenant_brings_no_other(new_url, tmp_path):
    here, there = new_url("sqlite"), new_url("filesystem")
    with filled(here, *some_states()):
        ran = receiver("store", "copy", "--to", there, "--tenant", OTHER, cwd=tmp_path, DATABASE_URL=here)
        assert ran.returncode == 0, ran.stderr
        with contextlib.closing(open_store(there, 10)) as target:
            assert {state.tenant for state in target.scan()} == {OTHER}


def test_a_copy_that_did_not_arrive_is_not_called_complete(new_url):
    with (
        filled(new_url("sqlite"), a_state(1), a_state(2), a_state(3)) as source,
        filled(new_url("sqlite"), a_state(1)) as target,
    ):
        target.save(TENANT, [a_state(2, content="another")], None)
        (verdict,) = copying.compare(source, target, None, lambda: None)
        assert (verdict.equal, verdict.differing, verdict.behind, verdict.is_complete) == (1, 1, 1, False)
        assert verdict.source.digest() != verdict.target.digest()


def test_a_url_in_a_file_is_read_and_a_wrong_one_is_not_repeated(new_url, tmp_path):
    here = new_url("sqlite")
    with filled(here, a_state(1)):
        (tmp_path / "to").write_text(f"sqlite:///{tmp_path}/copied.db\n")
        ran = receiver("store", "copy", "--to", f"@{tmp_path}/to", cwd=tmp_path, DATABASE_URL=here)
        assert ran.returncode == 0, ran.stderr
        assert "complete" in ran.stdout
    for url in ("postgresql://u:hunter2@h/d?sslmod=x", "oracle://hunter2"):
        ran = receiver("store", "copy", "--to", url, cwd=tmp_path, DATABASE_URL=here)
        assert ran.returncode == 2
        assert "hunter2" not in ran.stderr
    assert receiver("store", "copy", "--to", here, cwd=tmp_path, DATABASE_URL=here).returncode == 2


def test_a_source_that_does_not_exist_is_told_and_nothing_is_made(new_url, tmp_path):
    ran = receiver(
        "store", "copy", "--from", f"sqlite:///{tmp_path}/typo.db", "--to", f"sqlite:///{tmp_path}/new.db", cwd=tmp_path
    )
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("target", ["sqlite", "filesystem", "postgresql"])
def test_a_copy_killed_half_way_goes_on_where_it_was(new_url, tmp_path, target):
    here, there = new_url("sqlite"), new_url(target)
    with filled(here, *(a_state(number, content="x" * 3000) for number in range(6000))):
        command = [sys.executable, "-m", "receiver", "store", "copy", "--from", here, "--to", there]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # Not where keys may lie: there the copy would be sealed.
        process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.getcwd()}, **quiet)
        with contextlib.closing(open_store(there, 10)) as store:

            def has_arrived():
                with contextlib.suppress(Exception):
                    return sum(1 for _ in store.summaries()) >= 1000

            until(lambda: process.poll() is not None or has_arrived(), seconds=60, pause=0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            arrived = sum(1 for _ in store.summaries())
            assert 1000 <= arrived < 6000
            ran = receiver("store", "copy", "--from", here, "--to", there, "--json", cwd=tmp_path)
            assert ran.returncode == 0, ran.stderr
            (row,) = json.loads(ran.stdout)["tenants"]
            assert (row["copied"], row["states"]) == (6000 - arrived, 6000)
            assert row["digest"] == row["digestThere"]


def test_a_copy_without_any_terminal_works_and_a_full_one_is_told(new_url, tmp_path):
    here = new_url("sqlite")
    with filled(here, *some_states()):
        command = f"{sys.executable} -m receiver store copy --from {here} --to sqlite:///{tmp_path}/a.db"
        assert subprocess.run(f"{command} >&- 2>&-", shell=True, check=False).returncode == 0
        full = subprocess.run(f"{command} >/dev/full", shell=True, check=False, capture_output=True, text=True)
        assert full.returncode == 1
        assert "Traceback" not in full.stderr
        command = f"{sys.executable} -m receiver store delete --url {here} {OTHER} --all <&-"
        asked = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
        assert (asked.returncode, "give --yes" in asked.stderr) == (2, True)


def test_a_copy_of_a_tenant_that_is_not_there_is_no_success(new_url, tmp_path):
    here = new_url("sqlite")
    with filled(here, a_state(1)):
        ran = receiver("store", "copy", "--to", new_url("sqlite"), "--tenant", uid(77), cwd=tmp_path, DATABASE_URL=here)
        assert (ran.returncode, "holds no state of the tenant" in ran.stderr) == (1, True)


def test_a_progress_bar_is_shown_on_a_terminal(new_url, tmp_path):
    here = new_url("sqlite")
    with filled(here, *some_states()):
        command = [sys.executable, "-m", "receiver", "store", "copy", "--from", here, "--to", new_url("sqlite")]
        terminal, end = os.openpty()
        process = subprocess.Popen(command, stderr=end, stdout=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm"})
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux tells the end of it
            while part := os.read(terminal, 4096):
                shown += part
        os.close(terminal)
        assert process.wait() == 0
    assert re.search(rb"copying +\[#+\] +100%", shown)
    assert re.search(rb"comparing +\[#+\] +100%", shown)


@pytest.mark.parametrize("name", ["DATABASE_URL", "JDBC_DATABASE_URL", f"STORAGE_TENANT_{OTHER}", "DATABASE_URL_FILE"])
def test_config_shows_no_password_of_any_url(folder_with_keys, name):
    url = "postgresql://me:hunter2@127.0.0.1:1/d"
    if name == "JDBC_DATABASE_URL":
        url = "jdbc:postgresql://127.0.0.1:1/d?user=me&password=hunter2"
    (folder_with_keys / "url").write_text(f" {url}\n")
    value = str(folder_with_keys / "url") if name.endswith("_FILE") else url
    ran = receiver("config", cwd=folder_with_keys, **{name: value})
    assert ran.returncode == 0, ran.stderr
    assert "PostgreSQL, 127.0.0.1:1, database d" in ran.stdout
    assert "hunter2" not in ran.stdout + ran.stderr
    if name == "JDBC_DATABASE_URL":
        assert re.search(r"^DATABASE_URL +JDBC_DATABASE_URL decides", ran.stdout, re.MULTILINE)
    assert "hunter2" not in repr(read({name: value})[0])


def test_the_demo_takes_its_store_from_a_file_too(tmp_path):
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/named.db\n")
    for name in ("DATABASE_URL_FILE", "JDBC_DATABASE_URL_FILE"):
        ran = receiver("demo", cwd=tmp_path, **{name: str(tmp_path / "url")})
        assert (ran.returncode, "named.db" in ran.stdout) == (0, True), ran.stderr
