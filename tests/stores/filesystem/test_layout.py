"""What lies on the disk of a store of files, and what is swept away."""

import json
import os
import re
import stat
import subprocess
import time

import pytest

from receiver.idempotency import Effect
from receiver.problems import ReplayRefused
from receiver.states import NANOSECONDS
from receiver.stores.filesystem import FilesystemStore, durable
from receiver.stores.filesystem.changes import TenantFolder
from tests.support.filesystem import FUTURE, NEW, OLD, PAST, file_of, files, leftovers
from tests.support.states import NOW, OTHER, TENANT, a_receipt, a_state, uid


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
    assert len(modes) == 27
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
        lambda: store.was_done(name, a_receipt()),
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
        assert store.was_done(TENANT, a_receipt())
        assert not store.was_done(TENANT, a_receipt("two"))
        assert not store.was_done(OTHER, a_receipt())
        assert not store.was_done(TENANT, a_receipt(now=NOW + 361))
        with pytest.raises(ReplayRefused):
            store.was_done(TENANT, a_receipt(method="DELETE"))
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
