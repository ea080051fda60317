"""The doctor's round trip: a state through a running receiver, without a trace."""

import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from receiver.mock_platform.client import Client
from receiver.mock_platform.keys import new_store
from tests.support.commands import receiver
from tests.support.doctoring import doctor, left_of_trials, service_of, serving, until
from tests.support.key_files import put
from tests.support.serving import Writer

pytestmark = pytest.mark.slow


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
        report.one("store", "fail", f"of tenant {tenant}", "own.db-marker says that the store", "was here: put it back")


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
