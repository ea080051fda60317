"""The doctor: what it finds when something is broken on purpose, the fix it prints, and that it never falls over."""

import contextlib
import dataclasses
import functools
import http.client
import http.server
import json
import os
import random
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import trustme
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from receiver.commands import cli
from receiver.commands.demo import running_receiver
from receiver.doctor import findings, impersonation, subject
from receiver.doctor.checks import certificates, clock, configuration, keys, machine, service, stores
from receiver.doctor.checks.clock import Offset
from receiver.doctor.findings import Finding
from receiver.doctor.subject import Subject
from receiver.keys import keyring
from receiver.mock_platform import keyfiles
from receiver.mock_platform.client import Client
from receiver.mock_platform.keys import new_store
from receiver.problems import Problem
from receiver.process.running import RunFolder, base_of, services
from receiver.sealing import generate
from receiver.settings import Settings, parsers, read
from receiver.stores import open_store
from receiver.stores.urls import store_url
from tests import certificates as authority
from tests import conftest
from tests.test_commands import receiver
from tests.test_serving import Writer
from tests.test_stores import TENANT, a_state
from tests.test_systemd import host, port  # noqa: F401 - fixtures

OF_THIS_MACHINE = ("nobody outside of this container", "the kernel", "root")  # what depends on where tests run


class Report:
    """What the doctor said: its exit status ``code``, the ``found`` Findings, and what came on standard error."""

    def __init__(self, code, stdout, stderr=""):
        self.code, self.stderr = code, stderr
        told = json.loads(stdout)
        self.summary = told["summary"]
        names = ("subject", "verdict", "seen", "mend")
        self.found = [Finding(*map(one.get, names), tuple(one["details"])) for one in told["findings"]]

    def of(self, subject, verdict=None):
        return [one for one in self.found if one.topic == subject and verdict in (None, one.verdict)]

    def one(self, subject, verdict, *texts):
        """Return the one finding of ``subject`` with ``verdict`` that holds all ``texts``."""
        fitting = [
            one for one in self.of(subject, verdict) if all(text in f"{one.message} {one.fix}" for text in texts)
        ]
        assert len(fitting) == 1, (subject, verdict, texts, self.found)
        return fitting[0]

    def worse_than_ok(self):
        """Return what is not well, apart from what is so on this machine whatever is tested."""
        bad = [one for one in self.found if one.verdict != "ok"]
        return [one for one in bad if not any(text in one.message for text in OF_THIS_MACHINE)]


def doctor(*words, cwd=None, **environ):
    """Run the doctor in a process of its own."""
    ran = receiver("doctor", "--json", *words, cwd=cwd, **environ)
    assert "Traceback" not in ran.stderr
    return Report(ran.returncode, ran.stdout, ran.stderr)


def reported(found):
    """Return a Report of ``found``, which a check yielded."""
    return Report(0, json.dumps(findings.as_json(list(found))))


def put(folder, made):
    """Write the files of a store's keys ``made`` that a receiver needs into ``folder``."""
    for path in keyfiles.write(folder, made):
        if path.name.startswith("mock-"):
            path.unlink()


def seal(folder):
    key = generate(time.time())
    (folder / f"sealing-{key['kid']}.json").write_text(json.dumps(key))
    (folder / f"sealing-{key['kid']}.json").chmod(0o600)


until = functools.partial(conftest.until, seconds=30)


@contextlib.contextmanager
def serving(folder, program=("receiver",), **environment):
    """Run a receiver with key files in ``folder``; yields it, with the variables that a doctor needs as ``environ``."""
    (folder / "keys").mkdir(exist_ok=True)
    made = new_store()
    put(folder / "keys", made)
    seal(folder / "keys")
    given = {
        "STORAGE_BIND": "127.0.0.1:0",
        "STORAGE_ADMIN_BIND": "127.0.0.1:0",
        "STORAGE_RUN_DIR": str(folder),
        "STORAGE_KEYS": str(folder / "keys"),
        "DATABASE_URL": f"sqlite:///{folder}/states.db",
        "STORAGE_LOG_FORMAT": "text",
        "PLATFORM_KEY": "",
        "RECEIVER_KEY": "",
    } | environment
    with open(folder / "log", "a") as log, running_receiver(made, folder, log, program, **given) as running:
        running.environ = {name: value for name, value in given.items() if value}
        running.keys = made
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("doctor"), STORAGE_WORKERS="4") as found:
        yield found


def service_of(running):
    return next(one for one in services(running.environ["STORAGE_RUN_DIR"]) if one.pid == running.process.pid)


def left_of_trials(running):
    return [path for path in service_of(running).trial.rglob("*") if path.is_file()]


def left_in_the_store(running):
    """Return the states that a doctor left: those that will expire."""
    with contextlib.closing(open_store(running.environ["DATABASE_URL"], 5, create=False)) as store:
        return [one for one in store.summaries() if one.expires_at]


# All is well


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
    first, *lines = click.unstyle(findings.as_text(found)).splitlines()
    assert max(map(len, [first, *lines])) <= min(width, 160)
    fix = [line.strip() for line in lines if line]
    assert any(line.startswith("fix: a fix of") for line in fix)
    assert any(path in line for line in fix)
    assert fix[-1].startswith("1 problem (1 finding, receiver ")


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


# Keys


def keys_of(folder, uses=None, now=None, **settings):
    given = Settings(keys=folder, **settings)
    ring, mistakes = keyring.load(given)
    return reported(keys.check(Subject(given, (), ring, tuple(mistakes)), uses or {}, now))


def test_no_key_at_all_tells_how_shells_lose_them(tmp_path):
    report = keys_of(tmp_path)
    found = report.one("keys", "fail", "no platform key at all", "platform-<kid>.json")
    assert "drop names with hyphens" in found.details[0]
    report.one("keys", "fail", "no receiver key at all")


def test_what_is_wrong_with_a_key_file_comes_with_what_mends_it(tmp_path):
    put(tmp_path, new_store())
    exposed = next(tmp_path.glob("receiver-*"))
    exposed.chmod(0o644)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / f"platform-{uuid.uuid4()}.json").write_text(next(tmp_path.glob("platform-*")).read_text())
    report = keys_of(tmp_path)
    report.one("keys", "fail", "everybody on this machine", f"chmod o= {exposed}")
    report.one("keys", "fail", "notes.txt", "remove it, or rename it")
    report.one("keys", "fail", 'another "kid"', "rename it to the kid")
    assert "STORAGE_INSECURE_KEYS" not in keys_of(tmp_path, insecure_keys="warn").one("keys", "warn", "chmod o=").fix


