"""The folder of one tenant, and how it is changed: all or nothing, at whatever instant the process or the power goes.

Changes that wait at the same moment are done as a group, with one record and its syncs: "the change" below.

| in the folder          |                                                                                    |
|------------------------|------------------------------------------------------------------------------------|
| ``ab/<id>.state``        | a state, in the shard of the first two digits of its id                              |
| ``.receipts/<hash>``     | the record of a change that came with a ``jti``, under the SHA-256 of each one it has |
| ``.lock``                | locked by whoever changes something here                                           |
| ``.change/``             | the change under way; empty at rest                                                |
| ``.change/<id>.<token>`` | a state file on its way to its shard                                               |
| ``.change/record``       | what the change does; once it bears this name, the change is done, come what may     |

The steps of a change, under the lock. A name lasts when its folder is synced; before that, in no order.

1. State files and record are written into ``.change`` and synced; the folders they go to are made and synced.
2. The record gets its name: the commit. From here on whoever meets it goes on with step 3.
3. ``.change`` is synced. State files move to their shards, deleted ones go, the shards are synced.
4. The record gets a second name in ``.receipts`` for each receipt that it came with, and that folder is synced.
5. It loses the first. That need not last: a record that comes back is finished again, to no effect, since a later
   change replaces it before it moves a file.

What a process left that died before step 2 is removed by the next one. A power cut in step 3, or a copy of the folder
made meanwhile, can leave a record without its files: nothing of that change was acknowledged, and nothing is done.
"""

import os
import secrets
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress

from receiver.idempotency import Effect
from receiver.problems import StoreDamaged
from receiver.stores.filesystem import durable
from receiver.stores.filesystem.formats import StateFile, Torn, encode, from_line, to_line
from receiver.stores.filesystem.planning import Change, Plan
from receiver.stores.filesystem.receipts import Receipts, fields_of
from receiver.stores.filesystem.shapes import Fields, is_record, only
from receiver.stores.group_commit import GroupCommit
from receiver.threadpool import waiting


