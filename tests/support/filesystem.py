"""Changes of a store of files, views of it, and stops between any two of its calls to the system."""

import os
import re
import signal
import time
import traceback
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from receiver.states import NANOSECONDS, Instant
from receiver.stores.filesystem import FilesystemStore, durable
from receiver.stores.filesystem.planning import deleting, saving
from tests.support.states import NOW, TENANT, a_receipt, a_state, uid

OLD, NEW = "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
PAST, FUTURE = (Instant.parse(text) for text in ("2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z"))
IDS = [f"{shard}000000-0000-0000-0000-000000000000" for shard in ("0a", "5b", "c3", "ff")]
MODELLED = ("open", "write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir")
UNUSED = ("replace", "remove", "symlink", "truncate")
MUTATING = (*MODELLED, *UNUSED, "utime", "chmod", "fchmod", "posix_fallocate")


def file_of(root, id, tenant=TENANT) -> Path:
    return root / tenant / id[:2] / f"{id}.state"


def files(root) -> dict[str, bytes]:
    """Return what all files under ``root`` hold."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def leftovers(root) -> list[str]:
    """Return the names of files that no store at rest has."""
    known = re.compile(
        r"format|(.+/)?\.lock|\.reserve/[0-9a-f]|[^/]+/\.receipts/[0-9a-f]{64}|[^/]+/([0-9a-f]{2})/\2[0-9a-f-]{34}\.state"
    )
    return [name for name in files(root) if not known.fullmatch(name)]


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
    return [store.was_done(TENANT, receipt) for receipt in receipts]


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
    return tuple(state and state.content.text for state in found), store.was_done(TENANT, receipt)


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


@contextmanager
def counted_syncs():
    with pytest.MonkeyPatch.context() as patch:
        synced, real = [], os.fsync
        patch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor))[1])
        yield synced