def test_a_protected_key_without_its_passphrase(tmp_path):
    put(tmp_path, new_store())
    name = str(next(tmp_path.glob("receiver-*")))
    environ = {"STORAGE_KEY_PASSPHRASE": "correct horse"}
    assert receiver("keys", "protect", name, **environ).returncode == 0
    keys_of(tmp_path).one("keys", "fail", "is protected by a passphrase", "STORAGE_KEY_PASSPHRASE_FILE")
    settings, _ = read({"STORAGE_KEYS": str(tmp_path), **environ})
    ring, mistakes = keyring.load(settings)
    assert (
        "1 protected by a passphrase"
        in reported(keys.check(Subject(settings, (), ring, tuple(mistakes)), {})).one("keys", "ok").message
    )


def test_private_halves_of_the_platform_that_lie_there(tmp_path):
    made = new_store()
    list(keyfiles.write(tmp_path, made))
    keys_of(tmp_path).one("keys", "ok", "test keys, at an address that only this machine reaches")  # make run
    keys_of(tmp_path, trusted_proxies=("127.0.0.1/32",)).one("keys", "warn", "not for production")
    keys_of(tmp_path, bind="0.0.0.0:8080").one("keys", "warn", "test keys", "rm ", "mock-platform-")
    private = next(tmp_path.glob("platform-*"))
    private.write_text(json.dumps(made.platform.private()))
    keys_of(tmp_path).one("keys", "warn", f"{private} holds the platform's private half")


def test_contents_in_the_clear_are_a_warning(tmp_path):
    put(tmp_path, new_store())
    keys_of(tmp_path).one("keys", "warn", "no sealing key", "receiver keys sealing")
    seal(tmp_path)
    assert keys_of(tmp_path).worse_than_ok() == []


def test_old_keys_and_keys_of_the_future(tmp_path):
    put(tmp_path, new_store())
    kid = next(tmp_path.glob("platform-*")).stem.removeprefix("platform-")
    year = 366 * 86400
    report = keys_of(tmp_path, now=time.time() + year)
    assert kid in report.one("keys", "warn", "older than a year", "new pair").message
    keys_of(tmp_path, now=time.time() - year).one("keys", "warn", "made in the future", "see clock")


def test_a_key_that_nobody_uses_beside_one_that_is_used(tmp_path):
    put(tmp_path, old := new_store())
    put(tmp_path, new := new_store())
    now = time.time() + 60 * 86400
    uses = {("platform", new.platform.kid): int(now) - 60, ("receiver", new.receiver.kid): int(now) - 60}
    report = keys_of(tmp_path, uses, now)
    assert report.one("keys", "warn", old.platform.kid, "remove it").message.startswith("platform key")
    assert new.platform.kid not in report.one("keys", "warn", old.platform.kid).message
    assert "used 1 min ago" in report.one("keys", "ok").message
    assert not [one for one in keys_of(tmp_path, uses).of("keys", "warn") if "not used" in one.message]  # made just now
    assert not [one for one in keys_of(tmp_path, {}, now).of("keys", "warn") if "not used" in one.message]


def test_a_tenant_whose_keys_are_one_sided_or_that_is_not_served(tmp_path):
    tenant, other = str(uuid.uuid4()), str(uuid.uuid4())
    put(tmp_path / tenant, new_store())
    put(tmp_path / other, new_store())
    next((tmp_path / tenant).glob("platform-*")).unlink()
    keys_of(tmp_path).one("keys", "fail", f"tenant {tenant} has no platform key", f"{tmp_path}/{tenant}/")
    report = keys_of(tmp_path, tenants=frozenset([tenant]))
    report.one("keys", "warn", other, "STORAGE_TENANTS does not list it")


# Clock


@pytest.mark.parametrize(
    ("ahead", "unsure", "verdict"), [(0.2, 0.1, "ok"), (5.4, 0.5, "ok"), (-8, 0.5, "warn"), (31, 0.1, "fail"), (-3600, 1, "fail")]
)  # fmt: skip
def test_clocks_that_are_apart(ahead, unsure, verdict):
    (found,) = clock.check(Settings(), [Offset("the database server", ahead, unsure)], None)
    assert found.verdict == verdict
    assert ("behind" if ahead > 0 else "ahead of") in found.message
    assert [one.message for one in clock.check(Settings(), [Offset("the server", 0.4, 0.5)], None)] == [
        "agrees with the server"
    ]
    assert bool(found.fix) == (verdict != "ok")


def test_what_the_kernel_says_of_its_clock():
    assert clock.is_synchronised() in (True, False, None)
    (found,) = clock.check(Settings(), [], False)
    assert (found.verdict, found.fix.split()[0]) == ("warn", "timedatectl")
    assert [one.verdict for one in clock.check(Settings(), [], True)] == ["ok"]
    assert [one.verdict for one in clock.check(Settings(), [], None)] == ["ok"]


# Stores


def stores_of(url, ring=None, **more):
    settings, mistakes = read({"DATABASE_URL": url, "STORAGE_STORE_TIMEOUT": "3", **more})
    assert not mistakes
    looked_at = Subject(settings, ring=ring or keyring.Keyring())
    return reported(stores.check(looked_at, stores.examine(settings, looked_at.ring)))


def prepared(url):
    store = open_store(url, 5)
    store.prepare()
    store.close()


@pytest.mark.parametrize("url", ["sqlite:///{}/states.db", "file://{}/states"])
def test_a_store_that_is_there_and_one_that_is_not_yet(tmp_path, url):
    url = url.format(tmp_path)
    stores_of(url).one("store", "warn", "there is none yet", "receiver serve")
    assert os.listdir(tmp_path) == []
    prepared(url)
    before = sorted(tmp_path.rglob("*"))
    report = stores_of(url)
    assert report.worse_than_ok() == []
    assert "answers in" in report.one("store", "ok").message
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_of_a_store_that_is_not_mounted(tmp_path):
    url = f"sqlite:///{tmp_path}/gone/further/states.db"
    stores_of(url).one("store", "fail", "is missing (is the volume mounted?)", f"mkdir -p {tmp_path}/gone/further")


