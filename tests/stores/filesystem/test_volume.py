"""The volume below a store of files: absent, full, read-only, another's, or without hard links."""

import contextlib
import errno
import itertools
import json
import os
import re
import resource
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from receiver.idempotency import Effect
from receiver.problems import StoreDamaged, StoreFull, StoreMisplaced, StoreUnavailable
from receiver.stores import open_store
from receiver.stores.filesystem import FilesystemStore, durable, formats
from receiver.stores.marker import Marker
from tests.support.filesystem import NEW, exit_code, file_of, files, forked, leftovers
from tests.support.small_disks import on_a_small_disk
from tests.support.states import OTHER, TENANT, a_receipt, a_state, uid

pytestmark = pytest.mark.slow


def all_calls(store):
    return (
        store.ping,
        lambda: store.find(TENANT, uid(10)),
        lambda: store.find(OTHER, uid(10)),
        lambda: store.was_done(TENANT, a_receipt()),
        lambda: store.save(TENANT, [a_state(11)], None),
        lambda: store.delete(TENANT, [uid(99)], None),
        lambda: store.delete(OTHER, [uid(99)], None),
        lambda: store.purge(0),
        lambda: list(store.scan()),
        lambda: list(store.summaries(OTHER)),
        store.prepare,
    )


@pytest.mark.parametrize("remains", ["nothing", "an empty folder", "all but the mark"])
def test_a_volume_that_went_away_is_an_outage_and_no_empty_store(store, root, tmp_path, remains):
    store.save(TENANT, [a_state()], a_receipt())
    aside = tmp_path / "aside"
    (root / "format" if remains == "all but the mark" else root).rename(aside)
    if remains == "an empty folder":
        root.mkdir()
    for call in all_calls(store):
        with pytest.raises(StoreUnavailable):
            call()
    if remains == "an empty folder":
        assert not list(root.iterdir())
        root.rmdir()
    aside.rename(root / "format" if remains == "all but the mark" else root)
    assert store.find(TENANT, uid(10)) == a_state()
    assert store.save(TENANT, [a_state(11)], None).stored == 1


def test_a_volume_that_goes_away_during_a_call_is_no_missing_state(store, root, monkeypatch):
    store.save(TENANT, [a_state()], None)
    ready = FilesystemStore._ready
    monkeypatch.setattr(FilesystemStore, "_ready", lambda self: (ready(self), root.exists() and root.rename(aside)))
    aside = root.parent / "aside"
    for call in (
        lambda: store.find(TENANT, uid(10)),
        lambda: store.delete(TENANT, [uid(10)], None),
        lambda: list(store.scan()),
    ):
        with pytest.raises(StoreUnavailable):
            call()
        aside.rename(root)


