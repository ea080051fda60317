"""A log that lost its end, and older copies that were put back, are noticed at the next start: nothing is lost silently."""

import contextlib
import os
import random
import shutil
import subprocess
import sys

import pytest

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores import open_store
from receiver.stores.marker import Marker
from receiver.stores.sqlite.driver import sqlite3
from tests.support.states import TENANT, a_state, uid

_KILLED = """
import os, signal, sys
from receiver.stores import open_store
from tests.support.states import TENANT, a_state
store = open_store(sys.argv[1], 2)
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    store.save(TENANT, [a_state(number)], None)
    print(number, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_after_saving(path, first, end):
    """Save the states from ``first`` to ``end`` in a process that is killed then: all are acknowledged."""
    command = [sys.executable, "-c", _KILLED, f"sqlite:///{path}", str(first), str(end)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout.split() == [str(number) for number in range(first, end)], ran.stderr


def ids_in(path):
    with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as store:
        store.prepare()
        return [state.id for state in store.scan()]


def opened():
    """Return the paths that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


def held_by(folder):
    files = {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file() and one.suffix != ".db-shm"}
    return {name: content for name, content in files.items() if content}


def assert_refused(path, match):
    """A start is refused, again and again, and changes nothing of what a person could still save."""
    before = held_by(path.parent)
    for _ in range(2):
        with pytest.raises(StoreMisplaced, match=match):
            open_store(f"sqlite:///{path}", 1).prepare()
    assert held_by(path.parent) == before


@pytest.fixture
def path(tmp_path):
    return tmp_path / "states.db"


@pytest.mark.case("G10")
@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_in_the_log_of_a_killed_receiver_loses_nothing_silently(path, seed):
    killed_after_saving(path, 0, 40)
    log = bytearray(path.with_name("states.db-wal").read_bytes())
    place = random.Random(seed).randrange(len(log) * 8)
    log[place // 8] ^= 1 << place % 8
    path.with_name("states.db-wal").write_bytes(log)
    assert_refused(path, r"commits \d+ to 40 are missing, which were acknowledged: .*`receiver store accept`")
    with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as store:
        store.accept()
        kept = [state.id for state in store.scan()]
        assert kept == [uid(number) for number in range(len(kept))]
        store.save(TENANT, [a_state(77)], None)
    assert ids_in(path) == [*kept, uid(77)]


@pytest.mark.parametrize("cut", ["to a half", "to nothing", "away"])
def test_a_log_that_is_cut_while_the_receiver_is_dead_is_noticed(path, cut):
    killed_after_saving(path, 0, 40)
    log = path.with_name("states.db-wal")
    if cut == "away":
        log.unlink()
        path.with_name("states.db-shm").unlink()
    else:
        os.truncate(log, log.stat().st_size // 2 if cut == "to a half" else 0)
    assert_refused(path, "to 40 are missing")


def test_a_receiver_that_is_killed_again_and_again_is_never_refused(path):
    for number in range(4):
        killed_after_saving(path, 10 * number, 10 * number + 10)
    assert ids_in(path) == [uid(number) for number in range(40)]


def test_a_marker_that_lags_after_a_power_cut_proves_nothing(path):
    killed_after_saving(path, 0, 10)
    older = path.with_name("states.db-marker").read_bytes()
    killed_after_saving(path, 10, 20)
    path.with_name("states.db-marker").write_bytes(older)
    assert ids_in(path) == [uid(number) for number in range(20)]
    with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as store:
        store.save(TENANT, [a_state(20)], None)
        assert Marker(path.with_name("states.db-marker")).read() == store.mark()
        assert store.mark().generation == 21


def test_an_older_copy_that_is_put_back_whole_is_refused_until_it_is_accepted(path, tmp_path):
    for first in (0, 10):
        with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as store:
            for number in range(first, first + 10):
                store.save(TENANT, [a_state(number)], None)
        if not first:
            shutil.copyfile(path, tmp_path / "backup")
    shutil.copyfile(tmp_path / "backup", path)
    assert_refused(path, "commits 11 to 20 are missing, which were acknowledged: .*an older copy was put back")
    with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as store:
        assert store.accept().generation == 10
    assert len(ids_in(path)) == 10


def test_an_older_copy_that_was_used_elsewhere_since_is_refused(path, tmp_path):
    for place in (path, tmp_path / "elsewhere" / "states.db"):
        with contextlib.closing(open_store(f"sqlite:///{place}", 1)) as store:
            store.save(TENANT, [a_state(1)], None)
            if place == path:
                store.close()
                (tmp_path / "elsewhere").mkdir()
                shutil.copyfile(path, tmp_path / "elsewhere" / "states.db")
            store.save(TENANT, [a_state(2)], None)
    with contextlib.closing(sqlite3.connect(tmp_path / "elsewhere" / "states.db", isolation_level=None)) as connection:
        connection.execute("update store set generation = 2")
    shutil.copyfile(tmp_path / "elsewhere" / "states.db", path)
    assert_refused(path, "commit 2 is not the one that was acknowledged")


@pytest.mark.case("I08")
def test_an_older_copy_beside_the_log_of_a_newer_file_is_refused(path, tmp_path):
    with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as store:
        store.save(TENANT, [a_state(1)], None)
    shutil.copyfile(path, tmp_path / "backup")
    with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as store:
        store.save(TENANT, [a_state(number) for number in range(2, 40)], None)
        store.save(TENANT, [a_state(2, content="two")], None)
    killed_after_saving(path, 40, 60)
    shutil.copyfile(tmp_path / "backup", path)
    assert_refused(path, "is not the file that its log .* belongs to")


def test_a_store_that_is_closed_leaves_no_descriptor_of_its_marker(store):
    store.save(TENANT, [a_state(1)], None)
    marker = str(store._file.place.marker.path)
    assert marker in opened()
    store.close()
    assert marker not in opened()


def test_a_connection_that_is_opened_later_checks_the_generation_too(store):
    store.save(TENANT, [a_state(1)], None)
    store.close()
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("update store set generation = 0")
    with pytest.raises(StoreMisplaced, match="commits 1 to 1 are missing"):
        store.find(TENANT, uid(1))


def test_a_marker_that_cannot_be_written_is_told_once_and_saves_go_on(store, monkeypatch, caplog):
    def fails(_mark):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store._file.place.marker, "advance", fails)
    for number in range(3):
        store.save(TENANT, [a_state(number)], None)
    assert len(list(store.scan())) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "will not be noticed" in caplog.text


@pytest.mark.parametrize("ending", ["", "-wal"])
def test_a_file_or_a_log_that_is_emptied_in_place_is_an_outage_and_nothing_more_is_acknowledged(store, ending):
    for number in range(5):
        store.save(TENANT, [a_state(number)], None)
    os.truncate(f"{store.path}{ending}", 0)
    for call in (
        lambda: store.save(TENANT, [a_state(9)], None),
        lambda: store.find(TENANT, uid(1)),
        store.ping,
    ):
        with pytest.raises(StoreUnavailable, match=f"{store.path}{ending} was emptied while in use"):
            call()


def test_a_log_that_begins_anew_beside_other_processes_is_not_taken_for_emptied(store):
    path = store.path
    code = f"import sys; sys.argv[1:] = ['sqlite:///{path}', '100', '400']\n{_KILLED}"
    store.save(TENANT, [a_state(1)], None)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        while process.poll() is None:
            connection.execute("pragma wal_checkpoint(truncate)").fetchone()
            store.save(TENANT, [a_state(1)], None)
            store.ping()
    assert len(list(store.scan())) == 301
