"""Folders of running receivers and keys of a trial in them: who may remove them, and when."""

import contextlib
import json
import os
import shutil
import signal
import time
import uuid

import pytest

from receiver.keys import keyring
from receiver.mock_platform.keys import new_store
from receiver.process.run_folder import RunFolder
from receiver.process.running import services
from receiver.secret import Secret
from receiver.settings import Settings
from tests.support.admin import counted, readyz, serving, value
from tests.support.serving import children_of
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def test_nothing_is_left_of_a_receiver_that_was_killed_when_the_next_one_is_there(keys, tmp_path):
    with serving(keys, tmp_path) as running:
        children = children_of(running.process.pid)
        running.process.kill()
        running.process.wait()
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), 10)
    with serving(keys, tmp_path, STORAGE_ADMIN_BIND=running.admin.removeprefix("http://")) as running:
        assert len(list(tmp_path.glob("receiver-*"))) == 1
        assert services(str(tmp_path))[0].pid == running.process.pid
    assert list(tmp_path.glob("receiver-*")) == []


def test_folders_of_receivers_that_run_are_left_alone_and_others_go(tmp_path):
    first = RunFolder(str(tmp_path))
    (tmp_path / "receiver-of-somebody").mkdir()
    (tmp_path / "receiver-dead").mkdir()
    (tmp_path / "receiver-dead" / "lock").touch()
    second = RunFolder(str(tmp_path))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {first.path.name, second.path.name, "receiver-of-somebody"}
    assert first.path.stat().st_mode & 0o777 == 0o700
    first.introduce(["http://127.0.0.1:1"], None)
    (found,) = services(str(tmp_path))
    assert (found.pid, found.addresses, found.admin, found.trial) == (
        os.getpid(),
        ["http://127.0.0.1:1"],
        None,
        first.path / "trial",
    )
    first.remove()
    assert services(str(tmp_path)) == []


def test_a_folder_that_is_taken_away_is_made_anew_and_nothing_ends(keys, platform_at, tmp_path):
    with serving(keys, tmp_path) as running:
        until(lambda: readyz(running)[0] == 200)
        (former,) = tmp_path.glob("receiver-*")
        shutil.rmtree(former)
        until(lambda: list(tmp_path.glob("receiver-*/service.json")))
        (folder,) = tmp_path.glob("receiver-*")
        assert folder.name != former.name
        for child in children_of(running.process.pid):
            os.kill(child, signal.SIGKILL)

        def counts():
            with contextlib.suppress(OSError):
                return value(counted(running), "receiver_requests_total", call="health", status="200") == 1

        until(lambda: len(children_of(running.process.pid)) == 3)
        assert platform_at(running.url).health().status == 200
        until(counts)
        assert services(str(tmp_path))[0].pid == running.process.pid
        assert folder.stat().st_mode & 0o777 == 0o700
    assert running.process.returncode == 0
    assert list(tmp_path.glob("receiver-*")) == []


def test_keys_of_a_trial_that_was_left_behind_go(tmp_path):
    folder = RunFolder(str(tmp_path))
    assert folder.end_trials() is False
    left = folder.trial / "t"
    left.mkdir()
    (left / "receiver.json").touch()
    assert folder.end_trials() is False
    os.utime(left, (1, 1))
    assert folder.end_trials() is True
    assert list(folder.trial.iterdir()) == []
    (folder.trial / "no folder").touch()
    os.utime(folder.trial / "no folder", (1, 1))
    assert folder.end_trials() is False  # what cannot be taken away is no reason to read all keys each second


def test_keys_of_a_trial_never_stand_for_others_nor_in_the_way_of_others_and_end_by_themselves(
    keys, foreign_keys, tenant, monkeypatch, tmp_path
):
    folder = tmp_path / "trial" / tenant
    folder.mkdir(parents=True)
    for role, text in (
        ("platform", json.dumps(foreign_keys.platform.public())),
        ("receiver", json.dumps(foreign_keys.receiver.private())),
    ):
        path = folder / f"{role}-{getattr(foreign_keys, role).kid}.json"
        path.write_text(text)
        path.chmod(0o600)
    (folder / f"platform-{keys.platform.kid}.json").write_text(json.dumps(keys.platform.public()))
    (folder / f"platform-{uuid.uuid4()}.json").write_text("half a ke")
    (folder.parent / "platform-for-anybody.json").write_text(json.dumps(new_store().platform.public()))
    texts = {"PLATFORM_KEY": keys.platform.public(), "RECEIVER_KEY": keys.receiver.private()}
    settings = Settings(
        keys=tmp_path / "none", key_texts={name: Secret(json.dumps(text)) for name, text in texts.items()}
    )
    (tmp_path / "none").mkdir()
    ring, mistakes = keyring.load(settings, tmp_path / "trial")
    assert mistakes == []
    assert ring.tried == {foreign_keys.platform.kid, foreign_keys.receiver.kid}
    assert ring.find("platform", foreign_keys.platform.kid, tenant)
    assert ring.find("platform", foreign_keys.platform.kid, str(uuid.uuid4())) is None
    assert ring.find("platform", keys.platform.kid, str(uuid.uuid4())).source == "PLATFORM_KEY"
    assert len(list(ring)) == 4
    now = time.monotonic()
    monkeypatch.setattr("receiver.keys.keyring.time.monotonic", lambda: now + 121)
    assert ring.find("platform", foreign_keys.platform.kid, tenant) is None
    assert ring.find("platform", keys.platform.kid, tenant)