def test_an_older_schema_is_told_and_left_as_it_is(tmp_path):
    path = tmp_path / "states.db"
    prepared(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("drop table key_uses; delete from _sqlite_migrations where name like '0002%';")
    stores_of(f"sqlite:///{path}").one("store", "warn", "its schema lacks 0002_sealing_keys", "start it again")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from _sqlite_migrations").fetchone() == (1,)


def test_a_newer_schema_and_files_that_are_no_store(tmp_path):
    path = tmp_path / "states.db"
    prepared(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("insert into _sqlite_migrations (migration_set, name) values ('receiver', '0009_later')")
        connection.commit()
    stores_of(f"sqlite:///{path}").one("store", "fail", "newer than this program knows", "run the newer receiver")
    (tmp_path / "text").write_text("no database, but long enough to be taken for one" * 100)
    stores_of(f"sqlite:///{tmp_path}/text").one("store", "fail", "NOTADB", "a file of the receiver's own")
    (tmp_path / "folder").mkdir()
    stores_of(f"sqlite:///{tmp_path}/folder").one("store", "fail", "is not a file")
    stores_of(f"file://{tmp_path}").one("store", "fail", "is no store")


def test_a_sqlite_that_may_lose_a_commit_and_a_file_that_everybody_reads(tmp_path, monkeypatch):
    prepared(f"sqlite:///{tmp_path}/states.db")
    (tmp_path / "states.db").chmod(0o644)
    monkeypatch.setattr(stores, "_SAFE_VERSION", (99, 0, 0))
    report = stores_of(f"sqlite:///{tmp_path}/states.db")
    report.one("store", "warn", "can lose a commit", "pip install --upgrade pysqlite3")
    report.one("store", "warn", "everybody on this machine may use", f"chmod o= {tmp_path}/states.db")


def test_contents_that_need_another_sealing_key(tmp_path):
    folder = tmp_path / "keys"
    put(folder, new_store())
    seal(folder)
    url = f"sqlite:///{tmp_path}/states.db"
    prepared(url)
    inner = open_store(url, 5)
    inner.save(TENANT, [a_state()], None)
    inner.note_key_uses({("sealing", "clear"): 1})
    settings = Settings(keys=folder)
    stores_of(url, keyring.load(settings)[0]).one("store", "fail", "in the clear", "receiver store reseal")
    inner.forget_key("sealing", "clear")
    kid = str(uuid.uuid4())
    inner.note_key_uses({("sealing", kid): 1})
    inner.close()
    stores_of(url).one("store", "fail", kid, "bring the file of that sealing key")


def test_the_store_of_a_tenant_is_that_tenants_matter(tmp_path):
    prepared(f"sqlite:///{tmp_path}/states.db")
    tenant = str(uuid.uuid4())
    own = {f"STORAGE_TENANT_{tenant.replace('-', '_')}": "postgresql://me:x@127.0.0.1:1/d"}
    report = stores_of(f"sqlite:///{tmp_path}/states.db", **own)
    report.one("store", "fail", f"of tenant {tenant}", "pg_isready -h 127.0.0.1 -p 1")
    assert len(report.of("store", "fail")) == 1


def test_postgresql_says_what_a_commit_is_worth_and_who_may_connect(postgresql):
    url = postgresql.url(postgresql.new_database())
    stores_of(url).one("store", "warn", "tables of the store do not exist yet", "receiver serve")
    prepared(url)
    report = stores_of(url, STORAGE_WORKERS="50", STORAGE_POOL_SIZE="8")
    assert "server 1" in report.one("store", "ok", "answers in", "schema 0002").message
    report.one("store", "fail", "fsync is off", "ALTER SYSTEM SET fsync = on")  # as the tests' server is started
    report.one("store", "warn", "50 workers may hold 400 connections", "STORAGE_POOL_SIZE=3")
    wrong = url.replace(postgresql.password, "wrong")
    stores_of(wrong).one("store", "fail", "authentication failed", "DATABASE_USERNAME and DATABASE_PASSWORD")
    stores_of(f"{url}_none").one("store", "fail", "does not exist")
    postgresql.execute("update receiver_schema set version_num = '0001'", url.rpartition("/")[2])
    stores_of(url).one("store", "warn", "the schema is 0001", "start it again")


def test_the_states_of_the_java_service_are_told_from_an_empty_database(postgresql):
    name = postgresql.new_database()
    postgresql.execute("create table states (id uuid, tenant_id uuid, content jsonb, updated_at timestamptz)", name)
    stores_of(postgresql.url(name)).one("store", "warn", "Java service", "receiver store adopt --plan")


def test_the_clock_of_the_database_server_is_compared(postgresql):
    url = postgresql.url(postgresql.new_database())
    (one,) = stores.examine(read({"DATABASE_URL": url})[0], keyring.Keyring())
    assert abs(one.offset.seconds) < 5
    assert "127.0.0.1" in one.offset.whom


def test_mariadb_says_what_a_commit_is_worth(mariadb):
    url = mariadb.url(mariadb.new_database())
    prepared(url)
    assert stores_of(url).worse_than_ok() == []
    mariadb.execute("set global innodb_flush_log_at_trx_commit = 2")
    try:
        stores_of(url).one("store", "fail", "innodb_flush_log_at_trx_commit is not 1", "SET GLOBAL")
    finally:
        mariadb.execute("set global innodb_flush_log_at_trx_commit = 1")


@pytest.mark.parametrize(
    ("url", "proven"),
    [
        ("postgresql://h/d", False),
        ("postgresql://h/d?sslmode=require", False),
        ("postgresql://h/d?sslmode=verify-full", True),
        ("postgresql://h,127.0.0.1/d", False),
        ("postgresql://127.0.0.1/d", True),
        ("postgresql://me@/d?host=/run/postgresql", True),
        ("mysql://h/d", False),
        ("mysql://h/d?ssl-ca=/ca.pem", True),
        ("mysql://h/d?ssl-mode=verify-identity", True),
    ],
)
def test_a_database_over_the_network_has_to_prove_who_it_is(url, proven):
    from receiver.doctor.checks import servers
    from receiver.stores.sql.inspection import Said

    found = list(servers.judged(Said("0002", False, {}), store_url.parse(url), Settings(), ""))
    assert bool(found) == (not proven)
    assert proven or "to the URL" in found[0].fix


# Disk, permissions, versions


def test_disks_that_are_full_or_soon_will_be(tmp_path):
    free = shutil.disk_usage(tmp_path).free

    def disk(least):
        environ = {"DATABASE_URL": f"sqlite:///{tmp_path}/states.db", "STORAGE_RUN_DIR": str(tmp_path)}
        return reported(machine.check_disk(Subject(dataclasses.replace(read(environ)[0], min_free=least))))

    disk(2 * free).one("disk", "fail", "less than STORAGE_MIN_FREE", "receiver store purge")
    disk(free // 2).one("disk", "warn", "are free for SQLite")
    assert disk(0).worse_than_ok() == []


def test_a_folder_of_keys_that_everybody_may_write(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys").chmod(0o777)
    report = reported(machine.check_permissions(Subject(Settings(keys=tmp_path / "keys"))))
    report.one("permissions", "fail", "may put a key into", f"chmod o-w {tmp_path}/keys")


def test_versions_are_told_with_those_of_the_drivers_that_are_needed():
    settings, _ = read({"DATABASE_URL": "postgresql://h/d"})
    (found,) = machine.check_versions(Subject(settings))
    for part in ("receiver ", "Python 3.", "gunicorn 2", "OpenSSL", "SQLite 3.", "psycopg 3."):
        assert part in found.message


# TLS


def tls_of(folder, context=None, **variables):
    settings, mistakes = read({"STORAGE_KEYS": str(folder), **variables})
    return reported(certificates.check(Subject(settings, tuple(mistakes)), context or ssl.create_default_context()))


def test_certificates_that_are_well(tmp_path):
    report = tls_of(tmp_path, authority.trusting(), **authority.write(tmp_path, until=authority.days(90)))
    assert report.worse_than_ok() == []
    assert "localhost, 127.0.0.1, 1 in the file, 89 days left" in report.one("tls", "ok").message
    assert "a proxy in front" in tls_of(tmp_path).one("tls", "ok").message


@pytest.mark.parametrize(
    ("since", "until_", "verdict", "seen"),
    [(None, 10, "warn", "in 9 days"), (-20, -1, "fail", "has expired"), (1, 20, "fail", "is not valid before")],
)
def test_certificates_out_of_their_time(tmp_path, since, until_, verdict, seen):
    days = authority.days
    variables = authority.write(tmp_path, until=days(until_), since=None if since is None else days(since))
    assert tls_of(tmp_path, authority.trusting(), **variables).one("tls", verdict, seen).fix


def test_a_chain_that_lacks_a_link_or_is_out_of_order(tmp_path):
    below = authority.AUTHORITY.create_child_ca()
    variables = authority.write(tmp_path, authority=below, until=authority.days(90))
    chain = tmp_path / "server.pem"
    assert tls_of(tmp_path, authority.trusting(), **variables).worse_than_ok() == []
    tls_of(tmp_path, None, **variables).one("tls", "warn", "neither in it nor among the authorities", "--ca FILE")
    whole = x509.load_pem_x509_certificates(chain.read_bytes())
    pem = [one.public_bytes(Encoding.PEM) for one in whole]
    chain.write_bytes(pem[0])
    tls_of(tmp_path, authority.trusting(), **variables).one("tls", "warn", "neither in it nor among", f">> {chain}")
    stranger = trustme.CA().cert_pem.bytes()
    chain.write_bytes(pem[0] + stranger + pem[1])
    tls_of(tmp_path, authority.trusting(), **variables).one("tls", "fail", "certificate 2 in the file has not issued")


def test_files_of_tls_that_do_not_belong_together_or_are_gone(tmp_path):
    variables = authority.write(tmp_path)
    other = authority.write(tmp_path, "other")
    mixed = variables | {"STORAGE_TLS_KEY": other["STORAGE_TLS_KEY"]}
    tls_of(tmp_path, **mixed).one("tls", "fail", "is not the key of the certificate", "made together")
    (tmp_path / "server.key").chmod(0o644)
    tls_of(tmp_path, **variables).one("tls", "fail", "everybody on this machine", f"chmod o= {tmp_path}/server.key")
    (tmp_path / "server.pem").write_text("nothing")
    tls_of(tmp_path, **variables).one("tls", "fail", "must hold a certificate", "openssl x509")
    (tmp_path / "server.pem").unlink()
    tls_of(tmp_path, **variables).one("tls", "warn", "their settings are invalid", "see settings")


def test_authorities_of_clients_expire_too(tmp_path):
    expired = authority.write(tmp_path, "expired", until=authority.days(-1), since=authority.days(-9))
    variables = authority.write(tmp_path, until=authority.days(90))
    variables["STORAGE_TLS_CLIENT_CA"] = expired["STORAGE_TLS_CERT"]
    tls_of(tmp_path, authority.trusting(), **variables).one("tls", "fail", "STORAGE_TLS_CLIENT_CA", "has expired")


# The running receiver


def test_no_receiver_runs(tmp_path):
    put(tmp_path / "keys", new_store())
    report = doctor("--roundtrip", cwd=tmp_path, STORAGE_RUN_DIR=str(tmp_path))
    report.one("service", "warn", f"no receiver that has its folder in {tmp_path} runs here", "receiver serve")
    report.one("roundtrip", "fail", "is not known which receiver runs here", "see service")


def test_a_receiver_with_other_settings_is_told_and_looked_at_by_its_process(running, tmp_path):
    environ = running.environ | {"DATABASE_URL": f"sqlite:///{tmp_path}/other.db", "STORAGE_THREADS": "3"}
    pid = str(running.process.pid)
    found = doctor(**environ).one("service", "warn", "started with other settings", f"receiver doctor --pid {pid}")
    assert "DATABASE_URL, STORAGE_THREADS" in found.message
    report = doctor("--pid", pid, "--roundtrip", cwd=tmp_path)  # it takes all of it over
    assert (report.worse_than_ok(), report.code) == ([], 0)
    assert any("states.db" in line for line in report.one("settings", "ok", f"process {pid}").details)


def test_a_process_that_is_none_of_ours(tmp_path):
    ran = receiver("doctor", "--pid", "4194303")
    assert (ran.returncode, ran.stderr) == (1, "Error: there is no process 4194303\n")
    report = doctor("--pid", str(os.getpid()), cwd=tmp_path)
    report.one("service", "warn", f"process {os.getpid()} is not the first process of a receiver")


def test_of_several_receivers_the_one_on_the_address_is_taken(running, tmp_path):
    environ = {name: value for name, value in running.environ.items() if name != "DATABASE_URL"}
    with serving(tmp_path, STORAGE_RUN_DIR=environ["STORAGE_RUN_DIR"]) as other:
        report = doctor(**environ)
        found = report.one("service", "warn", "it is not clear which is meant", "--pid PID")
        assert {str(one.process.pid) for one in (running, other)} <= set(
            found.message.replace(",", " ").replace(";", " ").split()
        )
        port = urlsplit(other.url).port
        report = doctor(**environ | {"STORAGE_BIND": f"127.0.0.1:{port}"})
        assert f"process {other.process.pid} " in report.one("service", "ok").message


def test_what_readiness_says_is_told(tmp_path):
    with serving(tmp_path) as running:
        (tmp_path / "states.db").rename(tmp_path / "aside")
        report = doctor(**running.environ)
        report.one("service", "fail", "/readyz, store", "see store")
        report.one("store", "fail", "there is none yet, and a receiver runs")
        (tmp_path / "aside").rename(tmp_path / "states.db")


def test_other_versions_keys_and_certificates_than_lie_here(monkeypatch, tmp_path):
    folder = tmp_path / "keys"
    put(folder, made := new_store())
    put(folder, new_store())
    seal(folder)
    for path in folder.iterdir():
        os.utime(path, (time.time() - 900, time.time() - 900))
    kids = [("platform", made.platform.kid), ("receiver", made.receiver.kid), ("receiver", str(uuid.uuid4()))]
    text = 'receiver_build_info{version="0.0.1"} 1\nreceiver_certificate_expires_timestamp_seconds 5\n'
    text += "".join(f'receiver_key_made_timestamp_seconds{{role="{role}",kid="{kid}"}} 5\n' for role, kid in kids)
    monkeypatch.setattr(service, "fetch", lambda *_: (200, text.encode()))
    monkeypatch.setattr(service, "ask", lambda *_: (200, {"status": "draining", "checks": {}}))
    variables = authority.write(tmp_path)
    os.utime(tmp_path / "server.pem", (5, 5))
    settings, _ = read({"STORAGE_KEYS": str(folder), **variables})
    here = RunFolder(str(tmp_path))
    here.introduce(["http://127.0.0.1:1"], "http://127.0.0.1:2")
    ring, _ = keyring.load(settings)
    for path in (folder, here.trial):
        os.utime(path, (time.time() - 900, time.time() - 900))
    looked_at = Subject(settings, ring=ring, service=services(str(tmp_path))[0], pid=os.getpid())
    report = reported(service.check(looked_at))
    report.one("service", "warn", "it runs version 0.0.1", "start it again")
    assert "sealing key" in report.one("service", "warn", "it does not use", "kill -HUP").message
    report.one("service", "warn", f"it still accepts receiver key {kids[2][1]}")
    report.one("service", "warn", "another certificate", "kill -HUP")
    report.one("service", "warn", "it is draining")
    here.remove()


def test_a_file_of_a_setting_that_was_written_after_the_start(tmp_path):
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/states.db")
    with serving(tmp_path, DATABASE_URL="", DATABASE_URL_FILE=str(tmp_path / "url")) as running:
        time.sleep(0.1)
        (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/states.db\n")
        doctor(**running.environ).one("service", "warn", "the files of DATABASE_URL_FILE have changed")


def test_a_folder_that_is_not_its_process_owners_is_not_believed(tmp_path, monkeypatch):
    here = RunFolder(str(tmp_path))
    here.introduce(["http://127.0.0.1:8080"], None)
    settings, _ = read({"STORAGE_RUN_DIR": str(tmp_path)})
    assert len(services(base_of(settings))) == 1
    monkeypatch.setattr("receiver.process.running.is_run_by", lambda _pid, _owner: False)
    assert services(base_of(settings)) == []
    here.remove()


def test_a_receiver_that_ends_while_it_is_looked_for(tmp_path, monkeypatch):
    here = RunFolder(str(tmp_path))
    here.introduce(["http://127.0.0.1:8080"], None)
    monkeypatch.setenv("STORAGE_RUN_DIR", str(tmp_path))

    def user_of(_pid):
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(impersonation, "user_of", user_of)
    assert subject.find_subject(None).service is None
    here.remove()


# The round trip


@pytest.mark.parametrize(
    "more",
    [
        {"STORAGE_ADMIN_BIND": "off"},
        {"STORAGE_KEY_PASSPHRASE": "correct horse"},
        {"STORAGE_PUBLIC_PREFIX": "/flow"},
        {"STORAGE_BIND": "0.0.0.0:0"},
        {"STORAGE_BIND": "[::1]:0"},
        {"PORT": "0", "STORAGE_BIND": "", "STORAGE_ALLOW_FROM": "127.0.0.1"},
        {"STORAGE_TENANTS": "00000000-0000-4000-8000-000000000001"},
    ],
    ids=lambda more: next(iter(more)),
)
def test_the_round_trip_with(tmp_path, more):
    put(tmp_path / "keys", new_store())
    if "STORAGE_KEY_PASSPHRASE" in more:
        names = [str(path) for path in (tmp_path / "keys").glob("receiver-*")]
        assert receiver("keys", "protect", *names, **more).returncode == 0
    with serving(tmp_path, **more) as running:
        report = doctor("--roundtrip", **running.environ)
        assert report.of("roundtrip", "fail") == []
        assert left_of_trials(running) == []
        assert more.get("STORAGE_TENANTS", "") in report.one("roundtrip", "ok").details[1]


def test_the_round_trip_in_the_store_of_a_tenants_own(tmp_path):
    tenant = str(uuid.uuid4())
    own = {f"STORAGE_TENANT_{tenant.replace('-', '_')}": f"sqlite:///{tmp_path}/own.db"}
    with serving(tmp_path, **own) as running:
        assert (
            doctor("--roundtrip", "--tenant", tenant, **running.environ)
            .one("roundtrip", "ok")
            .details[1]
            .endswith(tenant)
        )
        (tmp_path / "own.db").rename(tmp_path / "aside")
        report = doctor("--roundtrip", "--tenant", tenant, **running.environ)
        report.one("roundtrip", "fail", "503", "see store")
        report.one("store", "fail", f"of tenant {tenant}", "and a receiver runs")


def test_the_round_trip_goes_on_beside_load(running, tenant):
    client = Client(running.url, tenant, running.keys)
    writer = Writer(client, 3, time.monotonic() + 8)
    writer.start()
    reports = [doctor("--roundtrip", **running.environ) for _ in range(2)]
    writer.join()
    client.close()
    assert [report.of("roundtrip", "fail") for report in reports] == [[], []]
    assert writer.wrong == []
    assert set(writer.counts) == {204, 200}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_doctor_that_is_ended_in_between_leaves_no_key_in_force(running, number):
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **running.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver", "doctor", "--roundtrip"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: left_of_trials(running))
    process.send_signal(number)
    process.wait(20)
    if number == signal.SIGKILL:
        for folder in service_of(running).trial.iterdir():
            os.utime(folder, (time.time() - 121, time.time() - 121))
    until(lambda: not list(service_of(running).trial.iterdir()), seconds=10)


def test_a_receiver_that_cannot_read_its_keys_any_more_does_not_take_those_of_the_trial(tmp_path):
    with serving(tmp_path) as running:
        (tmp_path / "keys" / "notes.txt").write_text("")
        report = doctor("--roundtrip", **running.environ)
        report.one("keys", "fail", "notes.txt")
        found = report.one("roundtrip", "fail", "has not accepted the keys of the trial", "see settings and keys")
        assert "notes.txt" in found.message
        assert left_of_trials(running) == []


def test_who_is_kept_out_is_told_what_is_in_the_way(tmp_path):
    with serving(tmp_path, STORAGE_ALLOW_FROM="192.0.2.1") as running:
        doctor("--roundtrip", **running.environ).one("roundtrip", "fail", "STORAGE_ALLOW_FROM keeps 127.0.0.1", "--url")


def test_a_receiver_on_a_unix_socket_needs_its_public_address(tmp_path):
    put(tmp_path / "keys", new_store())
    (tmp_path / "run").mkdir()
    environ = {
        "STORAGE_BIND": f"unix:{tmp_path}/s",
        "STORAGE_RUN_DIR": str(tmp_path / "run"),
        "STORAGE_ADMIN_BIND": f"unix:{tmp_path}/a",
    }
    environ |= {"STORAGE_KEYS": str(tmp_path / "keys"), "DATABASE_URL": f"sqlite:///{tmp_path}/states.db"}
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **environ}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "receiver", "serve"], env=clean, stdout=log, stderr=log)
    try:
        until(lambda: services(str(tmp_path / "run")))
        report = doctor("--roundtrip", **environ)
        report.one("roundtrip", "fail", "Unix socket only", "--url")
        assert f"unix:{tmp_path}/s" in report.one("service", "ok", "ready").message
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("until_", [90, -1])
def test_a_receiver_that_speaks_tls_is_known_by_its_own_certificate(tmp_path, until_):
    variables = authority.write(tmp_path, until=authority.days(until_), since=authority.days(-9))
    with serving(tmp_path, **variables) as running:
        report = doctor("--roundtrip", **running.environ)
        assert running.url.startswith("https")
        report.one("roundtrip", "ok")
        authority.write(tmp_path, until=authority.days(until_), since=authority.days(-9))  # another one, not taken yet
        report = doctor("--roundtrip", **running.environ)
        assert report.of("roundtrip")


def test_client_certificates_are_shown_where_they_are_asked_for(tmp_path):
    variables = authority.write(tmp_path, until=authority.days(90))
    authority.AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    with serving(tmp_path, STORAGE_TLS_CLIENT_CA=str(tmp_path / "ca.pem"), **variables) as running:
        doctor("--roundtrip", **running.environ).one(
            "roundtrip", "fail", "asks for a client certificate", "--client-cert"
        )
        words = ("--client-cert", str(tmp_path / "server.pem"), "--client-key", str(tmp_path / "server.key"))
        doctor("--roundtrip", *words, **running.environ).one("roundtrip", "ok")


def python_for(user):
    """Return an interpreter that ``user`` may run with what is installed here, and its PYTHONPATH; None without one."""
    path = f"{os.getcwd()}:{sysconfig.get_paths()['platlib']}"
    for name in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            command = [name, "-c", "import receiver.server.application, receiver.commands.doctor"]
            if (
                subprocess.run(
                    command, user=user, env={"PYTHONPATH": path}, capture_output=True, check=False
                ).returncode
                == 0
            ):
                return name, path
    return None


def test_root_looks_with_the_eyes_of_the_receivers_user():
    if os.getuid() != 0 or not (found := python_for("nobody")):
        pytest.skip("needs root, and an interpreter that others may run")
    interpreter, path = found
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rcv-") as text:
        folder = Path(text)
        folder.chmod(0o755)
        (folder / "own").mkdir()
        (folder / "run").mkdir()
        put(folder / "own" / "keys", new_store())
        seal(folder / "own" / "keys")
        subprocess.run(["chown", "-R", "nobody", text], check=True)
        environ = {"STORAGE_KEYS": f"{text}/own/keys", "DATABASE_URL": f"sqlite:///{text}/own/states.db"}
        environ |= {
            "STORAGE_RUN_DIR": f"{text}/run",
            "STORAGE_BIND": "127.0.0.1:0",
            "STORAGE_ADMIN_BIND": "127.0.0.1:0",
        }
        environ |= {"PYTHONPATH": path, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(
                [interpreter, "-m", "receiver", "serve"], user="nobody", env=environ, stdout=log, stderr=log
            )
        try:
            until(lambda: services(f"{text}/run"))
            for words in ((), ("--pid", str(process.pid))):
                command = [interpreter, "-m", "receiver", "doctor", "--json", "--roundtrip", *words]
                ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
                report = Report(ran.returncode, ran.stdout)
                assert (report.code, report.worse_than_ok(), ran.stderr) == (0, [], "")
                assert "as nobody" in report.one("permissions", "ok").message
            owners = {path.owner() for path in folder.rglob("*") if path.name != "log"}
            assert owners == {"nobody"}
            next((folder / "own" / "keys").glob("receiver-*")).chmod(0)
            ran = subprocess.run([*command[:-2], *words], env=environ, capture_output=True, text=True, check=False)
            Report(ran.returncode, ran.stdout).one("keys", "fail", "cannot be read", "chown")
        finally:
            process.terminate()
            process.wait(30)


def test_under_systemd_it_looks_as_the_unit_does(host, port):  # noqa: F811
    host.run("systemctl", "start", f"receiver@{port}")
    pid = host.show(f"receiver@{port}", "MainPID")
    keys = list((host.root / "etc/receiver/keys").glob("*.json"))
    for command in (
        f"sh /run/deploy/receiver-at {port} doctor --json --roundtrip",  # in a unit of its own, as that user
        f"/opt/receiver/bin/receiver doctor --json --roundtrip --pid {pid}",  # as root
    ):
        ran = host.run("sh", "-c", command, check=False)
        report = Report(ran.returncode, ran.stdout)
        assert [one.message for one in report.worse_than_ok() if "no sealing key" not in one.message] == []
        assert "as receiver: " in report.one("permissions", "ok").message
        assert (
            f"process {pid} at http://{parsers.every_address(port)}, " in report.one("service", "ok", "ready").message
        )
        report.one("roundtrip", "ok")
        assert f"{sum('platform' in path.name for path in keys)} platform" in report.one("keys", "ok").message
    known = f"RUNTIME_DIRECTORY=/run/receiver/{port} PORT={port} STORAGE_KEYS=/etc/receiver/keys"
    report = Report(1, host.run("sh", "-c", f"{known} /opt/receiver/bin/receiver doctor --json", check=False).stdout)
    seen = report.one("service", "warn", "started with other settings", f"receiver doctor --pid {pid}").message
    assert "STORAGE_KEYS" in seen
    assert "PORT" not in seen
    report.one("permissions", "fail", "/etc/receiver/keys cannot be read by receiver")


def test_root_that_became_another_user_stays_that_user():
    if os.getuid() != 0:
        pytest.skip("needs root")
    program = (
        "import os; from receiver.doctor.impersonation import User, become; become(User(65534, 65534, (65534,)));"
        "print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ['HOME']); os.seteuid(0)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("(65534, 65534, 65534) (65534, 65534, 65534) [65534] /")
    assert "/root" not in ran.stdout
    assert "PermissionError" in ran.stderr


# Proxies


@contextlib.contextmanager
def proxy(url, change):
    """Answer for the receiver at ``url``; ``change`` gets each request (method, path, headers, body) and alters it.

    It returns an answer (status, body) of the proxy's own instead, if it likes. Yields the proxy's URL.
    """
    behind = urlsplit(url)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def forward(self):
            asked = {"method": self.command, "path": self.path, "headers": dict(self.headers)}
            asked["body"] = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            own = change(asked)
            if own:
                self.answer(own[0], {"Content-Type": "text/html"}, own[1])
                return
            with contextlib.closing(http.client.HTTPConnection(behind.hostname, behind.port, timeout=30)) as connection:
                connection.request(asked["method"], asked["path"], asked["body"], asked["headers"])
                answer = connection.getresponse()
                content = answer.read()
            kept = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in ("connection", "content-length", "server")
            }
            self.answer(answer.status, kept | asked.get("answer", {}), content)

        def answer(self, status, headers, content):
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = forward

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def strips(prefix):
    return lambda asked: asked.update(path=asked["path"].removeprefix(prefix))


def without_body_of_delete(asked):
    if asked["method"] == "DELETE":
        asked["body"] = None
        asked["headers"].pop("Content-Length", None)


def without_signature(asked):
    asked["headers"].pop("X-ManyWho-Signature", None)


def without_key_ids(asked):
    asked["headers"].pop("X-ManyWho-Receiver-Key-ID", None)


def small_bodies(asked):
    return (413, b"<h1>too large</h1>") if len(asked["body"] or b"") > 1 << 20 else None


def no_delete(asked):
    return (405, b"<h1>no</h1>") if asked["method"] == "DELETE" else None


def health_alone(asked):
    return None if asked["path"].endswith("/health") else (404, b"<h1>nothing here</h1>")


def an_old_clock(asked):
    asked["answer"] = {"Date": "Mon, 01 Jan 2024 00:00:00 GMT"}


def another_path(asked):
    asked["path"] = asked["path"].replace("/states/", "/states//")


PROXIES = [
    (lambda asked: None, "", ("proxy", "ok", "the path unchanged")),
    (strips("/flow"), "/flow", ("proxy", "fail", "removes /flow from the path", "STORAGE_PUBLIC_PREFIX=/flow")),
    (lambda asked: None, "/flow", ("proxy", "fail", "passes the prefix /flow on", "STORAGE_PUBLIC_PREFIX=/flow")),
    (another_path, "", ("proxy", "fail", "path changes on the way", "pass the path on unchanged")),
    (health_alone, "", ("proxy", "fail", "while health reaches a receiver", "not health alone")),
    (an_old_clock, "", ("clock", "fail", "more than STORAGE_CLOCK_SKEW", "timedatectl")),
    (lambda asked: (502, b"bad gateway"), "", ("proxy", "fail", "502", "STORAGE_BIND")),
    (lambda asked: (200, b"hello"), "", ("proxy", "fail", "not by a receiver", "under /api/storage/1")),
    (without_body_of_delete, "", ("roundtrip", "fail", "delete is answered with 400", "body of DELETE")),
    (small_bodies, "", ("roundtrip", "fail", "413", "client_max_body_size")),
    (no_delete, "", ("roundtrip", "fail", "405", "pass GET, POST and DELETE on")),
    (without_key_ids, "", ("roundtrip", "fail", "400", "X-ManyWho-")),
]


@pytest.mark.parametrize(("change", "path", "expected"), PROXIES, ids=[" ".join(one[2][2:3]) for one in PROXIES])
def test_a_proxy_in_front(running, change, path, expected):
    with proxy(running.url, change) as url:
        report = doctor("--roundtrip", "--url", url + path, **running.environ)
        report.one(*expected)
        assert report.code == (0 if expected[1] == "ok" else 1)
        if expected[1] == "ok":
            assert "save of " in report.one("roundtrip", "ok", f"through {url}").details[0]
        if path and "takes" in expected[2]:  # all else is tried in spite of it
            report.one("roundtrip", "ok")
    assert left_in_the_store(running) == []


def test_a_signature_that_gets_lost_on_the_way(running):
    with proxy(running.url, without_signature) as url:
        report = doctor("--roundtrip", "--url", url, **running.environ)
        report.one("roundtrip", "fail", "save is answered with 401", "X-ManyWho-... on")


@pytest.mark.parametrize(("path", "verdict"), [("/flow", "ok"), ("", "fail"), ("/other", "fail")])
def test_a_prefix_that_the_receiver_knows(tmp_path, path, verdict):
    with serving(tmp_path, STORAGE_PUBLIC_PREFIX="/flow") as running, proxy(running.url, strips(path or "-")) as url:
        report = doctor("--roundtrip", "--url", url + path, **running.environ)
        found = report.one("proxy", verdict)
        assert {"/flow": "", "": "unset STORAGE_PUBLIC_PREFIX", "/other": "STORAGE_PUBLIC_PREFIX=/other"}[
            path
        ] in found.fix
        report.one("roundtrip", "ok")


def test_a_public_address_with_tls_is_verified(tmp_path, running):
    from tests.proxies import tls_proxy

    with tls_proxy(running.url, "", tmp_path) as url:
        report = doctor("--url", url, **running.environ)
        report.one("proxy", "fail", "certificate", "--ca FILE")
        words = ("--ca", "authority.pem", "--client-cert", "client.pem", "--client-key", "client.key")
        report = doctor("--roundtrip", "--url", url, *words, cwd=tmp_path, **running.environ)
        assert report.of("proxy", "fail") == []
        report.one("roundtrip", "ok")
    report = doctor("--url", url, **running.environ)
    report.one("proxy", "fail", "cannot be reached", "curl -v")


@pytest.mark.parametrize(
    "words", [("--url", "ftp://x"), ("--pid", "0"), ("--tenant", "x"), ("--client-key", "setup.cfg")]
)
def test_wrong_words(words):
    assert receiver("doctor", *words).returncode == 2


# Never a traceback


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A function that runs the doctor in this process, with nothing but what it is given; returns its Report."""
    for name in list(os.environ):
        if name.startswith(("STORAGE_", "DATABASE_", "JDBC_", "PORT", "PLATFORM_KEY", "RECEIVER_KEY")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORAGE_RUN_DIR", str(tmp_path))
    former = signal.getsignal(signal.SIGTERM)

    def run(environ, *words):
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            result = CliRunner().invoke(cli, ["doctor", "--json", *words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        report = Report(result.exit_code, result.stdout)
        assert not [one for one in report.found if "defect of the doctor" in one.message], report.found
        assert all(one.fix or one.verdict == "ok" for one in report.found)
        text = click.unstyle(findings.as_text(report.found))
        assert text.isascii()
        assert text.replace("\n", "").isprintable()
        assert report.code == int(report.summary["counts"]["fail"] > 0)
        return report

    yield run
    signal.signal(signal.SIGTERM, former)


def _files(folder):
    """Make what broken environments name: files and folders of every wrong kind."""
    (folder / "empty").write_text("")
    (folder / "text").write_text("nothing that anybody would understand")
    (folder / "bytes").write_bytes(os.urandom(9000))
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    authority.write(folder)
    (folder / "wrongkeys").mkdir()
    for number, text in enumerate(("", "{}", "[]", '{"kty": "EC"}', "\ud800", '{"kid": 5}', "{" * 9000)):
        (folder / "wrongkeys" / f"platform-{uuid.UUID(int=number)}.json").write_text(text, errors="surrogatepass")
    put(folder / "keys", new_store())


VALUES = (
    *("", "0", "-1", "x", "\x1b[31m", "\udcff", "x" * 5000, "127.0.0.1:1", "unix:/nowhere/s", "a\nb", "{}"),
    *(
        "empty",
        "text",
        "bytes",
        "folder",
        "loop",
        "dangling",
        "pipe",
        "/proc/self/mem",
        "/root/none",
        "wrongkeys",
        "server.pem",
    ),
    *("sqlite:///text", "sqlite:///folder", "sqlite:///pipe", "sqlite:///loop", "sqlite:///bytes", "sqlite:///empty"),
    *("file:///proc", "file:///dev/null", "sqlite:////proc/x/y.db", "sqlite:///no/where/at.all", "jdbc:sqlite:x"),
    *("postgresql://u:p@127.0.0.1:1/d", "mysql://127.0.0.1:1/d", "sqlserver://127.0.0.1:1/d", "postgresql://[::1/d"),
    *('{"kty": "EC", "crv": "P-384", "kid": "x"}', "off", "warn", "1e999", "0.0.0.0/0", "/flow/..", "٣"),
)
NAMES = (
    *(
        "DATABASE_URL",
        "JDBC_DATABASE_URL",
        "DATABASE_PASSWORD",
        "PORT",
        "STORAGE_BIND",
        "STORAGE_KEYS",
        "STORAGE_TLS_CERT",
    ),
    *("STORAGE_TLS_KEY", "STORAGE_TLS_CLIENT_CA", "STORAGE_SEALING_KEY", "STORAGE_KEY_PASSPHRASE", "PLATFORM_KEY"),
    *(
        "RECEIVER_KEY",
        "PLATFORM_KEY_x",
        "STORAGE_RUN_DIR",
        "STORAGE_ADMIN_BIND",
        "STORAGE_ALLOW_FROM",
        "STORAGE_TENANTS",
    ),
    *("STORAGE_PUBLIC_PREFIX", "STORAGE_MIN_FREE", "STORAGE_WORKERS", "STORAGE_NONSENSE", "CREDENTIALS_DIRECTORY"),
    *(
        "RUNTIME_DIRECTORY",
        f"STORAGE_TENANT_{uuid.UUID(int=9)}",
        f"STORAGE_REGION_{uuid.UUID(int=9)}",
        "STORAGE_INSECURE_KEYS",
    ),
)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_one_setting_holds_the_doctor_goes_on(broken, tmp_path, name):
    _files(tmp_path)
    chance = random.Random(name)
    for value in chance.sample(VALUES, 15):
        broken({name: value, "STORAGE_STORE_TIMEOUT": "1"})
    for value in chance.sample(VALUES, 3):
        broken({f"{name}_FILE": value})


@pytest.mark.parametrize("seed", range(4))
def test_whatever_many_settings_hold_the_doctor_goes_on(broken, tmp_path, seed):
    _files(tmp_path)
    chance = random.Random(seed)
    for _ in range(25):
        environ = {name: chance.choice(VALUES) for name in chance.sample(NAMES, chance.randrange(2, 9))}
        words = ["--roundtrip", "--url", "http://127.0.0.1:1/x"] if chance.random() < 0.3 else []
        broken({"STORAGE_STORE_TIMEOUT": "1", **environ}, *words)


def test_whatever_breaks_around_it_the_doctor_goes_on(broken, tmp_path, monkeypatch):
    put(tmp_path / "keys", new_store())
    for module, name in (
        (stores, "open_store"),
        (keyring, "load"),
        (subject, "read"),
        (machine.os, "statvfs"),
        (service, "ask"),
    ):
        for fault in (
            PermissionError(13, "no"),
            Problem("gone"),
            ValueError("secret"),
            RecursionError(),
            OSError(5, "io", "x"),
        ):

            def fail(*_args, fault=fault, **_more):
                raise fault

            with monkeypatch.context() as patch:
                patch.setattr(module, name, fail)
                result = CliRunner().invoke(cli, ["doctor", "--json"])
            assert isinstance(result.exception, SystemExit | None), (name, fault, result.exc_info)
            assert "secret" not in result.output
            json.loads(result.stdout)


def test_a_check_with_a_defect_is_told_by_its_place_and_the_others_are_done(broken, monkeypatch):
    monkeypatch.setattr(keys, "check", lambda *_: 1 / 0)
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    report = Report(result.exit_code, result.stdout)
    report.one("keys", "fail", "a defect of the doctor: ZeroDivisionError at test_doctor.py:", "report it")
    assert {"settings", "store", "disk", "versions"} <= {one.topic for one in report.found}