def test_a_place_that_cannot_hold_a_store_is_told_in_a_line_and_left_as_it_is(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "photo").write_text("x")
    for name, mark in (("newer", '{"store": "external-storage-receiver", "format": 3}'), ("empty", ""), ("a", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "format").write_text(mark)
    before = files(tmp_path)
    mends = {"file": "not a folder", "no/such": "make it", "strange": "name an empty", "newer": "upgrade the receiver"}
    mends |= {"empty": "restore it", "a": "restore it", "file/x": "make it"}
    for path, mend in mends.items():
        store = open_store(f"file://{tmp_path}/{path}", 1)
        for call in (store.check_location, store.prepare, lambda store=store: store.find(TENANT, uid(10))):
            with pytest.raises(StoreMisplaced, match=re.escape(str(tmp_path))) as told:
                call()
            assert mend in told.value.cause
            assert "\n" not in told.value.cause
    assert files(tmp_path) == before


def test_a_store_of_the_format_before_is_taken_and_marked_anew(store, root):
    store.save(TENANT, [a_state(content="kept")], None)
    (root / "format").write_text('{"store": "external-storage-receiver", "format": 1}\n')
    store.place.marker.path.unlink()  # the version before made none
    again = open_store(f"file://{root}", 1)
    again.prepare()
    assert again.find(TENANT, uid(10)).content.text == "kept"
    assert json.loads((root / "format").read_text())["format"] == formats.FORMAT
    assert stat.S_IMODE((root / "format").stat().st_mode) == 0o600


def test_a_store_that_was_upgraded_meanwhile_is_left_alone(store, root):
    store.save(TENANT, [a_state()], None)
    (root / "format").write_text(json.dumps({"store": "external-storage-receiver", "format": formats.FORMAT + 1}))
    before = files(root)
    for call in all_calls(store):
        with pytest.raises(StoreMisplaced):
            call()
    assert files(root) == before


def test_an_empty_volume_becomes_a_store_and_a_start_that_failed_is_no_stranger(root):
    root.mkdir()
    (root / "lost+found").mkdir()
    (root / ".format").write_text("{")
    FilesystemStore(str(root), 1).prepare()
    made = json.loads((root / "format").read_text())
    assert made == {"store": "external-storage-receiver", "format": formats.FORMAT, "id": formats.id_in(str(root))}
    assert not leftovers(root)


@pytest.mark.parametrize(("fault", "told"), [(errno.EPERM, StoreMisplaced), (errno.ENOSPC, StoreUnavailable)])
def test_a_file_system_without_hard_links_is_told_from_a_full_one(root, monkeypatch, fault, told):
    def link(*_names):
        raise OSError(fault, "no link")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        with pytest.raises(StoreUnavailable) as problem:
            FilesystemStore(str(root), 1).prepare()
    assert type(problem.value) is told
    assert list(files(root)) == [".lock"]
    FilesystemStore(str(root), 1).prepare()
    assert "format" in files(root)


def test_a_worker_does_not_make_a_store_where_the_master_left_one(root, store):
    for path in (root.parent / "none", root.parent / "empty"):
        with pytest.raises(StoreUnavailable):
            FilesystemStore(str(path), 1, create=False).prepare()
        with pytest.raises(StoreUnavailable):
            FilesystemStore(str(path), 1, create=False).save(TENANT, [a_state()], None)
        assert not path.exists()
    assert FilesystemStore(str(root), 1, create=False).save(TENANT, [a_state()], None).stored == 1


def test_a_folder_of_somebody_else_is_told_and_health_says_so(store, root):
    def as_nobody():
        with contextlib.suppress(PermissionError):
            os.setuid(65534)
        with pytest.raises(StoreMisplaced, match="readable and writable"):
            FilesystemStore(str(root), 1).prepare()
        with pytest.raises(StoreUnavailable):
            store.ping()

    for folder in itertools.takewhile(lambda one: one != Path(tempfile.gettempdir()), root.parents):
        folder.chmod(0o755)
    root.chmod(0o555)
    assert exit_code(forked(as_nobody)) == 0
    root.chmod(0o700)


# The disk


@pytest.mark.case("G07")
def test_a_full_disk_is_told_changes_nothing_and_needs_no_restart(root):
    def fill():
        store = FilesystemStore(str(root), 5)
        store.save(TENANT, [a_state(1, content="x" * 100_000)], None)
        kept = [1]
        for number in range(2, 60):
            before = files(root)
            try:
                store.save(TENANT, [a_state(number, content="x" * 50_000), a_state(1, NEW)], a_receipt(str(number)))
                kept.append(number)
            except StoreFull:
                assert files(root) == before
        assert len(kept) < 30
        assert [state.id for state in store.scan()] == [uid(number) for number in kept]
        store.delete(TENANT, [uid(number) for number in kept[1:]], None)
        assert store.save(TENANT, [a_state(99, content="x" * 50_000)], a_receipt()).stored == 1
        assert not leftovers(root)

    on_a_small_disk(root, "tmpfs", 1, fill)


def test_a_volume_that_is_not_mounted_at_a_start_is_no_first_start(root):
    def unmount():
        with contextlib.closing(open_store(f"file://{root}", 5)) as store:
            store.save(TENANT, [a_state()], None)
            id = store.mark().store
        subprocess.run(["umount", root], check=True)
        for _ in range(2):
            with pytest.raises(StoreMisplaced, match=f"is empty, but .*store.marker says that the store {id} was here"):
                open_store(f"file://{root}", 5).prepare()
        assert not list(root.iterdir())

    on_a_small_disk(root, "tmpfs", 1, unmount)


def test_where_no_marker_can_be_kept_the_log_names_the_setting_once_and_the_setting_protects(root, caplog):
    root.mkdir()
    caplog.set_level("INFO", "receiver")
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(Marker, "_alone", _refusing)
        for _ in range(2):
            store = FilesystemStore(str(root), 5)
            store.save(TENANT, [a_state()], None)
        (line,) = [record.message for record in caplog.records if "no marker" in record.message]
        assert f"{root}.marker (Permission denied): set STORAGE_STORE_ID={store.mark().store}" in line
        FilesystemStore(str(root), 5, store_id=store.mark().store).prepare()
        with pytest.raises(StoreMisplaced, match="but STORAGE_STORE_ID names"):
            FilesystemStore(str(root), 5, store_id=uid(1)).prepare()
        assert store.accept() == store.mark()


def _refusing(_marker):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_store_that_an_older_version_ran_on_meanwhile_is_accepted_again(store, root):
    store.save(TENANT, [a_state()], None)
    (root / "format").write_text('{"store": "external-storage-receiver", "format": 2}\n')  # as 1.0.0 writes it
    again = open_store(f"file://{root}", 1)
    with pytest.raises(StoreMisplaced, match=r"of an older version, which has no id yet.*receiver store accept"):
        again.prepare()
    assert again.accept().store == formats.id_in(str(root))
    assert again.find(TENANT, uid(10)) == a_state()


@pytest.mark.case("G08")
def test_a_disk_that_turns_read_only_answers_loads_and_recovers(root):
    def turn():
        store = FilesystemStore(str(root), 5)
        store.save(TENANT, [a_state()], None)
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        changes = (
            store.ping,
            lambda: store.save(TENANT, [a_state(11)], None),
            lambda: store.delete(TENANT, [uid(10)], None),
        )
        for call in changes:
            with pytest.raises(StoreUnavailable):
                call()
        assert store.find(TENANT, uid(10)) == a_state()
        subprocess.run(["mount", "-o", "remount,rw", root], check=True)
        store.ping()
        assert store.save(TENANT, [a_state(11)], None).stored == 1
        assert not leftovers(root)

    on_a_small_disk(root, "tmpfs", 1, turn)


@pytest.mark.case("G08")
def test_a_file_that_may_not_grow_is_told_and_the_process_lives_on(store, root):
    def fill():
        before = files(root)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        for _ in range(3):
            with pytest.raises(StoreFull):
                store.save(TENANT, [a_state(11), a_state(12, content="x" * 20_000)], a_receipt())
            assert files(root) == before
        assert store.find(TENANT, uid(10)) == a_state()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert store.save(TENANT, [a_state(12, content="x" * 20_000)], a_receipt()) == Effect(stored=1)

    store.save(TENANT, [a_state(), a_state(12)], None)
    assert exit_code(forked(fill)) == 0
    assert len(store.find(TENANT, uid(12)).content.text) == 20_000
    assert not leftovers(root)


def test_no_descriptor_is_left_open(store, root):
    def use():
        store.save(TENANT, [a_state(number) for number in range(10, 20)], a_receipt(str(time.monotonic_ns())))
        store.delete(TENANT, [uid(10), uid(99)], None)
        next(store.scan())
        list(store.scan(wanted=lambda summary: False))
        store.find(TENANT, uid(11)), store.find(TENANT, uid(99)), store.was_done(TENANT, a_receipt())
        file_of(root, uid(12)).write_bytes(b"x")
        with pytest.raises(StoreDamaged):
            store.find(TENANT, uid(12))
        store.save(TENANT, [a_state(12)], None)
        store.delete(TENANT, [uid(12)], None)
        store.timeout = 0.01
        with durable.locked(str(root / TENANT), time.monotonic()), pytest.raises(StoreUnavailable):
            store.save(TENANT, [], a_receipt("never"))

    use()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        use()
    assert len(os.listdir("/proc/self/fd")) == before