class TenantFolder:
    """The folder of ``tenant`` in the folder ``root``, which need not have one. One object serves all threads."""

    def __init__(self, root: str, tenant: str) -> None:
        self.root = root
        self.tenant = tenant
        self.path = f"{root}/{tenant}"
        self.receipts = Receipts(f"{self.path}/.receipts")
        self._change = f"{self.path}/.change"
        self._record = f"{self._change}/record"
        self._group: GroupCommit[Change, Effect] = GroupCommit(self._commit, self._locked)

    def open(self, id: str) -> StateFile:
        """Return the open StateFile of ``id``; raises FileNotFoundError, StoreDamaged."""
        return StateFile(self._file_of(id), self.tenant, id)

    def held(self, ids: Iterable[str]) -> list[str]:
        """Return those of ``ids`` that there is a state of, damaged or not."""
        shards = set(os.listdir(self.path))
        return [id for id in ids if id[:2] in shards and durable.identity(self._file_of(id))]

    def settle(self, timeout: float) -> None:
        """Return when no change that is seen now is half in place: wait for a living process, finish for a dead one.

        Raises StoreUnavailable after ``timeout`` seconds. Normally one look suffices and no lock is taken.
        """
        seen = durable.identity(self._record)
        deadline = time.monotonic() + timeout
        while seen is not None and durable.identity(self._record) == seen:
            with durable.lock_if_free(self.path) as held:
                if held:
                    self._recover()
                    return
            durable.pause(deadline)

    def tidy(self) -> None:
        """Finish, or remove, what dead processes left. What a living one is about is left to it."""
        if os.listdir(self._change):
            with durable.lock_if_free(self.path) as held:
                if held:
                    self._recover()

    def change(self, change: Change, timeout: float) -> Effect:
        """Return what ``change`` answers, when it lasts. Whatever it raises before the commit leaves nothing.

        After it, and when its turn has not come within ``timeout`` seconds, it raises StoreUnavailable. A change that
        was committed is gone on with by the next call.
        """
        # Threads of one process queue here; only processes meet in the polling of the file's lock.
        return self._group.submit(change, timeout)

    def _locked(self, deadline: float) -> AbstractContextManager[None]:
        """Return what holds this tenant's lock, as ``durable.locked`` does; makes the folder if it is not there."""
        if durable.identity(f"{self.path}/{durable.LOCK}") is None:
            self._make()
        return durable.locked(self.path, deadline)

    def _commit(self, group: Sequence[Change]) -> list[Effect | Exception]:
        """Do the changes of ``group`` durably and return what each answers, or its exception; under the lock."""
        with waiting():
            return self._done(group)

    def _done(self, group: Sequence[Change]) -> list[Effect | Exception]:
        self._recover()
        plan = Plan(self)
        outcomes = [plan.outcome_of(change) for change in group]
        if not (plan.states or plan.deleted or plan.receipts):
            return outcomes
        try:
            record = self._write(plan)
        except Exception as cause:  # noqa: BLE001 - its own caller gets it: one state too large must not fail the others
            return [self._alone(change) for change in group] if len(group) > 1 else [cause]
        try:
            with durable.file_errors():
                self._finish(record, plan.states)
        except Exception as cause:  # noqa: BLE001 - every caller of the group gets it
            return [outcome if isinstance(outcome, Exception) else cause for outcome in outcomes]
        return outcomes

    def _alone(self, change: Change) -> Effect | Exception:
        try:
            return self._done([change])[0]
        except Exception as cause:  # noqa: BLE001 - its own caller gets it
            return cause

    def _make(self) -> None:
        """Make the folder. Its lock comes last: where that is, the rest lasts, whoever made it."""
        for folder in (self.path, self._change):
            durable.make_folder(folder)
        for folder in (self.path, self.root):
            durable.sync_folder(folder)
        durable.make_lock(self.path)

    def _write(self, plan: Plan) -> Fields:
        """Write what ``plan`` does into ``.change`` and commit it; return its record. What it raises leaves nothing."""
        receipts = [fields_of(receipt) for receipt in plan.receipts.values()]
        record: Fields = {
            "token": secrets.token_hex(8),
            "states": {},
            "deleted": list(plan.deleted),
            "receipts": receipts,
        }
        try:
            # Files come first: they tell who finds them that a folder may have been made that does not last yet.
            durable.write_files(self._files(record, plan))
            self._make_folders(record)
            os.rename(self._new("", record), self._record)
        except BaseException:
            with suppress(OSError):
                self._sweep()
            raise
        return record

    def _files(self, record: Fields, plan: Plan) -> Iterator[tuple[str, tuple[bytes, ...], int | None]]:
        """Yield the files of ``plan``, one at a time in memory, for ``durable.write_files``; ``record`` is the last."""
        for id, state in plan.states.items():
            line, content = encode(self.tenant, state)
            record["states"][id] = zlib.crc32(line)
            yield self._new(id, record), (line, content), None
        latest = max((receipt.expires for receipt in plan.receipts.values()), default=None)
        yield self._new("", record), (to_line(record),), latest

    def _make_folders(self, record: Fields) -> None:
        folders = self._shards(record) | ({self.receipts.path} if record["receipts"] else set())
        if sum(map(durable.make_folder, folders)):
            durable.sync_folder(self.path)

    def _finish(self, record: Fields, waiting: Collection[str]) -> None:
        """Put the committed change ``record`` in place; its states ``waiting`` are still in ``.change``."""
        durable.sync_folder(self._change)
        for id in waiting:
            os.rename(self._new(id, record), self._file_of(id))
        for id in record["deleted"]:
            with suppress(FileNotFoundError):
                os.unlink(self._file_of(id))
        for shard in self._shards(record):
            durable.sync_folder(shard)
        if record["receipts"]:
            self.receipts.keep(self._record, [receipt["jti"] for receipt in record["receipts"]])
        os.unlink(self._record)

    def _recover(self) -> None:
        """Finish the change that a dead process committed, remove what one left that did not; under the lock."""
        with durable.file_errors():
            try:
                if not os.listdir(self._change):
                    return
            except FileNotFoundError:  # a copy of the folder, without its empty ones
                self._make()
                return
            record = self._read_record()
            if record:
                waiting = [id for id in record["states"] if not self._is_written(self._file_of(id), id, record)]
                if all(self._is_written(self._new(id, record), id, record) for id in waiting):
                    self._make_folders(record)
                    self._finish(record, waiting)
            self._sweep()

    def _sweep(self) -> None:
        """Remove what lies in ``.change``, after making a folder last that its maker may not have."""
        left = os.listdir(self._change)
        if left:
            durable.sync_folder(self.path)
        for name in left:
            os.unlink(f"{self._change}/{name}")

    def _read_record(self) -> Fields | None:
        """Return the record of the change under way; None where none was written whole.

        Raises StoreDamaged for one that was, and is none of a change here: what it does to whose files is not known.
        """
        try:
            with open(self._record, "rb", opener=durable.read_only) as file:
                return only(from_line(file.read()), is_record)
        except (FileNotFoundError, Torn):
            return None
        except ValueError as cause:
            told = "is not the record of a change; nothing of it is done, and this tenant waits until it is moved away"
            raise StoreDamaged(f"files: {self._record} {told}") from cause

    def _is_written(self, path: str, id: str, record: Fields) -> bool:
        """Tell whether at ``path`` lies, undamaged, the very file of the state ``id`` that ``record`` is about."""
        try:
            with StateFile(path, self.tenant, id) as file:
                file.whole()
                return bool(zlib.crc32(file.line) == record["states"][id])
        except (FileNotFoundError, StoreDamaged):
            return False

    def _file_of(self, id: str) -> str:
        return f"{self.path}/{id[:2]}/{id}.state"

    def _new(self, id: str, record: Fields) -> str:
        return f"{self._change}/{id}.{record['token']}"

    def _shards(self, record: Fields) -> set[str]:
        return {f"{self.path}/{id[:2]}" for id in (*record["states"], *record["deleted"])}
