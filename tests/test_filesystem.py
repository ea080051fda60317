"""What is particular to the store of files: what lies on the disk, and what becomes of it when anything stops half-way."""

import contextlib
import ctypes
import errno
import hashlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from receiver.idempotency import Effect
from receiver.problems import Problem, ReplayRefused, StoreDamaged, StoreFull, StoreMisplaced, StoreUnavailable
from receiver.states import NANOSECONDS, Instant
from receiver.stores import open_store
from receiver.stores.filesystem import FilesystemStore, durable, formats
from receiver.stores.filesystem.changes import TenantFolder
from receiver.stores.filesystem.planning import deleting, saving
from tests.conftest import assert_problem, loaded
from tests.test_stores import NOW, OTHER, TENANT, a_receipt, a_state, uid

OLD, NEW = "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
PAST, FUTURE = (Instant.parse(text) for text in ("2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z"))
IDS = [f"{shard}000000-0000-0000-0000-000000000000" for shard in ("0a", "5b", "c3", "ff")]
MODELLED = ("open", "write", "fsync", "rename", "link", "unlink", "mkdir")
UNUSED = ("replace", "remove", "rmdir", "symlink", "truncate")
MUTATING = (*MODELLED, *UNUSED, "utime", "chmod", "fchmod")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(root):
    """A store of files, for the tests here and for the receiver that some of them call."""
    opened = FilesystemStore(str(root), 5)
    opened.prepare()
    return opened


def file_of(root, id, tenant=TENANT) -> Path:
    return root / tenant / id[:2] / f"{id}.state"


