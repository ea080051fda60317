"""Many processes on one folder: readers, writers, kills and copies made under load."""

import os
import random
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest

from receiver.idempotency import Effect
from receiver.problems import StoreUnavailable
from receiver.stores.filesystem import FilesystemStore, durable
from tests.support.filesystem import IDS, NEW, OLD, a_store_to_change, change_of, leftovers, processes, view
from tests.support.states import TENANT, a_receipt, a_state, uid
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow


@pytest.mark.case("F02")
def test_of_many_processes_that_save_one_state_the_newest_wins_and_nobody_reads_an_older_one(store, root):
    versions = [f"2026-01-01T00:00:00.{number:07d}Z" for number in range(400)]
    random.Random(5).shuffle(versions)

    def save(mine):
        own, highest = FilesystemStore(str(root), 10), ""
        for updated in mine:
            own.save(TENANT, [a_state(updated=updated)], a_receipt(updated))
            highest = max(highest, updated)
            assert own.find(TENANT, uid(10)).content.text >= highest

    with processes(*(partial(save, versions[start::4]) for start in range(4))):
        pass
    assert store.find(TENANT, uid(10)).content.text == max(versions)
    assert all(store.was_done(TENANT, a_receipt(updated)) for updated in versions)


@pytest.mark.case("G01")
def test_readers_that_run_see_whole_batches_while_writers_are_killed(store, root, tmp_path):
    """A batch is one version of four states: who reads them one by one may see newer ones, never an older one."""
    done = tmp_path / "done"

    def write():
        real = os.rename  # slowed, so that most die between two of them
        os.rename = lambda *names: (real(*names), pass_time(0.0005, "a rename takes so long"))
        own = FilesystemStore(str(root), 10)
        version = own.find(TENANT, IDS[0]).content.text
        for number in range(int(version) + 1, sys.maxsize):
            own.save(TENANT, [a_state(id=id, updated=NEW, content=f"{number:06}") for id in IDS], None)

    def read():
        while not done.exists():
            seen = [store.find(TENANT, id).content.text for id in random.sample(IDS, 4)]
            assert seen == sorted(seen)

    store.save(TENANT, [a_state(id=id, content="000000") for id in IDS], None)
    with processes(read):
        for number in range(50):
            before = store.find(TENANT, IDS[0]).content.text
            with processes(write) as [writer]:
                until(lambda before=before: store.find(TENANT, IDS[0]).content.text != before, pause=0.001)
                pass_time(0.0005 * (number % 20), "the moment of the kill")
                os.kill(writer, signal.SIGKILL)
            seen = {store.find(TENANT, id).content.text for id in IDS}
            assert len(seen) == 1
        done.touch()
    assert int(seen.pop()) >= 50
    store.save(TENANT, [], a_receipt())
    assert not leftovers(root)


def test_a_reader_waits_for_a_living_writer_and_finishes_for_a_dead_one(store, root):
    a_store_to_change(root)
    ready, out = os.pipe()

    def stop_half_way():
        real = durable.sync_folder

        def stop(path):
            real(path)
            if len(path) == len(str(root / TENANT / "xx")):
                os.write(out, b"x")
                pass_time(60, "it stays there until it is killed")

        durable.sync_folder = stop
        change_of("save", FilesystemStore(str(root), 5))

    store.timeout = 0.2
    with processes(stop_half_way) as [writer]:
        assert os.read(ready, 1) == b"x"
        for read in (
            lambda: store.find(TENANT, IDS[0]),
            lambda: next(store.scan()),
            lambda: store.was_done(TENANT, a_receipt("x")),
        ):
            with pytest.raises(StoreUnavailable):
                read()
        store.timeout = 5
        threading.Timer(0.1, os.kill, (writer, signal.SIGKILL)).start()
        assert view(store) == ((NEW, NEW, "new", OLD), True)
    assert not leftovers(root)
    os.close(ready), os.close(out)


@pytest.mark.case("F08")
def test_a_copy_of_the_folder_made_under_load_holds_all_that_was_acknowledged_before(store, root, tmp_path):
    def write(number):
        own = FilesystemStore(str(root), 10)
        for version in range(1, sys.maxsize):
            batch = [a_state(number + 10 * place, content=f"{version:06}") for place in range(4)]
            own.save(TENANT, batch, a_receipt(f"{number} {version}"))
            own.delete(TENANT, [uid(100 + number)], None)
            own.save(TENANT, [a_state(100 + number)], None)

    with processes(*(partial(write, number) for number in range(3))) as writers:
        for number in range(15):
            pass_time(0.05, "writers go on between two copies")
            before = {state.id: state.content.text for state in store.scan(TENANT)}
            copy = tmp_path / f"copy {number}"
            copy.mkdir()
            packing = subprocess.Popen(["tar", "-cC", root, "."], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            subprocess.run(["tar", "-xC", copy], stdin=packing.stdout, check=True)
            packing.stdout.close()
            assert packing.wait() in (0, 1)  # 1 where a file changed meanwhile
            restored = FilesystemStore(str(copy), 5)
            restored.prepare()
            after = {state.id: state.content.text for state in restored.scan(TENANT)}
            assert {id for id in before if id < uid(100)} <= set(after)
            assert all(after[id] >= before[id] for id in before if id < uid(100))
            restored.save(TENANT, [a_state(1)], a_receipt())
            assert not leftovers(copy)
        for writer in writers:
            os.kill(writer, signal.SIGKILL)


def test_a_copy_without_the_empty_folders_works(store, root):
    store.save(TENANT, [a_state()], None)
    store.delete(TENANT, [uid(10)], None)
    for folder in (".change", "00"):
        (root / TENANT / folder).rmdir()
    again = FilesystemStore(str(root), 5)
    assert again.find(TENANT, uid(10)) is None
    assert again.save(TENANT, [a_state()], a_receipt()) == Effect(stored=1)
    assert again.find(TENANT, uid(10)) == a_state()
