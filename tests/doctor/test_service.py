"""The doctor on receivers that run: which one it takes, and what differs from the settings at hand."""

import os
import time
import uuid
from urllib.parse import urlsplit

import pytest

from receiver.doctor import impersonation, subject
from receiver.doctor.checks import service
from receiver.doctor.subject import Subject
from receiver.keys import keyring
from receiver.mock_platform.keys import new_store
from receiver.process.run_folder import RunFolder
from receiver.process.running import base_of, services
from receiver.settings import read
from tests.support import certificates as authority
from tests.support.commands import receiver
from tests.support.doctoring import doctor, reported, seal, serving
from tests.support.key_files import put
from tests.support.waiting import pass_time

pytestmark = pytest.mark.slow


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
        report.one(
            "store", "fail", "states.db-marker says that the store", "was here: put it back", "receiver store accept"
        )
        (tmp_path / "states.db-marker").rename(tmp_path / "marker aside")
        doctor(**running.environ).one("store", "fail", "there is none yet, and a receiver runs", "put the store back")
        (tmp_path / "marker aside").rename(tmp_path / "states.db-marker")
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
    monkeypatch.setattr(service.AdminClient, "get", lambda *_: (200, text.encode()))
    monkeypatch.setattr(service.AdminClient, "get_json", lambda *_: (200, {"status": "draining", "checks": {}}))
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
        pass_time(0.1, "the time of the file is later than the start")
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
