"""The folder of a running receiver: nothing is believed because of its name, and nothing in one holds who looks in."""

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest

from receiver.doctor.trial import trial
from receiver.mock_platform.client import Client
from receiver.mock_platform.keys import new_store
from receiver.process import running as running_receivers
from receiver.process.run_folder import RunFolder
from receiver.process.running import services
from tests.support import certificates
from tests.support.doctoring import service_of, serving
from tests.support.key_files import put
from tests.support.waiting import until

pytestmark = pytest.mark.slow

NOBODY = 65534
SELF = {"pid": os.getpid(), "addresses": ["http://127.0.0.1:1"], "admin": None, "started": 1.0}


def remake(path, tenant=None, made=None, owner=None):
    """Take the folder ``path`` away, and make one of that name as another user would, perhaps with keys ``made``."""
    until(
        lambda: shutil.rmtree(path, ignore_errors=True) or not path.exists()
    )  # a worker may just begin to count there
    for folder in (path, path / "trial", path / "metrics"):
        folder.mkdir(mode=0o700)
    (path / "lock").touch()
    shutil.copy(__file__, path / "service.json")
    if made:
        put(path / "trial" / tenant, made)
    if owner is not None:
        for one in (path, *path.rglob("*")):
            os.chown(one, owner, owner)


def status_of(url, tenant, made):
    with contextlib.closing(Client(url, tenant, made)) as client:
        return client.load(str(uuid.uuid4())).status


@pytest.mark.case("I04")
@pytest.mark.parametrize("owner", [None, NOBODY])
def test_keys_for_a_trial_in_a_folder_that_was_remade_open_nothing(tmp_path, tenant, owner):
    if owner and os.geteuid():
        pytest.skip("only root can act for another user")
    stranger, marker = new_store(), new_store()
    with serving(tmp_path, STORAGE_WORKERS="1") as running:
        former = service_of(running).path
        remake(former, tenant, stranger, owner)
        put(tmp_path / "keys", marker)
        os.kill(running.process.pid, signal.SIGHUP)
        until(lambda: status_of(running.url, tenant, marker) == 404)  # its keys have been read again
        assert status_of(running.url, tenant, stranger) == 401
        until(lambda: service_of(running).path != former)
        assert (former / "trial" / tenant).is_dir()  # what is not ours stays as it is
        os.kill(running.process.pid, signal.SIGHUP)
        assert [status_of(running.url, tenant, stranger) for _ in range(5)] == [401] * 5
        found = service_of(running)
        put(found.trial / tenant, stranger)
        os.kill(running.process.pid, signal.SIGHUP)
        until(lambda: status_of(running.url, tenant, stranger) == 404)  # the new folder is the one that is looked into
        shutil.rmtree(found.path)
        until(lambda: status_of(running.url, tenant, stranger) == 401)  # and with it its keys go
    assert former.is_dir() and list(tmp_path.glob("receiver-*")) == [former]


def test_what_a_receiver_removes_is_what_it_made(tmp_path):
    here = RunFolder(str(tmp_path))
    name, aside = here.path, tmp_path / "aside"
    name.rename(aside)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    name.symlink_to(tmp_path / "other")
    here.remove()
    assert (tmp_path / "other" / "precious").exists() and name.is_symlink()
    assert list(aside.iterdir()) == []


def test_a_leftover_is_removed_and_nothing_that_it_links_to(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "lock").touch()
    (tmp_path / "receiver-link").symlink_to(tmp_path / "precious")
    dead = tmp_path / "receiver-dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "trial").symlink_to(tmp_path / "precious")
    RunFolder(str(tmp_path)).remove()
    assert not dead.exists()
    assert (tmp_path / "precious" / "lock").exists()


@pytest.mark.parametrize("change", ["mode", "trial", "metrics", "service.json", "lock"])
def test_a_folder_that_is_not_as_it_was_made_is_made_anew(tmp_path, change):
    here = RunFolder(str(tmp_path))
    here.introduce(["http://127.0.0.1:1"], None)
    assert here.restore() is False
    former = here.path
    if change == "mode":
        former.chmod(0o777)
    elif (former / change).is_dir():
        (former / change).rmdir()
    else:
        (former / change).unlink()
    assert here.restore() is True
    assert here.path != former and not former.exists()
    assert here.restore() is False
    assert [one.path for one in services(str(tmp_path))] == [here.path]
    here.remove()


