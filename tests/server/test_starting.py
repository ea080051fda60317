"""What a start says when something is in its way: a database that is down, root, files that root left behind."""

import contextlib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from receiver import files, settings
from receiver.doctor.checks import stores as doctor_stores
from receiver.doctor.subject import Subject
from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.settings import Settings
from receiver.stores import open_store
from receiver.stores.filesystem.durable import file_errors
from receiver.stores.urls import store_url
from tests.support.commands import receiver
from tests.support.serving import environment_of, serving
from tests.support.waiting import until

pytestmark = pytest.mark.slow

NOBODY = 65534
NAME = pwd.getpwuid(NOBODY).pw_name
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can leave files behind")


@contextlib.contextmanager
def started(keys, folder, **environment):
    """Run ``receiver serve``; yields functions that return its log and what it printed so far."""
    with open(folder / "log", "w") as log, open(folder / "printed", "w") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", "serve"],
            env=environment_of(keys, folder, **{"STORAGE_BIND": "127.0.0.1:0", **environment}),
            stdout=printed,
            stderr=log,
        )
        try:
            yield (folder / "log").read_text, (folder / "printed").read_text
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def silent():
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_database_that_is_down_is_named_at_once_and_the_banner_says_so(keys, tmp_path, silent, scheme):
    url = f"{scheme}://u:hunter2@{silent}/d"
    began = time.monotonic()
    with started(keys, tmp_path, DATABASE_URL=url, STORAGE_STORE_TIMEOUT="6") as (log, printed):
        until(lambda: "WARNING waiting for the store of DATABASE_URL" in log())
        assert time.monotonic() - began < 5.5, "said before the wait is over"
        assert f"{silent}, database d), up to 6 seconds" in log()
        assert printed() == ""
        until(lambda: "receiver doctor" in printed())
        assert "External Storage receiver: NOT READY, waiting for its store" in printed()
        assert re.search(rf"The store of DATABASE_URL does not answer: .*, {silent}, database d\.", printed())
        assert "Try next" not in printed()
        assert "the store of DATABASE_URL is not ready, calls get 503 until it is: " in log()
    assert "hunter2" not in log() + printed()


def test_the_same_in_json(keys, tmp_path, silent):
    more = {"DATABASE_URL": f"postgresql://u@{silent}/d", "STORAGE_STORE_TIMEOUT": "1", "STORAGE_LOG_FORMAT": "json"}
    with started(keys, tmp_path, **more) as (log, _):
        until(lambda: '"message":"listening"' in log())
    (line,) = [json.loads(line) for line in log().splitlines() if '"message":"listening"' in line]
    assert line["waits_for"] == ["DATABASE_URL"]


def test_a_store_that_is_there_is_not_waited_for(keys, tmp_path):
    with started(keys, tmp_path) as (log, printed):
        until(lambda: "Try next" in printed())
        assert "NOT READY" not in printed()
        assert "waiting for the store" not in log()


@as_root
def test_root_is_warned(keys, tmp_path):
    with started(keys, tmp_path) as (log, printed):
        until(lambda: "Try next" in printed())
        assert re.search(r" WARNING runs as root, .*User=receiver", log())


def test_where_all_addresses_listen_the_banner_names_one_that_can_be_called(keys, tmp_path):
    with started(keys, tmp_path, PORT="0", STORAGE_BIND="") as (_, printed):
        until(lambda: "Try next" in printed())
        assert re.search(r"curl http://127\.0\.0\.1:\d+/api/storage/1/health", printed())


def test_what_is_not_ascii_in_messages_is_printed_as_it_is():
    region = f"STORAGE_REGION_{'0' * 8}-0000-4000-8000-{'0' * 12}"
    for name, value, told in (
        ("DATABASE_URL", "oracle://x", "postgresql://…"),
        (region, "x", "no STORAGE_TENANT_… does"),
    ):
        for command in ("config", "serve"):
            ran = receiver(command, **{name: value})
            assert told in ran.stderr
            assert "\\u" not in ran.stderr
    ran = receiver("doctor", DATABASE_URL="oracle://x")
    assert "postgresql://..." in ran.stdout  # all that the doctor prints is plain ASCII
    assert "\\u" not in ran.stdout


# Files that root left behind


