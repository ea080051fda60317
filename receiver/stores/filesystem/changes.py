"""The folder of one tenant, and how it is changed: all or nothing, whenever the process dies or the power fails.

Changes that wait at the same time are made as a group, with one record and its syncs: "the change" below.

| in the folder          |                                                                                    |
|------------------------|------------------------------------------------------------------------------------|
| ``ab/<id>.state``        | a state, in the shard of the first two digits of its id                              |
| ``.receipts/<hash>``     | the record of a change that has a ``jti``, under the SHA-256 of each that it has    |
| ``.lock``                | locked while something is changed here                                             |
| ``.change/``             | the change under way; empty at rest                                                |
| ``.change/<id>.<token>`` | a state file on its way to its shard                                               |
| ``.change/record``       | what the change does; once it has this name, the change is committed                 |

The steps of a change, under the lock. Names last once their folder is synced; until then, any of them may be lost.

1. State files and record are written into ``.change`` and synced; the folders they go to are made and synced.
2. The record gets its name: the commit. From now on, any process that finds it continues with step 3.
3. ``.change`` is synced. State files move to their shards, deleted ones go, the shards are synced.
4. The record gets another name in ``.receipts`` for each of its receipts, and that folder is synced.
5. It loses its first name. That need not last: a record that comes back is finished again, without effect, since a
   later change replaces it before it moves a file.

The next process removes what is left of one that died before step 2. A power cut in step 3, or a copy of the folder
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
from receiver.threadpool import blocking


class TenantFolder:
    """The folder of ``tenant`` in the folder ``root``; it need not exist. One object serves all threads."""

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
        """Return those of ``ids`` that have a state, damaged or not."""
        shards = set(os.listdir(self.path))
        return [id for id in ids if id[:2] in shards and durable.identity(self._file_of(id))]

    def settle(self, timeout: float) -> None:
        """Wait until the change under way, if any, is wholly in place; finish it if its process died.

        Raises StoreUnavailable after ``timeout`` seconds. Normally one look suffices, and no lock is taken.
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
        """Finish or remove what dead processes left; a living process finishes its own."""
        if os.listdir(self._change):
            with durable.lock_if_free(self.path) as held:
                if held:
                    self._recover()

    def change(self, change: Change, timeout: float) -> Effect:
        """Make ``change`` and return its effect when it is durable. An error before the commit leaves nothing behind.

        Raises StoreUnavailable for an error after the commit: the next call finishes the change. Also when its turn
        has not come within ``timeout`` seconds.
        """
        # Threads of one process queue here; only processes poll the file's lock.
        return self._group.submit(change, timeout)

    def _locked(self, deadline: float) -> AbstractContextManager[None]:
        """Return the context that holds this tenant's lock (``durable.locked``); makes the folder if it is missing."""
        if durable.identity(f"{self.path}/{durable.LOCK}") is None:
            self._make()
        return durable.locked(self.path, deadline)

    def _commit(self, group: Sequence[Change]) -> list[Effect | Exception]:
        """Make the changes of ``group`` durably; return the effect of each, or its exception. Under the lock."""
        with blocking():
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
        """Make the folder. Its lock comes last: where that exists, the rest is durable."""
        for folder in (self.path, self._change):
            durable.make_folder(folder)
        for folder in (self.path, self.root):
            durable.sync_folder(folder)
        durable.make_lock(self.path)

    def _write(self, plan: Plan) -> Fields:
        """Write ``plan`` into ``.change`` and commit it; return its record. An error leaves nothing behind."""
        receipts = [fields_of(receipt) for receipt in plan.receipts.values()]
        record: Fields = {
            "token": secrets.token_hex(8),
            "states": {},
            "deleted": list(plan.deleted),
            "receipts": receipts,
        }
        try:
            # Files come first: they tell a process that finds them that a new folder may not be durable yet.
            durable.write_files(self._files(record, plan))
            self._make_folders(record)
            os.rename(self._new("", record), self._record)
        except BaseException:
            with suppress(OSError):
                self._sweep()
            raise
        return record

    def _files(self, record: Fields, plan: Plan) -> Iterator[tuple[str, tuple[bytes, ...], int | None]]:
        """Yield the files of ``plan`` for ``durable.write_files``, one at a time in memory, ``record`` last."""
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
        """Finish a change that a dead process committed, or remove what it left uncommitted. Under the lock."""
        with durable.file_errors():
            try:
                if not os.listdir(self._change):
                    return
            except FileNotFoundError:  # a copy that left out empty folders
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
        """Empty ``.change``, after syncing the tenant's folder: a process that died may not have done so."""
        left = os.listdir(self._change)
        if left:
            durable.sync_folder(self.path)
        for name in left:
            os.unlink(f"{self._change}/{name}")

    def _read_record(self) -> Fields | None:
        """Return the record of the change under way; None where none was written whole.

        Raises StoreDamaged for one that is whole but no record of a change here: its effect is unknown.
        """
        try:
            with open(self._record, "rb", opener=durable.read_only) as file:
                return only(from_line(file.read()), is_record)
        except (FileNotFoundError, Torn):
            return None
        except ValueError as cause:
            fault = "is not the record of a change: none of it is done, and this tenant waits until it is moved"
            raise StoreDamaged(f"files: {self._record} {fault}") from cause

    def _is_written(self, path: str, id: str, record: Fields) -> bool:
        """Return whether the file at ``path`` is the one that ``record`` wrote for the state ``id``, undamaged."""
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