def test_where_there_is_no_room_for_a_new_folder_nothing_is_left_of_it(tmp_path, monkeypatch):
    here = RunFolder(str(tmp_path))
    shutil.rmtree(here.path)

    def full(*_, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(OSError):
            here.restore()
    assert list(tmp_path.iterdir()) == []
    assert here.restore() is True
    here.remove()


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def writing(text):
    return lambda path: path.write_text(text if isinstance(text, str) else json.dumps(text))


STRANGE = {
    "pipe": pipe,
    "endless": endless,
    "folder": lambda path: path.mkdir(),
    "deep": writing("[" * 200_000),
    "deep and small": writing("[" * 60_000),
    "large": writing(SELF | {"admin": "x" * (1 << 20)}),
    "binary": lambda path: path.write_bytes(b"\xff\xfe"),
    "empty": writing(""),
    "list": writing([]),
    "more": writing(SELF | {"more": 1}),
    "less": writing({"pid": os.getpid()}),
    "pid text": writing(SELF | {"pid": str(os.getpid())}),
    "pid true": writing(SELF | {"pid": True}),
    "pid all": writing(SELF | {"pid": -1}),
    "pid large": writing(SELF | {"pid": 1 << 70}),
    "address number": writing(SELF | {"addresses": [1]}),
    "address text": writing(SELF | {"addresses": "http://127.0.0.1:1"}),
    "address escape": writing(SELF | {"addresses": ["http://\x1b]0;x\x07"]}),
    "admin list": writing(SELF | {"admin": []}),
    "started text": writing(SELF | {"started": "now"}),
    "started endless": writing('{"pid": 1, "addresses": ["a"], "admin": null, "started": 1e999}'),
    "twice": writing(json.dumps(SELF)[:-1] + ', "pid": 1}'),
}


@pytest.mark.case("I04")
@pytest.mark.parametrize("name", STRANGE)
def test_what_stands_in_a_strange_folder_is_nothing_and_holds_nobody(tmp_path, name):
    here = RunFolder(str(tmp_path))
    here.introduce(["http://127.0.0.1:1"], None)
    assert len(services(str(tmp_path))) == 1
    (here.path / "service.json").unlink()
    STRANGE[name](here.path / "service.json")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}
    environ |= {"STORAGE_RUN_DIR": str(tmp_path), "STORAGE_ADMIN_BIND": "127.0.0.1:0"}
    outside = {"env": environ, "cwd": tmp_path, "capture_output": True, "text": True}  # of the keys of make run
    began = time.monotonic()
    for words in (("health",), ("doctor", "--json")):
        ran = subprocess.run([sys.executable, "-m", "receiver", *words], **outside, timeout=20, check=False)
        assert ran.returncode == 1 and "Traceback" not in ran.stderr and "defect" not in ran.stdout
    assert time.monotonic() - began < 15
    assert services(str(tmp_path)) == []
    here.remove()


@pytest.mark.parametrize("make", [pipe, endless, lambda path: path.mkdir()])
def test_a_lock_that_is_no_file_holds_nobody(tmp_path, make):
    folder = tmp_path / "receiver-strange"
    folder.mkdir(mode=0o700)
    make(folder / "lock")
    (folder / "service.json").write_text(json.dumps(SELF))
    code = f"from receiver.process.run_folder import *; from receiver.process.running import *; assert services({str(tmp_path)!r}) == []; RunFolder({str(tmp_path)!r})"
    ran = subprocess.run([sys.executable, "-c", code], timeout=20, check=False)
    assert ran.returncode == 0
    assert folder.is_dir()


def test_another_users_process_is_no_receiver_of_this_folders_owner(tmp_path, monkeypatch):
    here = RunFolder(str(tmp_path))
    here.introduce(["http://127.0.0.1:1"], None)
    (service,) = services(str(tmp_path))
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("it was signalled"))
    monkeypatch.setattr(running_receivers, "is_run_by", lambda pid, owner: False)
    assert services(str(tmp_path)) == []
    with pytest.raises(ProcessLookupError):
        service.signal(signal.SIGHUP)
    here.remove()


def test_who_runs_a_process_is_told_by_all_its_ids():
    assert running_receivers.is_run_by(os.getpid(), os.getuid())
    assert not running_receivers.is_run_by(os.getpid(), os.getuid() + 1)
    assert not running_receivers.is_run_by(1 << 30, os.getuid())


def test_keys_for_a_trial_go_into_no_folder_but_the_one_that_was_found(tmp_path, tenant):
    here = RunFolder(str(tmp_path))
    here.introduce(["http://127.0.0.1:1"], None)
    (service,) = services(str(tmp_path))
    remake(here.path)
    with pytest.raises(OSError), trial(service, tenant, new_store()):
        pytest.fail("the keys were written")
    assert list((here.path / "trial").iterdir()) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000,
        b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"checks": {"a":1',
        b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"checks":{"a":1}}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (17 << 20),
    ],
    ids=["deep", "cut", "types", "list", "large"],
)
def test_health_believes_nothing_that_is_no_receivers_answer(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        environ = {"PATH": os.environ["PATH"], "STORAGE_ADMIN_BIND": address}
        command = [sys.executable, "-m", "receiver", "health"]
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
        thread.join()
    assert (ran.returncode, "no receiver's admin listener" in ran.stderr) == (1, True), ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("make", [pipe, endless, writing("[" * 60_000)])
def test_files_of_keys_that_are_none_hold_no_command(tmp_path, make):
    for name in (f"mock-platform-{uuid.uuid4()}.json", f"receiver-{uuid.uuid4()}.json"):
        make(tmp_path / name)
    key = str(next(tmp_path.glob("mock-*")))
    for words in (
        ("conformance", "--url", "http://127.0.0.1:1", "--keys", str(tmp_path)),
        ("conformance", "--url", "http://127.0.0.1:1", "--platform-key", key, "--receiver-key", key),
        ("platform", "serve", "--keys", str(tmp_path)),
        ("keys", "check"),
    ):
        command = [sys.executable, "-m", "receiver", *words]
        environ = {"PATH": os.environ["PATH"], "STORAGE_KEYS": str(tmp_path)}
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False)
        assert ran.returncode and "Traceback" not in ran.stderr, ran.stderr


@pytest.mark.parametrize("name", ["STORAGE_TLS_CERT", "STORAGE_TLS_KEY", "STORAGE_TLS_CLIENT_CA"])
def test_a_pipe_in_the_place_of_a_file_for_tls_stops_the_start_at_once(tmp_path, name):
    variables = certificates.write(tmp_path) | {"STORAGE_TLS_CLIENT_CA": str(tmp_path / "server.pem")}
    os.mkfifo(tmp_path / "pipe")
    environ = {
        "PATH": os.environ["PATH"],
        "STORAGE_KEYS": str(tmp_path / "keys"),
        **variables,
        name: f"{tmp_path}/pipe",
    }
    for words in (("config",), ("doctor",)):
        command = [sys.executable, "-m", "receiver", *words]
        ran = subprocess.run(
            command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
        )
        assert ran.returncode and "Traceback" not in ran.stderr
        assert name in ran.stdout + ran.stderr
