"""What a power cut, or a kill before it, leaves of SQLite's files: each start goes on with it."""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest

from receiver.stores import open_store
from tests.chaos.shim import Rule, Shim
from tests.support.paths import ROOT
from tests.support.servers import needed
from tests.support.states import TENANT, a_receipt, a_state, uid
from tests.support.waiting import until

_SAVE = """
import os, sys
from receiver.stores import open_store
from tests.support.states import TENANT, a_receipt, a_state
store = open_store(sys.argv[1], 5)
store.save(TENANT, [a_state(1)], a_receipt())
os._exit(0)
"""


def save_and_end(path, **environment) -> subprocess.Popen:
    """Save a state in a process that ends without closing the store."""
    command = [sys.executable, "-c", _SAVE, f"sqlite:///{path}"]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment)


def test_a_first_start_that_was_cut_off_is_done_again(tmp_path):
    needed("gcc")
    (tmp_path / "disk").mkdir()
    path, shim = tmp_path / "disk" / "states.db", Shim(tmp_path / "disk", tmp_path, records=False)
    shim.inject(0, Rule(("unlink",), "freeze", match="-journal$"))
    running = save_and_end(path, **shim.environment())
    until(lambda: shim.hits(0))
    running.kill()
    running.wait()
    assert (tmp_path / "disk" / "states.db-journal").exists()
    with contextlib.closing(open_store(f"sqlite:///{path}", 5)) as store:
        store.prepare()
        assert store.find(TENANT, uid(1)) is None


def test_what_a_killed_process_left_in_the_log_is_durable_before_it_is_seen(tmp_path, monkeypatch):
    path, synced, real = tmp_path / "states.db", [], os.fsync
    assert save_and_end(path).wait() == 0
    assert os.path.getsize(f"{path}-wal")
    reader = open_store(f"sqlite:///{path}", 5)._file.connect()  # else the first to close would do a checkpoint
    reader.execute("select count(*) from states").fetchone()
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd))[1])
    with contextlib.closing(open_store(f"sqlite:///{path}", 5)) as store:
        assert store.was_done(TENANT, a_receipt())
        assert {f"{path}-wal", str(tmp_path)} <= set(synced)
    reader.close()


@pytest.mark.case("I08")
def test_an_index_of_any_age_without_a_log_does_not_stop_a_start(tmp_path):
    path = tmp_path / "states.db"
    with contextlib.closing(open_store(f"sqlite:///{path}", 5)) as store:
        store.save(TENANT, [a_state(1)], a_receipt())
        shutil.copyfile(f"{path}-shm", tmp_path / "old index")
    (tmp_path / "old index").rename(f"{path}-shm")
    with contextlib.closing(open_store(f"sqlite:///{path}", 5)) as store:
        store.prepare()
        assert store.find(TENANT, uid(1)) == a_state(1)
