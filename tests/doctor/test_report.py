"""The doctor's report: what it looks like, what counts, and what it says of settings."""

import os

import click
import pytest

from receiver.doctor import findings
from receiver.doctor.checks import configuration
from receiver.doctor.subject import Subject
from receiver.keys import keyring
from receiver.mock_platform.keys import new_store
from receiver.settings import Settings, read
from receiver.stores import open_store
from tests.support.commands import receiver
from tests.support.doctoring import doctor, left_in_the_store, left_of_trials, reported, seal
from tests.support.key_files import put


def test_a_receiver_that_is_well_gets_one_screen_without_a_complaint(running):
    report = doctor("--roundtrip", **running.environ)
    assert (report.worse_than_ok(), report.code, report.stderr) == ([], 0, "")
    assert {one.topic for one in report.found} == {
        *("settings", "keys", "clock", "store", "disk", "permissions", "tls", "service", "versions", "roundtrip")
    }
    assert "ready, 4 of 4 workers" in report.one("service", "ok").message
    assert "1 platform, 1 receiver, 1 sealing" in report.one("keys", "ok").message
    assert "saved, loaded, compared and deleted" in report.one("roundtrip", "ok").message
    times = report.one("roundtrip", "ok").details[0]
    assert all(f"{call} " in times for call in ("save", "load", "delete", "load again"))
    assert left_of_trials(running) == []
    text = findings.as_text([one for one in report.found if one.verdict == "ok"])
    assert len(text.splitlines()) <= 30
    assert text.splitlines()[-1].startswith("all is well")


def test_people_read_lines_and_have_the_commands_at_hand(running):
    ran = receiver("doctor", "--roundtrip", "--url", running.url, **running.environ)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "through http://127.0.0.1" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert receiver("doctor", "--roundtrip", **running.environ).returncode == 0


def test_the_round_trip_leaves_no_state_and_no_use_of_a_key(running):
    assert doctor("--roundtrip", **running.environ).code == 0
    assert left_in_the_store(running) == []
    store = open_store(running.environ["DATABASE_URL"], 5, create=False)
    assert all(role == "sealing" for role, _ in store.key_uses())
    store.close()