def files(root) -> dict[str, bytes]:
    """Return what all files under ``root`` hold."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def leftovers(root) -> list[str]:
    """Return the names of files that no store at rest has."""
    known = re.compile(r"format|(.+/)?\.lock|[^/]+/\.receipts/[0-9a-f]{64}|[^/]+/([0-9a-f]{2})/\2[0-9a-f-]{34}\.state")
    return [name for name in files(root) if not known.fullmatch(name)]


# What lies on the disk


def test_a_person_recognises_a_state_and_finds_its_content_behind_the_first_line(store, root):
    content = '{"a": "größe \U0001f469"}\n\r\nthe end'
    store.save(TENANT, [a_state(parent=uid(3), expires_at=FUTURE, content=content)], None)
    path = file_of(root, uid(10))
    first = json.loads(subprocess.check_output(["head", "-1", path]))
    assert re.fullmatch("[0-9a-f]{8}", first.pop("contentCrc32"))
    assert re.fullmatch("[0-9a-f]{8}", first.pop("crc32"))
    assert first == {
        "id": uid(10),
        "tenant": TENANT,
        "parent": uid(3),
        "flow": uid(100),
        "flowVersion": uid(101),
        "isDone": False,
        "currentMapElement": None,
        "currentUser": None,
        "createdAt": "2026-01-01T00:00:00.1234567+01:00",
        "updatedAt": OLD,
        "expiresAt": FUTURE.text,
        "contentBytes": len(content.encode()),
    }
    assert subprocess.check_output(["tail", "-n", "+2", path]) == content.encode()


@pytest.mark.parametrize("umask", [0, 0o277, 0o777])
def test_all_is_for_the_owner_only_whatever_the_umask(root, umask):
    before = os.umask(umask)
    try:
        store = FilesystemStore(str(root), 5)
        store.save(TENANT, [a_state()], a_receipt())
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*"))}
    assert len(modes) == 10
    assert all(mode == (durable.FOLDER_MODE if path.is_dir() else durable.FILE_MODE) for path, mode in modes.items())
    assert (durable.FILE_MODE, durable.FOLDER_MODE) == (0o600, 0o700)


def test_nothing_remains_of_what_was_replaced_or_deleted(store, root):
    store.save(TENANT, [a_state(content="first")], a_receipt())
    store.save(TENANT, [a_state(content="second"), a_state(11)], a_receipt("two"))
    store.delete(TENANT, [uid(11)], None)
    assert sum(name.endswith(".state") for name in files(root)) == 1
    assert not leftovers(root)
    assert not any(b"first" in data for data in files(root).values())


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", uid(1).upper()[:-1] + "A", uid(1) + "\n", "x" * 36])
def test_a_name_that_is_no_uuid_touches_no_path(store, root, name):
    calls = (
        lambda: store.find(name, uid(10)),
        lambda: store.find(TENANT, name),
        lambda: store.save(name, [], a_receipt()),
        lambda: store.save(TENANT, [a_state(id=name)], None),
        lambda: store.delete(TENANT, [name], None),
        lambda: list(store.scan(name or "-")),
        lambda: store.repeated(name, a_receipt()),
    )
    for call in calls:
        with pytest.raises(ValueError, match="UUID"):
            call()
    assert [name for name in files(root) if name.endswith(".state")] == []


def test_what_else_lies_in_the_folders_is_left_alone(store, root):
    store.save(TENANT, [a_state(10)], a_receipt())
    foreign = ["lost+found/x", f"{uid(7)}", f"{TENANT}/readme", f"{TENANT}/zz/x", f"{TENANT}/00/.nfs00000001"]
    foreign += [f"{TENANT}/00/{uid(12)}.state~", f"{TENANT}/ab/{uid(10)}.state", f"{TENANT}/.receipts/.nfs2"]
    for name in foreign:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("foreign")
        os.utime(root / name, (1, 1))
    again = FilesystemStore(str(root), 5)
    again.prepare()
    assert [state.id for state in again.scan()] == [uid(10)]
    assert again.purge(NOW * NANOSECONDS) == 0
    again.save(TENANT, [], a_receipt("late", now=NOW + 10_000, expires=NOW + 10_360))
    assert again.delete(TENANT, [uid(10), uid(12)], None) == Effect(stored=1)
    assert all((root / name).read_text() == "foreign" for name in foreign)


def test_unknown_ids_make_no_folder_but_a_receipt_is_kept(store, root):
    before = files(root)
    assert store.find(OTHER, uid(10)) is None
    began = time.monotonic()
    assert store.delete(OTHER, [uid(number) for number in range(300_000)], None) == Effect()
    assert time.monotonic() - began < 3
    assert files(root) == before
    assert store.delete(OTHER, [uid(10)], a_receipt(method="DELETE")) == Effect()
    with pytest.raises(ReplayRefused):
        FilesystemStore(str(root), 5).save(OTHER, [], a_receipt())


def test_asking_whether_a_request_is_repeated_changes_nothing_and_needs_no_lock(store, root):
    store.save(TENANT, [a_state()], a_receipt())
    before = files(root)
    with durable.locked(str(root / TENANT), time.monotonic()):
        assert store.repeated(TENANT, a_receipt())
        assert not store.repeated(TENANT, a_receipt("two"))
        assert not store.repeated(OTHER, a_receipt())
        assert not store.repeated(TENANT, a_receipt(now=NOW + 361))
        with pytest.raises(ReplayRefused):
            store.repeated(TENANT, a_receipt(method="DELETE"))
        assert store.find(TENANT, uid(10)) == a_state()
    assert files(root) == before


def test_expired_receipts_do_not_pile_up_and_others_stay(store, root):
    for number in range(100):
        store.save(TENANT, [], a_receipt(str(number), expires=NOW + number))
    for number in range(10):
        store.save(TENANT, [], a_receipt(f"later {number}", now=NOW + 90, expires=NOW + 500))
    assert len(os.listdir(root / TENANT / ".receipts")) == 20
    for path in (root / TENANT / ".receipts").iterdir():
        os.utime(path, (1, 1))  # as a copy may bear
    store.save(TENANT, [], a_receipt("last", now=NOW + 200, expires=NOW + 500))
    assert len(os.listdir(root / TENANT / ".receipts")) == 11


def test_receipts_are_looked_through_once_in_a_while_whatever_the_clock_does(store, root, monkeypatch):
    looks, real = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (looks.append(path), real(path))[1])
    for number, now in enumerate((0, 0, 59, 100_000, 0, 1, 61)):
        store.save(TENANT, [], a_receipt(str(number), now=NOW + now, expires=NOW + now + 20))
    assert looks == [str(root / TENANT / ".receipts")] * 4
    assert len(os.listdir(looks[0])) == 2


def test_a_scan_passes_over_what_is_deleted_meanwhile_and_holds_nothing(store):
    store.save(TENANT, [a_state(number) for number in range(10, 15)], None)
    store.save(OTHER, [a_state(10, tenant=OTHER)], None)
    scan = store.scan()
    assert next(scan).id == uid(10)
    store.timeout = 0
    store.delete(TENANT, [uid(11)], None)
    store.save(TENANT, [a_state(12, NEW)], None)
    assert [(state.id, state.content.text) for state in scan] == [
        (uid(12), NEW),
        (uid(13), OLD),
        (uid(14), OLD),
        (uid(10), OLD),
    ]
    chosen = store.scan(TENANT, lambda summary: summary.updated_at.text == NEW)
    assert [state.id for state in chosen] == [uid(12)]


def test_many_expired_states_are_purged_in_portions(store, monkeypatch):
    monkeypatch.setattr("receiver.stores.filesystem._PURGED_AT_ONCE", 3)
    store.save(TENANT, [a_state(number, expires_at=PAST if number % 4 else FUTURE) for number in range(40)], None)
    store.save(OTHER, [a_state(1, tenant=OTHER, expires_at=PAST)], None)
    assert store.purge(NOW * NANOSECONDS) == 31
    assert [state.id for state in store.scan()] == [uid(number) for number in range(0, 40, 4)]


def test_a_state_that_is_saved_anew_while_a_purge_waits_for_its_turn_is_kept(store, root, monkeypatch):
    store.save(TENANT, [a_state(10, expires_at=PAST), a_state(11, expires_at=PAST)], None)
    waiting, prolonged = TenantFolder.change, a_state(10, NEW, expires_at=FUTURE)

    def change(folder, purge, timeout):
        monkeypatch.setattr(TenantFolder, "change", waiting)
        FilesystemStore(str(root), 5).save(TENANT, [prolonged], None)
        return waiting(folder, purge, timeout)

    monkeypatch.setattr(TenantFolder, "change", change)
    assert store.purge(NOW * NANOSECONDS) == 1
    assert list(store.scan()) == [prolonged]


# Damage


@pytest.mark.case("G10")
def test_every_flipped_bit_and_every_cut_is_found_and_harms_that_state_only(store, root):
    store.save(TENANT, [a_state(content="secret content"), a_state(11)], None)
    whole = file_of(root, uid(10)).read_bytes()
    damages = [whole[:length] for length in range(len(whole))] + [whole + b"x", bytes(len(whole))]
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damages.append(flipped)
    for damage in damages:
        file_of(root, uid(10)).write_bytes(damage)
        with pytest.raises(StoreDamaged) as told:
            store.find(TENANT, uid(10))
        assert "secret" not in told.value.cause
    assert store.find(TENANT, uid(11)) == a_state(11)
    file_of(root, uid(10)).write_bytes(whole)
    assert store.find(TENANT, uid(10)).content.text == "secret content"


@pytest.mark.case("G10")
def test_a_file_that_lies_where_another_belongs_is_damage(store, root):
    store.save(TENANT, [a_state(10), a_state(11), a_state(12)], None)
    store.save(OTHER, [a_state(12, tenant=OTHER)], None)
    first, second = file_of(root, uid(10)), file_of(root, uid(11))
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)
    shutil.copy(file_of(root, uid(12)), file_of(root, uid(12), OTHER))
    for tenant, id in ((TENANT, uid(10)), (TENANT, uid(11)), (OTHER, uid(12))):
        with pytest.raises(StoreDamaged):
            store.find(tenant, id)
    assert store.find(TENANT, uid(12)) == a_state(12)


@pytest.mark.case("G10")
def test_damaged_content_is_answered_with_500_until_a_newer_state_replaces_it(store, root, platform, state, tenant):
    other = state | {"id": uid(77)}
    platform.save(state, other)
    path = file_of(root, state["id"], tenant)
    path.write_bytes(path.read_bytes()[:-1])
    assert_problem(platform.load(state["id"]), 500)
    assert loaded(platform, other["id"]) == other["content"]
    assert platform.save(state | {"updatedAt": "2031-01-01T00:00:00Z"}).status == 204
    assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("G10")
def test_a_state_whose_age_cannot_be_told_is_neither_replaced_nor_purged_but_can_be_deleted(store, root):
    store.save(TENANT, [a_state(10, NEW, expires_at=PAST), a_state(11, expires_at=PAST)], None)
    file_of(root, uid(10)).write_bytes(b"")
    with pytest.raises(StoreDamaged):
        store.save(TENANT, [a_state(12), a_state(10)], a_receipt())
    assert store.find(TENANT, uid(12)) is None
    assert not store.repeated(TENANT, a_receipt())
    with pytest.raises(StoreDamaged):
        list(store.summaries())
    assert store.purge(NOW * NANOSECONDS) == 1
    assert store.delete(TENANT, [uid(10)], None) == Effect(stored=1)
    assert store.find(TENANT, uid(10)) is None


def test_a_summary_needs_no_content_but_notices_a_cut(store, root):
    store.save(TENANT, [a_state(content="x" * 1000, expires_at=FUTURE)], None)
    path = file_of(root, uid(10))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"y")
    summary = next(store.summaries(TENANT))
    assert (summary.id, summary.size, summary.expires_at) == (uid(10), 1000, FUTURE)
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreDamaged):
        next(store.summaries(TENANT))


def test_a_damaged_receipt_neither_frees_its_jti_nor_harms_another(store, root):
    store.save(TENANT, [a_state()], a_receipt())
    [path] = (root / TENANT / ".receipts").iterdir()
    path.write_bytes(path.read_bytes().replace(b"POST", b"GOST"))
    with pytest.raises(StoreDamaged):
        store.repeated(TENANT, a_receipt())
    with pytest.raises(StoreDamaged):
        store.delete(TENANT, [uid(10)], a_receipt(method="DELETE"))
    assert store.find(TENANT, uid(10)) == a_state()
    assert store.save(TENANT, [], a_receipt("two", now=NOW + 1000)).jti_was == "new"
    assert not path.exists()


def test_a_receipt_that_lies_where_another_belongs_is_damage(store, root):
    store.save(TENANT, [a_state()], a_receipt())
    [path] = (root / TENANT / ".receipts").iterdir()
    path.rename(path.with_name(hashlib.sha256(b"two").hexdigest()))
    with pytest.raises(StoreDamaged):
        store.repeated(TENANT, a_receipt("two"))
    assert not store.repeated(TENANT, a_receipt("three"))


# The place


def all_calls(store):
    return (
        store.ping,
        lambda: store.find(TENANT, uid(10)),
        lambda: store.find(OTHER, uid(10)),
        lambda: store.repeated(TENANT, a_receipt()),
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
        for call in (store.check_place, store.prepare, lambda store=store: store.find(TENANT, uid(10))):
            with pytest.raises(StoreMisplaced, match=re.escape(str(tmp_path))) as told:
                call()
            assert mend in told.value.cause
            assert "\n" not in told.value.cause
    assert files(tmp_path) == before


def test_a_store_of_the_format_before_is_taken_and_marked_anew(store, root):
    store.save(TENANT, [a_state(content="kept")], None)
    (root / "format").write_text('{"store": "external-storage-receiver", "format": 1}\n')
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
    assert json.loads((root / "format").read_text()) == {"store": "external-storage-receiver", "format": formats.FORMAT}
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


def forked(action) -> int:
    """Return the id of a process that does ``action`` and ends with 0, or with 1 when that raises."""
    pid = os.fork()
    if not pid:
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def exit_code(pid) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


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


_NEW_MOUNT_NAMESPACE, _NO_MOUNT = 0x00020000, 77


def on_a_small_disk(path, action):
    """Do ``action`` in a process of its own that sees a disk of 1 MiB at ``path``; only root can make one."""

    def run():
        if ctypes.CDLL(None).unshare(_NEW_MOUNT_NAMESPACE):
            os._exit(_NO_MOUNT)
        for command in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", "size=1m", "small", path]):
            if subprocess.run(["mount", *command], check=False).returncode:
                os._exit(_NO_MOUNT)
        action()

    path.mkdir()
    code = exit_code(forked(run))
    if code == _NO_MOUNT:
        pytest.skip("a small disk can only be made by root")
    assert code == 0


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

    on_a_small_disk(root, fill)


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

    on_a_small_disk(root, turn)


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
        store.find(TENANT, uid(11)), store.find(TENANT, uid(99)), store.repeated(TENANT, a_receipt())
        file_of(root, uid(12)).write_bytes(b"x")
        for call in (lambda: store.find(TENANT, uid(12)), lambda: store.save(TENANT, [a_state(12)], None)):
            with pytest.raises(StoreDamaged):
                call()
        store.delete(TENANT, [uid(12)], None)
        store.timeout = 0.01
        with durable.locked(str(root / TENANT), time.monotonic()), pytest.raises(StoreUnavailable):
            store.save(TENANT, [], a_receipt("never"))

    use()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        use()
    assert len(os.listdir("/proc/self/fd")) == before


# Stopped at any instant


def group_of(store) -> list:
    """Do three changes as one group, and return what each of them answers."""
    changes = (
        saving([a_state(id=IDS[2], content="new"), a_state(id=IDS[0], updated=NEW)], a_receipt("group 1")),
        deleting([IDS[1], uid(99)], a_receipt("group 2", method="DELETE", expires=NOW + 500)),
        saving([a_state(id=IDS[1], content="anew")], a_receipt("group 3")),
    )
    store._ready()
    folder = store._folder(TENANT)
    with durable.file_errors(), folder._locked(time.monotonic() + 5):
        return folder._commit(changes)


def repeated_of_group(store) -> list[bool]:
    """Tell for each change of ``group_of`` whether it was done before."""
    receipts = (a_receipt("group 1"), a_receipt("group 2", method="DELETE"), a_receipt("group 3"))
    return [store.repeated(TENANT, receipt) for receipt in receipts]


def change_of(kind, store):
    """Do one of four changes to what ``a_store_to_change`` made: each of several files, in several shards."""
    if kind == "group":
        return group_of(store)
    if kind == "save":
        batch = [a_state(id=IDS[2], content="new"), a_state(id=IDS[0], updated=NEW), a_state(id=IDS[1], content="late")]
        return store.save(TENANT, batch, a_receipt("x"))
    if kind == "delete":
        return store.delete(TENANT, [IDS[0], uid(99), IDS[1]], a_receipt("x", method="DELETE"))
    return store.purge(NOW * NANOSECONDS)


def a_store_to_change(root):
    store = FilesystemStore(str(root), 5)
    kept = [a_state(id=IDS[0], expires_at=PAST), a_state(id=IDS[1], updated=NEW, expires_at=PAST), a_state(id=IDS[3])]
    store.save(TENANT, kept, a_receipt("before"))
    return store


def view(store, kind="save") -> tuple:
    """Return all that the platform can learn: the content of each state, and whether the change was done before."""
    found = [store.find(TENANT, id) for id in IDS]
    if kind == "group":
        [repeated] = set(repeated_of_group(store))
        return tuple(state and state.content.text for state in found), repeated
    receipt = a_receipt("x", method="DELETE" if kind == "delete" else "POST")
    return tuple(state and state.content.text for state in found), store.repeated(TENANT, receipt)


def views_around(kind, folder) -> list[tuple]:
    store = a_store_to_change(folder / "around")
    views = [view(store, kind)]
    change_of(kind, store)
    return [*views, view(store, kind)]


@contextmanager
def watching(step):
    """Call ``step`` before each step that this process takes to change the disk; what it raises comes in its place."""
    with pytest.MonkeyPatch.context() as patch:
        for name in MUTATING:
            patch.setattr(os, name, partial(_stepping, step, getattr(os, name)))
        yield


def _stepping(step, real, *args, **kwargs):
    if real.__name__ != "open" or args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        step()
    return real(*args, **kwargs)


def killed_at(number, action) -> int:
    """Do ``action`` in a process that ends before its step ``number``; return 9 if it came so far, else 0."""

    def run():
        steps = iter(range(number - 1))
        with watching(lambda: next(steps, None) is None and os._exit(9)):
            action()

    code = exit_code(forked(run))
    assert code in (0, 9)
    return code


@pytest.mark.case("G01", "G02")
@pytest.mark.parametrize("seen_by", ["a running store", "a new store"])
@pytest.mark.parametrize("kind", ["save", "delete", "purge", "group"])
def test_a_process_that_is_killed_at_any_instant_leaves_all_or_nothing(tmp_path, kind, seen_by):
    before, after = views_around(kind, tmp_path)
    a_store_to_change(tmp_path / "base")
    outcomes, code = [], 9
    while code:
        place = shutil.copytree(tmp_path / "base", tmp_path / str(len(outcomes)))
        store = FilesystemStore(str(place), 5)
        if seen_by == "a running store":
            assert view(store, kind) == before
        code = killed_at(len(outcomes) + 1, lambda place=place: change_of(kind, FilesystemStore(str(place), 5)))
        if seen_by == "a new store":
            assert {state.id for state in store.scan()} in [
                {id for id, content in zip(IDS, contents, strict=True) if content is not None}
                for contents, _ in (before, after)
            ]
        outcomes.append(view(store, kind))
        change_of(kind, store)
        assert view(store, kind) == after
        assert store.save(TENANT, [a_state(id=IDS[3], updated=NEW)], None) == Effect(stored=1)
        assert not leftovers(place)
        shutil.rmtree(place)
    assert outcomes == [before] * outcomes.count(before) + [after] * outcomes.count(after)
    assert min(outcomes.count(before), outcomes.count(after)) > 3


@pytest.mark.case("G01", "G02")
@pytest.mark.parametrize("kind", ["save", "delete", "purge", "group"])
def test_a_process_that_is_killed_while_it_recovers_leaves_all_or_nothing(tmp_path, kind):
    views = views_around(kind, tmp_path)
    a_store_to_change(tmp_path / "base")
    tried, code, number = 0, 9, 0
    while code:
        number += 1
        left = shutil.copytree(tmp_path / "base", tmp_path / "left")
        code = killed_at(number, lambda left=left: change_of(kind, FilesystemStore(str(left), 5)))
        if (left / TENANT / ".change" / "record").exists() or (leftovers(left) and number % 5 == 0):
            expected = view(FilesystemStore(str(shutil.copytree(left, tmp_path / "whole")), 5), kind)
            shutil.rmtree(tmp_path / "whole")
            again, second = 9, 0
            while again:
                second += 1
                place = shutil.copytree(left, tmp_path / "again")
                again = killed_at(second, FilesystemStore(str(place), 5).prepare)
                assert again or not leftovers(place)
                store = FilesystemStore(str(place), 5)
                assert view(store, kind) == expected in views
                store.save(TENANT, [], a_receipt("further"))
                assert not leftovers(place)
                shutil.rmtree(place)
                tried += 1
        shutil.rmtree(left)
    assert tried > 20


@pytest.mark.case("G07", "G08")
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, None])
@pytest.mark.parametrize("kind", ["save", "delete", "purge"])
def test_an_error_at_any_instant_leaves_all_or_nothing_and_is_told_as_what_it_is(tmp_path, kind, fault):
    before, after = views_around(kind, tmp_path)
    raised, outcomes = True, set()
    for number in range(1, 100):
        place = tmp_path / str(number)
        store = a_store_to_change(place)
        at_rest = files(place)
        steps, raised = iter(range(1, 100)), False

        def step(number=number, steps=steps):
            nonlocal raised
            if next(steps) == number:
                raised = True
                raise KeyboardInterrupt if fault is None else OSError(fault, "a fault")

        try:
            with watching(step):
                change_of(kind, store)
            told = None
        except (Problem, KeyboardInterrupt) as problem:
            told = type(problem)
        seen = view(store, kind)
        outcomes.add((told, seen))
        if told is StoreFull:
            assert files(place) == at_rest
        store.save(TENANT, [], a_receipt("further"))
        assert not leftovers(place)
        assert view(store, kind) == seen
        if not raised:
            break
    assert (told, seen) == (None, after)
    room = fault in (errno.ENOSPC, errno.EDQUOT)
    told_before = {KeyboardInterrupt if fault is None else StoreFull if room else StoreUnavailable}
    told_after = {KeyboardInterrupt if fault is None else StoreUnavailable}
    assert {told for told, seen in outcomes if seen == before} == told_before
    assert {told for told, seen in outcomes if seen == after} == told_after | {None}
    assert {seen for _, seen in outcomes} == {before, after}


@pytest.mark.case("G07", "G08")
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_instant_of_a_group_leaves_all_or_nothing_of_each_change_and_tells_its_caller(tmp_path, fault):
    raised, seen = True, set()
    for number in range(1, 100):
        place = tmp_path / str(number)
        store = a_store_to_change(place)
        steps, raised = iter(range(1, 100)), False

        def step(number=number, steps=steps):
            nonlocal raised
            if next(steps) == number:
                raised = True
                raise OSError(fault, "a fault")

        try:
            with watching(step):
                outcomes = group_of(store)
        except StoreUnavailable as problem:
            outcomes = [problem] * 3
        done = tuple(repeated_of_group(store))
        seen.add((done, *(type(outcome) for outcome in outcomes)))
        contents = tuple(state and state.content.text for state in (store.find(TENANT, id) for id in IDS))
        assert contents == ((NEW, "anew", "new", OLD) if all(done) else (OLD, NEW, None, OLD))
        store.save(TENANT, [], a_receipt("further"))
        assert not leftovers(place)
        if not raised:
            break
    assert not raised
    all_done, none_done, failed = (True,) * 3, (False,) * 3, (StoreUnavailable,) * 3
    # Once more, one by one, is what an error before the commit leads to; after it, nobody can say that it lasts.
    assert seen == {(all_done, Effect, Effect, Effect), (all_done, *failed), (none_done, *failed)}


class Killed(BaseException):
    """From here on the process takes no step any more."""


class Node:
    """A file or folder: what it holds ``now``, and what of that ``lasts``."""

    def __init__(self, data: bytes | None):
        self.now = self.lasts = data


class Disk:
    """What may be found after a power cut: all that was synced, and of the rest any part, in any order.

    A file's content lasts when it was synced; a name that was made, moved or removed, when its folder was. Moving a file
    from one folder to another happens in both or in none, as it does on ext4, XFS, Btrfs and ZFS.
    """

    def __init__(self, root):
        self.root = root
        self.steps: list[tuple[str, str]] = []
        self.stop_after = sys.maxsize
        self.images: dict[tuple, int] = {}
        self.done = 0  # changes that have returned
        self._random = random.Random(7)
        self._at = {str(path): Node(path.read_bytes() if path.is_file() else None) for path in root.rglob("*")}
        self._names = [(None, {path: node}) for path, node in sorted(self._at.items())]
        self._open: dict[int, str] = {}
        self._real = {name: getattr(os, name) for name in MUTATING}

    @contextmanager
    def watched(self):
        with pytest.MonkeyPatch.context() as patch:
            for name in MODELLED:
                patch.setattr(os, name, getattr(self, name))
            for name in UNUSED:
                patch.setattr(os, name, None)
            yield

    def open(self, path, flags, mode=0o777):
        made = flags & os.O_CREAT and not os.path.lexists(path)
        if made:
            self._step("open", path)
        descriptor = self._real["open"](path, flags, mode)
        if made:
            self._name(path, {path: Node(b"")})
        self._open[descriptor] = path
        return descriptor

    def write(self, descriptor, data):
        self._step("write", self._open[descriptor])
        written = self._real["write"](descriptor, data)
        self._at[self._open[descriptor]].now += bytes(data[:written])
        return written

    def fsync(self, descriptor):
        path = self._open[descriptor]
        self._step("fsync", path)
        self._real["fsync"](descriptor)
        if os.path.isdir(path):
            self._names = [(None if folder == path else folder, change) for folder, change in self._names]
        else:
            self._at[path].lasts = self._at[path].now

    def rename(self, source, target):
        self._step("rename", target)
        self._real["rename"](source, target)
        self._name(target, {source: None, target: self._at.pop(source)})

    def link(self, source, target):
        self._step("link", target)
        self._real["link"](source, target)
        self._name(target, {target: self._at[source]})

    def unlink(self, path):
        self._step("unlink", path)
        self._real["unlink"](path)
        self._name(path, {path: None})

    def mkdir(self, path, mode=0o777):
        if not os.path.lexists(path):
            self._step("mkdir", path)
        self._real["mkdir"](path, mode)
        self._name(path, {path: Node(None)})

    def _step(self, name, path):
        if len(self.steps) >= self.stop_after:
            raise Killed
        self.cut()
        self.steps.append((name, os.path.relpath(path, self.root)))

    def _name(self, path, change):
        self._at |= {path: node for path, node in change.items() if node}
        self._names.append((os.path.dirname(path), change))

    def cut(self):
        """Note what a power cut now could leave."""
        unsynced = [number for number, (folder, _) in enumerate(self._names) if folder]
        for lost in ([], unsynced, *([number] for number in unsynced)):
            self._note(lost, lambda node: node.lasts)
        for _ in range(40):
            lost = [number for number in unsynced if self._random.random() < 0.5]
            self._note(lost, lambda node: self._random.choice((node.lasts, node.now, node.now and node.now[:-20])))

    def _note(self, lost, data_of):
        image: dict[str, Node | None] = {}
        for number, (_, change) in enumerate(self._names):
            if number not in lost:
                image |= change
        kept = {path: node.now if node.lasts == node.now else data_of(node) for path, node in image.items() if node}
        key = tuple(sorted(kept.items()))
        self.images[key] = max(self.done, self.images.get(key, 0))

    def after_cut(self, image, folder) -> Path:
        """Write ``image`` into ``folder`` and return it; what lies in a folder that was lost is lost."""
        for path, data in image:
            place = folder / os.path.relpath(path, self.root)
            if place.parent == folder:
                folder.mkdir(exist_ok=True)
            if place.parent.is_dir():
                place.mkdir() if data is None else place.write_bytes(data)
        folder.mkdir(exist_ok=True)
        return folder


def changes_in_a_row():
    """Return changes that build on each other, and on the leftovers of each other."""
    return (
        lambda store: store.prepare(),
        lambda store: store.save(TENANT, [a_state(id=IDS[0]), a_state(id=IDS[1], expires_at=PAST)], a_receipt("one")),
        lambda store: store.delete(TENANT, [IDS[0]], None),
        lambda store: store.save(TENANT, [a_state(id=IDS[0], content="again"), a_state(id=IDS[2])], a_receipt("x")),
        lambda store: store.purge(NOW * NANOSECONDS),
        group_of,
    )


def test_after_a_power_cut_at_any_instant_each_change_is_whole_and_acknowledged_ones_are_there(tmp_path):
    store, views = FilesystemStore(str(tmp_path / "model" / "store"), 5), []
    (tmp_path / "model").mkdir()
    for change in changes_in_a_row():
        change(store)
        views.append(view(store))
    shutil.rmtree(tmp_path / "model" / "store")
    disk, store = Disk(tmp_path / "model"), FilesystemStore(str(tmp_path / "model" / "store"), 5)
    with disk.watched():
        for change in changes_in_a_row():
            change(store)
            disk.done += 1
        disk.cut()
    seen = set()
    for number, (image, done) in enumerate(disk.images.items()):
        place = disk.after_cut(image, tmp_path / str(number)) / "store"
        found = FilesystemStore(str(place), 5, create=done == 0)
        position = views.index(view(found))
        assert position >= done - 1
        seen.add(position)
        assert found.save(TENANT, [a_state(id=IDS[3])], a_receipt("further")) == Effect(stored=1)
        assert not leftovers(place)
        shutil.rmtree(place.parent)
    assert seen == set(range(len(views)))
    assert len(disk.images) > 150


@pytest.mark.parametrize("later", ["a new process", "a running process", "a retry"])
def test_after_a_kill_and_a_later_power_cut_what_another_process_acknowledged_is_there(tmp_path, later):
    views, stopped = set(), True
    for number in range(100):
        root = tmp_path / str(number) / "store"
        root.parent.mkdir()
        other = FilesystemStore(str(root), 5)
        if later == "a running process":
            other.prepare()
        disk, acknowledged = Disk(root.parent), True
        disk.stop_after = number
        with disk.watched():
            try:
                FilesystemStore(str(root), 5).save(TENANT, [a_state(id=IDS[0]), a_state(id=IDS[1])], a_receipt("x"))
                stopped = False
            except Killed:
                pass
            disk.stop_after = sys.maxsize
            if later == "a retry":
                acknowledged = other.repeated(TENANT, a_receipt("x"))
            else:
                other.save(TENANT, [a_state(id=IDS[0], updated=NEW)], None)
            disk.images.clear()
            disk.cut()
        for image in disk.images:
            place = disk.after_cut(image, tmp_path / "cut") / "store"
            found = view(FilesystemStore(str(place), 5, create=False))
            views.add((acknowledged, *found))
            shutil.rmtree(place.parent)
        if not stopped:
            break
    assert not stopped
    if later == "a retry":
        assert views == {(True, (OLD, OLD, None, None), True), (False, (None,) * 4, False)}
    else:
        assert views == {(True, (NEW, None, None, None), False), (True, (NEW, OLD, None, None), True)}


def test_after_a_power_cut_a_change_is_whole_also_where_a_copy_had_lost_the_empty_folders(tmp_path):
    (tmp_path / "model").mkdir()
    store = a_store_to_change(tmp_path / "model" / "store")
    before = view(store)
    (tmp_path / "model" / "store" / TENANT / ".change").rmdir()
    disk = Disk(tmp_path / "model")
    with disk.watched():
        store.save(TENANT, [a_state(id=IDS[0], content="new"), a_state(id=IDS[3], content="new")], a_receipt("x"))
        disk.cut()
    after, seen = view(store), set()
    for image in disk.images:
        place = disk.after_cut(image, tmp_path / "cut") / "store"
        seen.add(view(FilesystemStore(str(place), 5, create=False)))
        shutil.rmtree(place.parent)
    assert seen == {before, after}


def test_every_file_is_synced_before_its_name_and_every_folder_after_it(tmp_path):
    root = tmp_path / "model" / "store"
    root.parent.mkdir()
    store, disk = FilesystemStore(str(root), 5), Disk(root.parent)
    with disk.watched():
        for change in changes_in_a_row():
            change(store)
            last = {step: number for number, step in enumerate(disk.steps)}
            for number, (name, path) in enumerate(disk.steps):
                folder = os.path.dirname(path) or "."
                if name in ("mkdir", "rename", "link") or (name == "unlink" and path.endswith(".state")):
                    assert last["fsync", folder] > number, (name, path)
                if name == "write":
                    later = disk.steps[number + 1 :]
                    named = next(place for place, (name, _) in enumerate(later) if name in ("rename", "link"))
                    assert ("fsync", path) in later[:named], path
    commits = [number for number, step in enumerate(disk.steps) if step == ("rename", f"store/{TENANT}/.change/record")]
    assert len(commits) == 5
    for number in commits:
        assert disk.steps[number + 1] == ("fsync", f"store/{TENANT}/.change")


def test_a_save_of_one_state_costs_five_syncs(store):
    store.save(TENANT, [a_state()], a_receipt())
    with counted_syncs() as synced:
        store.save(TENANT, [a_state(updated=NEW)], a_receipt("two"))
    assert len(synced) == 5


# Many at once


@contextmanager
def processes(*actions):
    """Run each of ``actions`` in a process of its own, yield their ids and wait for them; none may fail but be killed."""
    running = [forked(action) for action in actions]
    try:
        yield running
        while running:
            assert exit_code(running[-1]) in (0, -signal.SIGKILL)
            running.pop()
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            exit_code(pid)


def test_a_lock_that_another_process_holds_too_long_is_an_outage_in_time(store, root):
    def hold():
        with durable.locked(str(root / TENANT), time.monotonic()):
            os.write(out, b"x")
            time.sleep(60)

    store.save(TENANT, [a_state()], None)
    ready, out = os.pipe()
    store.timeout = 0.3
    with processes(hold) as [holder]:
        assert os.read(ready, 1) == b"x"
        for change in (
            lambda: store.save(TENANT, [a_state(updated=NEW)], a_receipt()),
            lambda: store.delete(TENANT, [uid(10)], None),
        ):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                change()
            assert 0.3 <= time.monotonic() - began < 1
        assert store.find(TENANT, uid(10)) == a_state()
        assert store.save(OTHER, [a_state(tenant=OTHER)], None).stored == 1
        os.kill(holder, signal.SIGKILL)
        store.timeout = 5
        assert store.save(TENANT, [a_state(updated=NEW)], a_receipt()).stored == 1
    os.close(ready), os.close(out)


def test_a_process_that_was_forked_under_a_lock_does_not_keep_it(store, root):
    store.save(TENANT, [a_state()], None)
    with contextlib.ExitStack() as holding:
        holding.enter_context(durable.locked(str(root / TENANT), time.monotonic()))
        with processes(partial(time.sleep, 60)) as [child]:
            holding.close()
            store.timeout = 0.2
            assert store.save(TENANT, [a_state(updated=NEW)], None).stored == 1
            os.kill(child, signal.SIGKILL)


def test_threads_wait_for_each_other_no_longer_than_the_time_out(store, root):
    store.save(TENANT, [a_state()], None)
    store.timeout = 0.3
    told = []

    def save():
        began = time.monotonic()
        try:
            store.save(TENANT, [a_state(updated=NEW)], None)
        except StoreUnavailable:
            told.append(time.monotonic() - began)

    threads = [threading.Thread(target=save) for _ in range(4)]
    with durable.locked(str(root / TENANT), time.monotonic()):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(told) == 4
    assert max(told) < 1


@contextmanager
def waiting_together(store, root, *changes):
    """Start a thread for each of ``changes``, in this order, and hold the tenant's lock until all wait for it.

    Yields the list of what each of them returns or raises, which is filled when the context ends; what is done in it is
    done while they wait.
    """
    told = [None] * len(changes)

    def call(number):
        try:
            told[number] = changes[number]()
        except Exception as cause:
            told[number] = cause

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(changes))]
    store.save(TENANT, [], None)
    with durable.locked(str(root / TENANT), time.monotonic()):
        for number, thread in enumerate(threads):
            thread.start()
            while len(store._tenants[TENANT]._group._queue) <= number:
                time.sleep(0.001)
        yield told
    for thread in threads:
        thread.join()


def test_threads_get_their_turn_in_the_order_in_which_they_asked(store, root):
    impatient = FilesystemStore(str(root), 0.05)
    impatient._tenants = store._tenants
    order = [1, 0, 3, 2, 4, 5]
    changes = [partial(store.save, TENANT, [a_state(content=str(number))], a_receipt(str(number))) for number in order]
    with waiting_together(store, root, *changes), pytest.raises(StoreUnavailable):
        impatient.save(TENANT, [a_state(content="impatient")], a_receipt("impatient"))
    assert store.find(TENANT, uid(10)).content.text == "5"
    assert not store.repeated(TENANT, a_receipt("impatient"))
    [record] = {path.read_bytes() for path in (root / TENANT / ".receipts").iterdir()}
    assert [receipt["jti"] for receipt in formats.from_line(record)["receipts"]] == [str(number) for number in order]


@contextmanager
def counted_syncs():
    with pytest.MonkeyPatch.context() as patch:
        synced, real = [], os.fsync
        patch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor))[1])
        yield synced


@pytest.mark.parametrize("waiting", [1, 2, 12, 40])
def test_changes_that_wait_at_the_same_moment_share_their_syncs(store, root, waiting):
    numbers = range(waiting)
    store.save(TENANT, [a_state(10)], a_receipt())
    same = [partial(store.save, TENANT, [a_state(10, NEW, content=str(number))], None) for number in numbers]
    receipts = [partial(store.save, TENANT, [], a_receipt(f"receipt {number}")) for number in numbers]
    others = [
        partial(store.save, TENANT, [a_state(100 + number)], a_receipt(f"other {number}", expires=NOW + number))
        for number in numbers
    ]
    deletions = [partial(store.delete, TENANT, [uid(100 + number)], None) for number in numbers]
    # Record, .change and .receipts or shard are shared; each state that is stored has a file of its own besides.
    for changes, syncs in ((same, 4), (receipts, 3), (others, 4 + waiting), (deletions, 3)):
        with counted_syncs() as synced:
            with waiting_together(store, root, *changes) as told:
                pass
            stored = 0 if changes is receipts else 1
            assert told == [Effect(stored=stored)] * waiting
        assert len(synced) == syncs
        if changes is others:
            assert all(store.repeated(TENANT, a_receipt(f"other {number}")) for number in numbers)
    assert store.find(TENANT, uid(10)).content.text == str(waiting - 1)
    assert [state.id for state in store.scan()] == [uid(10)]
    assert not leftovers(root)


def test_the_receipts_of_one_record_expire_each_at_its_time(store, root):
    receipts = [a_receipt(str(number), expires=NOW + 100 * number) for number in range(4)]
    with waiting_together(store, root, *(partial(store.save, TENANT, [], receipt) for receipt in receipts)):
        pass
    later = [a_receipt(str(number), now=NOW + 150) for number in range(4)]
    assert [store.repeated(TENANT, receipt) for receipt in later] == [False, False, True, True]
    for path in (root / TENANT / ".receipts").iterdir():
        os.utime(path, (1, 1))  # as a copy may bear
    store.save(TENANT, [], a_receipt("late", now=NOW + 250, expires=NOW + 600))
    assert len(os.listdir(root / TENANT / ".receipts")) == 2
    assert store.repeated(TENANT, later[3])
    store.save(TENANT, [], a_receipt("last", now=NOW + 301 + 60, expires=NOW + 600))
    assert len(os.listdir(root / TENANT / ".receipts")) == 2


def test_a_refused_change_takes_no_other_of_its_group_with_it(store, root):
    store.save(TENANT, [a_state(12)], a_receipt())
    file_of(root, uid(12)).write_bytes(b"damaged")
    changes = (
        lambda: store.save(TENANT, [a_state(10)], a_receipt("two")),
        lambda: store.delete(TENANT, [uid(10)], a_receipt(method="DELETE")),
        lambda: store.save(TENANT, [a_state(13), a_state(12)], a_receipt("three")),
        lambda: store.save(TENANT, [a_state(11)], a_receipt("four")),
    )
    with waiting_together(store, root, *changes) as told:
        pass
    assert [type(outcome) for outcome in told] == [Effect, ReplayRefused, StoreDamaged, Effect]
    assert [bool(store.find(TENANT, uid(number))) for number in (10, 11, 13)] == [True, True, False]
    assert [store.repeated(TENANT, a_receipt(jti)) for jti in ("two", "three", "four")] == [True, False, True]


@pytest.mark.parametrize("together", [True, False])
def test_a_jti_that_comes_twice_in_a_group_stands_as_if_one_had_come_after_the_other(store, root, together):
    seen = a_receipt("seen", enforce=False)
    changes = (
        lambda: store.save(TENANT, [a_state(10)], a_receipt()),
        lambda: store.save(TENANT, [a_state(10)], a_receipt()),
        lambda: store.delete(TENANT, [uid(10)], a_receipt(method="DELETE")),
        lambda: store.delete(TENANT, [uid(10)], a_receipt(method="DELETE", enforce=False)),
        lambda: store.save(TENANT, [a_state(11)], a_receipt("short", expires=NOW + 1)),
        lambda: store.delete(TENANT, [uid(11)], a_receipt("short", method="DELETE", now=NOW + 2)),
        lambda: store.save(TENANT, [a_state(12)], seen),
        lambda: store.save(TENANT, [a_state(12)], seen),
    )
    if together:
        with waiting_together(store, root, *changes) as told:
            pass
    else:
        told = [change() if number != 2 else None for number, change in enumerate(changes)]
        with pytest.raises(ReplayRefused) as refused:
            changes[2]()
        told[2] = refused.value
    assert isinstance(told.pop(2), ReplayRefused)
    assert told == [
        Effect(stored=1),
        Effect(jti_was="repeated"),
        Effect(stored=1, jti_was="conflicting"),
        Effect(stored=1),
        Effect(stored=1),
        Effect(stored=1),
        Effect(stored=1),
    ]
    assert [state.id for state in store.scan()] == [uid(12)]
    assert store.repeated(TENANT, a_receipt("short", method="DELETE"))
    assert store.repeated(TENANT, a_receipt())


@pytest.mark.parametrize("stored_before", [True, False])
def test_a_state_that_is_saved_deleted_and_saved_in_one_group_is_new(store, root, stored_before):
    if stored_before:
        store.save(TENANT, [a_state(parent=uid(3))], None)
    created = Instant.parse("2026-05-05T00:00:00Z")
    last = a_state(updated="2025-01-01T00:00:00Z", parent=uid(5))
    changes = (
        lambda: store.save(TENANT, [a_state(updated=NEW, parent=uid(4)), a_state(11)], None),
        lambda: store.delete(TENANT, [uid(10), uid(10), uid(11), uid(12)], None),
        lambda: store.delete(TENANT, [uid(10), uid(11)], None),
        lambda: store.save(TENANT, [last], None),
        lambda: store.save(TENANT, [a_state(updated="2024-01-01T00:00:00Z")], None),
        lambda: store.save(TENANT, [a_state(updated=NEW, parent=uid(6), created_at=created)], None),
    )
    with waiting_together(store, root, *changes) as told:
        pass
    assert told == [Effect(2), Effect(2), Effect(), Effect(1), Effect(0, 1), Effect(1)]
    kept = a_state(updated=NEW, parent=uid(5), created_at=last.created_at)
    assert list(store.scan()) == [kept]


@pytest.mark.case("G07")
def test_one_state_that_finds_no_room_does_not_fail_the_others_of_its_group(store, root, monkeypatch):
    real = os.write

    def write(descriptor, data):
        if b"too large" in bytes(data):
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    contents = ["a", "too large", "b"]
    changes = [
        partial(store.save, TENANT, [a_state(number, content=content), a_state(20 + number)], a_receipt(str(number)))
        for number, content in enumerate(contents)
    ]
    with waiting_together(store, root, *changes) as told:
        pass
    assert [type(outcome) for outcome in told] == [Effect, StoreFull, Effect]
    assert [state.id for state in store.scan()] == [uid(number) for number in (0, 2, 20, 22)]
    assert [store.repeated(TENANT, a_receipt(str(number))) for number in range(3)] == [True, False, True]
    assert not leftovers(root)


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
    assert all(store.repeated(TENANT, a_receipt(updated)) for updated in versions)


@pytest.mark.case("G01")
def test_readers_that_run_see_whole_batches_while_writers_are_killed(store, root, tmp_path):
    """A batch is one version of four states: who reads them one by one may see newer ones, never an older one."""
    done = tmp_path / "done"

    def write():
        real = os.rename  # slowed, so that most die between two of them
        os.rename = lambda *names: (real(*names), time.sleep(0.0005))
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
                while store.find(TENANT, IDS[0]).content.text == before:
                    time.sleep(0.001)
                time.sleep(0.0005 * (number % 20))
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
                time.sleep(60)

        durable.sync_folder = stop
        change_of("save", FilesystemStore(str(root), 5))

    store.timeout = 0.2
    with processes(stop_half_way) as [writer]:
        assert os.read(ready, 1) == b"x"
        for read in (
            lambda: store.find(TENANT, IDS[0]),
            lambda: next(store.scan()),
            lambda: store.repeated(TENANT, a_receipt("x")),
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
            time.sleep(0.05)
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


@pytest.fixture
def unfinished(tmp_path) -> Path:
    """The folder of a store in which a process died just after it had committed a change."""
    base, place = tmp_path / "base", tmp_path / "unfinished"
    a_store_to_change(base)
    for number in range(1, 100):
        shutil.copytree(base, place)
        killed_at(number, lambda: change_of("save", FilesystemStore(str(place), 5)))
        if (place / TENANT / ".change" / "record").exists():
            break
        shutil.rmtree(place)
    return place


def test_an_unfinished_change_whose_files_were_lost_is_dropped_as_a_whole(tmp_path, unfinished):
    names = os.listdir(unfinished / TENANT / ".change")
    assert len(names) == 3
    for name in names:
        for data in (None, b"", b"{"):
            place = shutil.copytree(unfinished, tmp_path / "place")
            path = place / TENANT / ".change" / name
            path.unlink() if data is None else path.write_bytes(data)
            store = FilesystemStore(str(place), 5)
            assert view(store) == ((OLD, NEW, None, OLD), False)
            store.save(TENANT, [], a_receipt("further"))
            assert not leftovers(place)
            shutil.rmtree(place)


def test_an_unfinished_change_is_finished_in_a_copy_without_the_empty_folders(unfinished):
    (unfinished / TENANT / IDS[2][:2]).rmdir()
    assert view(FilesystemStore(str(unfinished), 5)) == ((NEW, NEW, "new", OLD), True)


@pytest.mark.case("G07")
def test_while_a_change_cannot_be_finished_for_want_of_room_nobody_says_that_nothing_was_changed(unfinished):
    store = FilesystemStore(str(unfinished), 5)
    store._prepared = durable.identity(str(unfinished / "format"))  # as in a process that runs since before
    for call in (lambda: store.find(TENANT, IDS[0]), lambda: change_of("save", store)):
        locking = iter([True])

        def step(locking=locking):
            if not next(locking, False):
                raise OSError(errno.ENOSPC, "full")

        with watching(step), pytest.raises(StoreUnavailable):
            call()
    assert view(store) == ((NEW, NEW, "new", OLD), True)


def test_a_reader_waits_for_the_change_that_it_met_and_for_no_later_one(store, root):
    store.save(TENANT, [a_state()], None)
    record = root / TENANT / ".change" / "record"
    record.write_text("1")
    (root / TENANT / ".change" / "next").write_text("2")
    with durable.locked(str(root / TENANT), time.monotonic()):
        changing = threading.Timer(0.2, os.rename, (root / TENANT / ".change" / "next", record))
        changing.start()
        began = time.monotonic()
        assert store.find(TENANT, uid(10)) == a_state()
        assert 0.1 < time.monotonic() - began < 2
        changing.join()