def said_by_nobody(function) -> str:
    """Return what ``function`` returns in a process of the user nobody."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writing, str(function()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


@pytest.fixture
def left():
    """A folder that root made, in one that everybody may look at."""
    outer = Path("/var/tmp") / f"rcv-{os.getpid()}"  # pytest's own is closed to others
    outer.mkdir(mode=0o755)
    (outer / "left").mkdir(mode=0o755)
    yield outer / "left"
    shutil.rmtree(outer)


def why(url, exception=StoreMisplaced):
    try:
        open_store(store_url.parse(url), 1).prepare()
    except exception as problem:
        return problem.cause
    return "nothing"


def a_store_of_root(url, folder):
    store = open_store(store_url.parse(url), 1)
    store.prepare()
    store.close()
    os.chown(folder, NOBODY, NOBODY)


@as_root
@pytest.mark.parametrize(
    "url", ["sqlite:///{}/states.db", "file://{}", "file://{}/states", "sqlite:///{}/var/states.db"]
)
def test_the_folder_of_a_store_that_is_roots_is_told_with_the_command_that_helps(left, url):
    said = said_by_nobody(lambda: why(url.format(left)))
    assert said.endswith(f"; it is root's, as root: chown -R {NAME} {left}")


@as_root
@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_a_file_of_sqlite_that_is_roots(left, ending):
    path = f"{left}/states.db"
    a_store_of_root(f"sqlite:///{path}", left)
    for name in os.listdir(left):
        os.chown(left / name, NOBODY, NOBODY)
    Path(path + ending).touch(mode=0o600)
    os.chown(path + ending, 0, 0)
    os.chmod(path + ending, 0o600)
    assert f"as root: chown {NAME} {path}{ending}" in said_by_nobody(lambda: why(f"sqlite:///{path}"))


@as_root
def test_a_file_in_the_store_of_files_that_is_roots(left):
    a_store_of_root(f"file://{left}", left)
    said = said_by_nobody(lambda: why(f"file://{left}", StoreUnavailable))
    assert re.search(rf"as root: chown {NAME} {left}\.marker$", said)
    os.chown(f"{left}.marker", NOBODY, NOBODY)
    said = said_by_nobody(lambda: why(f"file://{left}", StoreUnavailable))
    assert re.search(rf"as root: chown {NAME} {left}/\S+$", said)
    (left / "closed").mkdir(mode=0o700)

    def touched():
        try:
            with file_errors():
                os.open(f"{left}/closed/x", os.O_RDONLY)
        except StoreUnavailable as problem:
            return problem.cause

    assert said_by_nobody(touched).endswith(f"as root: chown -R {NAME} {left}/closed")


@as_root
def test_a_folder_of_keys_or_for_running_that_is_roots(left):
    def mistakes():
        return settings.read({"STORAGE_RUN_DIR": str(left), "STORAGE_BIND": f"unix:{left}/s"})[1]

    said = said_by_nobody(mistakes)
    assert said.count(f"as root: chown -R {NAME} {left}") == 2
    (left / "key").touch(mode=0o600)
    said = said_by_nobody(lambda: settings.read({"RECEIVER_KEY_FILE": f"{left}/key"})[1])
    assert f"cannot be read (Permission denied); it is root's, as root: chown {NAME} {left}/key" in said


@as_root
@pytest.mark.parametrize("path", ["/", "/var/lib", "/etc", "/run", "/dev/shm"])
def test_nobody_is_told_to_take_a_folder_of_the_system(path):
    assert said_by_nobody(lambda: files.ownership(path)) == ""


def test_a_file_of_ones_own_or_none_has_no_such_command(tmp_path):
    assert files.ownership(tmp_path) == files.ownership(tmp_path / "missing") == files.ownership("\0") == ""


# A store that is taken away while it is served


@pytest.mark.parametrize("url", ["sqlite:///var/receiver.db", "file://{}/var"])
def test_the_doctors_first_advice_for_a_store_that_was_removed_works(keys, tmp_path, platform_at, state, url):
    url = url.format(tmp_path)
    if url.startswith("sqlite"):
        url = f"sqlite:///{tmp_path}/var/receiver.db"

    def first_advice(running):
        looked_at = Subject(
            Settings(database_url=settings.read({"DATABASE_URL": url})[0].database_url), service=running
        )
        found = list(doctor_stores.check(looked_at, doctor_stores.examine(looked_at.settings, looked_at.ring)))
        return next(one.fix for one in found if one.verdict == "fail")

    with serving(keys, tmp_path, DATABASE_URL=url) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        (tmp_path / "var").rename(tmp_path / "aside")
        assert client.health().status == 503
        # A file's marker is in the folder that went with it.
        by_marker = r"mount its volume, or restore a backup and run: receiver store accept"
        by_service = r"put the store back \(.*\), or, for an empty one, stop the receiver and start it again"
        assert re.match(by_marker if url.startswith("file") else by_service, first_advice(running))
        (tmp_path / "aside").rename(tmp_path / "var")  # the one half of it
        assert until(lambda: client.load(state["id"]).status == 200)
        shutil.rmtree(tmp_path / "var")
        assert client.health().status == 503
        (tmp_path / "var").mkdir(mode=0o700)  # what it said before
        assert client.health().status == 503
        client.close()
    shutil.rmtree(tmp_path / "var")  # with what the running receiver still held of SQLite's file, and wrote there
    if url.startswith("file"):
        open_store(url, 5).init()
    with serving(keys, tmp_path, DATABASE_URL=url) as running:  # the other half
        assert platform_at(running.url).save(state).status == 204