def test_what_people_read_has_failures_first_and_every_one_with_what_mends_it():
    found = [
        findings.ok("versions", "receiver 1"),
        findings.ok("store", "answers"),
        findings.warn("clock", "drifts", "set it"),
        findings.fail("store", "is \x1b[31mgone", "bring it\nback"),
    ]
    text = click.unstyle(findings.as_text(found))
    lines = [line.split() for line in text.splitlines() if line]
    assert [words[0] for words in lines] == ["FAIL", "fix:", "ok", "warn", "fix:", "ok", "1"]
    assert "\x1b" not in text
    assert "1 problem, 1 warning" in text
    assert findings.as_json(found)["summary"]["counts"] == {"ok": 2, "warn": 1, "fail": 1}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_messages_and_fixes_fit_the_terminal(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    path = "/a/path/that/stays/whole.json"
    found = [findings.fail("keys", "a message of many words " * 9, "a fix of many words " * 9 + f"chmod o= {path}")]
    lines = [line.strip() for line in click.unstyle(findings.as_text(found)).splitlines() if line]
    assert max(map(len, click.unstyle(findings.as_text(found)).splitlines())) <= min(width, 160)
    assert any(line.startswith("fix: a fix of") for line in lines)
    assert any(path in line for line in lines)
    assert lines[-1].startswith("1 problem (1 finding, receiver ")


def test_warnings_count_only_where_they_are_asked_to(tmp_path):
    put(tmp_path / "keys", new_store())
    (tmp_path / "var").mkdir()
    environ = {"STORAGE_RUN_DIR": str(tmp_path)}
    assert doctor(cwd=tmp_path, **environ).code == 0
    assert doctor("--strict", cwd=tmp_path, **environ).code == 1


# Settings


def test_settings_are_told_with_their_sources_and_no_secret(tmp_path):
    (tmp_path / "url").write_text("postgresql://me:hunter2@127.0.0.1:1/flow?sslmode=require")
    environ = {"DATABASE_URL_FILE": str(tmp_path / "url"), "STORAGE_KEY_PASSPHRASE": "hunter3", "STORAGE_DRAIN": "5"}
    ran = receiver("doctor", cwd=tmp_path, **environ)
    lines = ran.stdout.splitlines()
    assert any(
        "DATABASE_URL " in line and "127.0.0.1:1, database flow" in line and "DATABASE_URL_FILE" in line
        for line in lines
    )
    assert any("STORAGE_KEY_PASSPHRASE" in line and "********" in line for line in lines)
    assert any("stopping takes up to 35 s" in line for line in lines)
    assert "hunter" not in ran.stdout + ran.stderr


def test_every_mistake_is_a_finding_with_what_is_valid(tmp_path):
    environ = {"STORAGE_WORKRES": "2", "STORAGE_THREADS": "many", "PORT": "8080", "PORT_FILE": str(tmp_path)}
    report = doctor(cwd=tmp_path, DATABASE_URL="oracle:thin", STORAGE_KEYS="/nowhere", **environ)
    assert report.code == 1
    assert report.one("settings", "fail", "STORAGE_WORKRES").fix.startswith("set STORAGE_WORKERS instead")
    report.one("settings", "fail", "STORAGE_THREADS: must be a whole number", "unset STORAGE_THREADS")
    report.one("settings", "fail", "PORT is set as well", "unset PORT_FILE, or unset PORT")
    report.one("settings", "fail", "DATABASE_URL: must be sqlite:///path")
    report.one("store", "warn", "the store is not known", "see settings")
    report.one("keys", "warn", "STORAGE_KEYS is invalid", "see settings")


@pytest.mark.parametrize(
    ("environ", "message", "fix"),
    [
        ({"STORAGE_WORKERS": "256"}, "256 workers share", "STORAGE_WORKERS="),
        ({"STORAGE_REPLAY": "observe"}, "STORAGE_REPLAY=observe", "unset STORAGE_REPLAY"),
        ({"STORAGE_INSECURE_KEYS": "warn"}, "STORAGE_INSECURE_KEYS=warn", "chmod o="),
        ({"STORAGE_TRUSTED_PROXIES": "0.0.0.0/0"}, "holds every address", "STORAGE_TRUSTED_PROXIES="),
        ({"DATABASE_URL": "mysql://h/d", "STORAGE_POOL_SIZE": "2"}, "8 threads share 2 conn", "STORAGE_POOL_SIZE=8"),
        ({"container": "podman"}, "nobody outside of this container", "PORT=8080"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "STORAGE_SERVICE_HOST": "10.0.0.2"}, "STORAGE_SERVICE_HOST", "enableServiceLinks: false"),
        ({"STORAGE_PORT": "tcp://10.0.0.2:80"}, "STORAGE_PORT", "enableServiceLinks: false"),
        ({"DATABSE_URL": "mysql://h/d"}, "DATABSE_URL", "set DATABASE_URL instead of DATABSE_URL"),
        ({"\ufeffDATABASE_URL": "mysql://h/d"}, "byte order mark", "set DATABASE_URL instead of"),
        ({"DATABASE_URL": "sqlite:////x.db", "DB_URL": "mysql://h/d"}, "DB_URL", "unset DB_URL"),
    ],
)  # fmt: skip
def test_a_setting_that_is_valid_and_hardly_meant_is_a_warning(monkeypatch, environ, message, fix):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings, mistakes = read(os.environ)
    report = reported(configuration.check(Subject(settings, tuple(mistakes))))
    assert [one for one in report.of("settings") if message in one.message and fix in one.fix and one.verdict != "ok"]


def test_content_in_the_clear_is_a_trap_only_where_there_is_a_sealing_key(tmp_path):
    settings = Settings(keys=tmp_path, clear_states="read")
    assert not reported(configuration.check(Subject(settings))).of("settings", "fail")
    seal(tmp_path)
    ring, _ = keyring.load(settings)
    reported(configuration.check(Subject(settings, ring=ring))).one(
        "settings", "warn", "STORAGE_CLEAR_STATES=read", "reseal"
    )


@pytest.mark.parametrize(("text", "count"), [("max 100000", 64), ("150000 100000", 2), ("10000 100000", 1), ("", 64)])
def test_processors_are_those_that_the_group_may_use(tmp_path, monkeypatch, text, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    (tmp_path / "cpu.max").write_text(text)
    assert configuration.processors(tmp_path / "cpu.max") == count
    assert configuration.processors(tmp_path / "none") == 64
