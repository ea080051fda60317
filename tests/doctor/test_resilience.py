"""The doctor never falls over: wrong words, any settings, anything broken around it."""

import json
import os
import random
import signal
import uuid

import click
import pytest
from click.testing import CliRunner

from receiver.commands import cli
from receiver.doctor import findings, impersonation, subject
from receiver.doctor.checks import keys, machine, service, stores
from receiver.keys import keyring
from receiver.mock_platform.keys import new_store
from receiver.problems import Problem
from tests.support import certificates as authority
from tests.support.commands import receiver
from tests.support.doctoring import Report
from tests.support.key_files import put

pytestmark = pytest.mark.slow


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
    # A receiver that another test runs as another user may be found: this process must stay who it is.
    monkeypatch.setattr(impersonation, "become", lambda _user: None)
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
        (service.AdminClient, "get_json"),
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
    report.one("keys", "fail", "a defect of the doctor: ZeroDivisionError at test_resilience.py:", "report it")
    assert {"settings", "store", "disk", "versions"} <= {one.topic for one in report.found}
