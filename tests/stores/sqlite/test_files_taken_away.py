"""A running receiver whose SQLite files are removed or replaced: what it acknowledged is not lost, whatever follows."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
import uuid

import click
import pytest

from receiver.mock_platform.client import Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.stores import open_store
from tests.support.serving import children_of, environment_of, serving
from tests.support.waiting import until

pytestmark = pytest.mark.slow

FIRST = 40  # states before the fault


def _replace(path, bytes_of=None):
    """Put a new file at ``path``, with the same content or with ``bytes_of``."""
    beside = f"{path}.new"
    if bytes_of is None:
        shutil.copyfile(path, beside)
    else:
        with open(beside, "wb") as file:
            file.write(bytes_of)
    os.replace(beside, path)


def _swap_for_another_store(path):
    with contextlib.closing(open_store(f"sqlite:///{path}.other", 5)) as other:
        other.prepare()
    os.replace(f"{path}.other", path)


FAULTS = {
    "log removed": lambda path: os.unlink(f"{path}-wal"),
    "log replaced by a copy": lambda path: _replace(f"{path}-wal"),
    "log replaced by an older copy": lambda path: os.replace(f"{path}.older-wal", f"{path}-wal"),
    "log replaced by an empty file": lambda path: _replace(f"{path}-wal", b""),
    "log replaced by nonsense": lambda path: _replace(f"{path}-wal", os.urandom(100_000)),
    "index removed": lambda path: os.unlink(f"{path}-shm"),
    "index replaced by a copy": lambda path: _replace(f"{path}-shm"),
    "log and index removed": lambda path: [os.unlink(f"{path}-wal"), os.unlink(f"{path}-shm")],
    "file removed": os.unlink,
    "file moved": lambda path: os.rename(path, f"{path}.moved"),
    "file replaced by a copy": _replace,
    "file replaced by an older copy": lambda path: os.replace(f"{path}.older", path),
    "file replaced by another store": _swap_for_another_store,
}


class _Writer(threading.Thread):
    """Saves new states one after the other, and keeps those that were acknowledged."""

    def __init__(self, url, tenant, keys, seed, ends):
        super().__init__()
        self.client, self.flow, self.seed, self.ends = Client(url, tenant, keys), FlowRun(tenant, seed), seed, ends
        self.saved, self.statuses = {}, []

    def run(self):
        number = 0
        while not self.ends.is_set():
            self.save(number)
            number += 1

    def save(self, number):
        self.flow.step()
        state = self.flow.state() | {"id": str(uuid.UUID(int=(self.seed << 64) + number))}
        with contextlib.suppress(http.client.HTTPException, OSError):
            status = self.client.save(state).status
            self.statuses.append(status)
            if status == 204:
                self.saved[state["id"]] = state["content"]


def _readyz(admin):
    with contextlib.suppress(OSError), contextlib.closing(urllib.request.urlopen(f"{admin}/readyz")) as answer:
        return answer.status
    return 503


def _end(running, how):
    if how == "stopped":
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(35) == 0
        return
    every = children_of(running.process.pid)
    for pid in (running.process.pid, *every):
        os.kill(pid, signal.SIGKILL)
    running.process.wait()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in every), seconds=30)


def _restarted(keys, tenant, folder, saved):
    """Start again; return what is missing, or the log of a start that was refused with 78."""
    try:
        with (
            serving(keys, folder, STORAGE_WORKERS="2") as running,
            contextlib.closing(Client(running.url, tenant, keys)) as client,
        ):
            return [id for id, content in saved.items() if client.open(id, client.load(id)) != content]
    except click.ClickException:
        command = [sys.executable, "-m", "receiver", "serve"]
        environment = environment_of(keys, folder) | {"STORAGE_BIND": "127.0.0.1:0"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
        assert ran.returncode == 78, ran.stderr
        return ran.stderr


def _older_copies(path):
    for ending in ("", "-wal"):
        shutil.copyfile(f"{path}{ending}", f"{path}.older{ending}")


@pytest.mark.case("I08")
@pytest.mark.parametrize(("when", "end"), [("under load", "killed"), ("idle", "stopped")])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_acknowledged_before_a_file_was_taken_away_is_not_lost(keys, tenant, tmp_path, fault, when, end):
    path, ends, saved = f"{tmp_path}/states.db", threading.Event(), {}
    with serving(keys, tmp_path, STORAGE_WORKERS="2", STORAGE_ADMIN_BIND="127.0.0.1:0") as running:
        first = _Writer(running.url, tenant, keys, 1, ends)
        for number in range(FIRST):
            first.save(number)
            if number == FIRST // 2:
                _older_copies(path)
        assert _readyz(running.admin) == 200
        assert len(first.saved) == FIRST
        writers = (
            [_Writer(running.url, tenant, keys, seed, ends) for seed in range(2, 6)] if when == "under load" else []
        )
        for writer in writers:
            writer.start()
        until(lambda: all(len(writer.saved) > 5 for writer in writers))
        FAULTS[fault](path)
        assert until(lambda: _readyz(running.admin) == 503, 5, "readiness has not noticed")
        if writers:
            until(lambda: all(writer.statuses[-1] == 503 for writer in writers), 5, "saves are acknowledged")
        ends.set()
        for writer in (first, *writers):
            if writer.is_alive():
                writer.join()
            saved |= writer.saved
            writer.statuses.clear()
            writer.save(99_999)
            assert writer.statuses == [503]
        for _ in range(6):  # both workers
            assert first.client.load(next(iter(saved))).status == 503
            assert first.client.health().status == 503
        for writer in (first, *writers):
            writer.client.close()
        _end(running, end)
    log = (tmp_path / "log").read_text()
    assert re.search("stop every process", log)
    found = _restarted(keys, tenant, tmp_path, saved)
    if not isinstance(found, list):
        assert len(saved) >= FIRST
        place = re.search(r"is in (\S+\.rescued-\d+|\S+\.moved)", found + log)
        assert place, found
        with contextlib.closing(open_store(f"sqlite:///{place[1]}", 5)) as rescued:
            found = [id for id, content in saved.items() if rescued.find(tenant, id).content.text != content]
    assert found == []


@pytest.mark.case("I08")
@pytest.mark.parametrize("fault", ["log removed", "log replaced by an older copy", "index removed", "file removed"])
def test_a_receiver_that_is_stopped_before_it_was_asked_again_writes_out_what_the_log_held(
    keys, tenant, tmp_path, fault
):
    path = f"{tmp_path}/states.db"
    with serving(keys, tmp_path, STORAGE_WORKERS="2", STORAGE_ADMIN_BIND="127.0.0.1:0") as running:
        writer = _Writer(running.url, tenant, keys, 1, threading.Event())
        for number in range(FIRST):
            writer.save(number)
            if number == FIRST // 2:
                _older_copies(path)
        assert _readyz(running.admin) == 200  # so that the admin listener has the files open, too
        writer.client.close()
        FAULTS[fault](path)
        _end(running, "stopped")
    assert len(writer.saved) == FIRST
    found = _restarted(keys, tenant, tmp_path, writer.saved)
    if fault == "file removed":
        place = re.search(r"is in (\S+\.rescued-\d+)", found)
        with contextlib.closing(open_store(f"sqlite:///{place[1]}", 5)) as rescued:
            found = [id for id, content in writer.saved.items() if rescued.find(tenant, id).content.text != content]
    assert found == []


@pytest.mark.case("G10")
def test_a_bit_flipped_in_the_log_of_a_killed_receiver_ends_the_next_start_with_78(keys, tenant, tmp_path):
    log = tmp_path / "states.db-wal"
    with serving(keys, tmp_path, STORAGE_WORKERS="2") as running:
        writer = _Writer(running.url, tenant, keys, 1, threading.Event())
        for number in range(FIRST):
            writer.save(number)
        data = bytearray(log.read_bytes())
        data[len(data) // 2] ^= 4
        with open(log, "r+b") as file:
            file.write(data)
        writer.client.close()
        _end(running, "killed")
    found = _restarted(keys, tenant, tmp_path, writer.saved)
    assert re.search(r"commits \d+ to \d+ are missing, which were acknowledged", str(found)), found
    assert "receiver store accept" in found
