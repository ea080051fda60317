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

A step can fail: the process dies, the disk is full or broken. What is left in ``.change`` is then in doubt. A sync may
have failed and dropped what it held, and a second sync of the same folder would not say so. So nothing that is left is
only synced again; the next process gives every name anew:

- Before step 2 nothing was done. The files in ``.change`` are removed, and with them all folders that are empty, since
  those may have been made for this change. The same request makes new ones.
- From step 2 on, the change is made again under another token. Each state file gets a second name in ``.change``. A new
  record replaces the old one. Steps 3 to 5 then remove each name and make it anew. The contents need no second writing:
  there is no commit unless the sync of each file succeeded.
- Where the disk refuses even that, loads read through the record: a state that waits in ``.change`` from there, and
  deleted ones not at all. Changes are refused until it can be done. A full disk gives up its reserve first
  (``reserve.py``).
- A power cut in step 3, or a copy of the folder made meanwhile, can leave a record without its files: nothing of that
  change was acknowledged, and nothing is done.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from receiver.idempotency import Effect, Receipt
from receiver.problems import StoreDamaged
from receiver.stores.filesystem import durable
from receiver.stores.filesystem.formats import StateFile
from receiver.stores.filesystem.planning import Change, Plan
from receiver.stores.filesystem.reserve import Reserve
from receiver.stores.filesystem.shapes import Fields
from receiver.stores.filesystem.steps import Steps
from receiver.stores.group_commit import GroupCommit
from receiver.threadpool import blocking

_TRIED_AGAIN = 0.5  # seconds after which a load tries again to finish a change that it could not finish


class TenantFolder(Steps):
    """The folder of ``tenant`` in the folder ``root``; it need not exist. One object serves all threads."""

    def __init__(self, root: str, tenant: str, reserve: Reserve) -> None:
        super().__init__(root, tenant, reserve)
        self._group: GroupCommit[Change, Effect] = GroupCommit(self._commit, self._locked)
        self._stuck: tuple[int, int, int] | None = None  # the record that could not be finished
        self._tried = 0.0

    def current(self, id: str, timeout: float) -> StateFile:
        """Return the open StateFile of ``id`` after all committed changes; raises FileNotFoundError, StoreDamaged."""
        try:
            return self._current(id, timeout)
        except (FileNotFoundError, StoreDamaged):  # a name that is given anew is missing for an instant
            return self._current(id, timeout)

    def _current(self, id: str, timeout: float) -> StateFile:
        record = self.unfinished(timeout)
        if record and id in record["deleted"]:
            raise FileNotFoundError(id)
        if record and id in record["states"]:
            with suppress(FileNotFoundError):
                return StateFile(self._new(id, record), self.tenant, id)
        return self.open(id)

    def unfinished(self, timeout: float, patience: float = _TRIED_AGAIN) -> Fields | None:
        """Settle; return the record of a committed change that the disk lets nobody finish, which is rare, or None.

        What failed less than ``patience`` seconds ago is not tried again.
        """
        seen = durable.identity(self._record)
        if seen is None:
            return None
        if seen != self._stuck or time.monotonic() - self._tried >= patience:
            try:
                self.settle(timeout)
                return None
            except OSError:
                self._stuck, self._tried = durable.identity(self._record), time.monotonic()
        committed = self._committed()
        return committed[0] if committed else None

    def awaits(self, receipt: Receipt, timeout: float) -> bool:
        """Return whether the change of ``receipt`` is committed but cannot be finished, so that it may not last."""
        record = self.unfinished(timeout, patience=0.0)
        return record is not None and any(kept["jti"] == receipt.jti for kept in record["receipts"])

    def settle(self, timeout: float) -> None:
        """Wait until the change under way, if any, is wholly in place; finish it if its process died.

        Raises StoreUnavailable after ``timeout`` seconds, OSError where it cannot be finished. Normally one look
        suffices, and no lock is taken.
        """
        seen = durable.identity(self._record)
        deadline = time.monotonic() + timeout
        while seen is not None and durable.identity(self._record) == seen:
            with self._lock_if_free(deadline) as held:
                if held:
                    self._recover()
                    return
            durable.pause(deadline)

    def tidy(self) -> None:
        """Finish or remove what dead processes left; a living process finishes its own."""
        if os.listdir(self._change):
            with self._lock_if_free(time.monotonic()) as held:
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
        self._make(deadline)
        return durable.locked(self.path, deadline)

    @contextmanager
    def _lock_if_free(self, deadline: float) -> Iterator[bool]:
        self._make(deadline)  # a copy may lack the lock
        with durable.lock_if_free(self.path) as held:
            yield held

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
            record = self._written(plan)
        except Exception as cause:  # noqa: BLE001 - its own caller gets it: one state too large must not fail the others
            return [self._alone(change) for change in group] if len(group) > 1 else [cause]
        try:
            with durable.file_errors():
                self._finished(record, plan.states)
        except Exception as cause:  # noqa: BLE001 - every caller of the group gets it
            return [outcome if isinstance(outcome, Exception) else cause for outcome in outcomes]
        return outcomes

    def _alone(self, change: Change) -> Effect | Exception:
        try:
            return self._done([change])[0]
        except Exception as cause:  # noqa: BLE001 - its own caller gets it
            return cause

    def _make(self, deadline: float) -> None:
        """Make the folder if it has no lock, which comes last: where that exists, the rest is durable."""
        if durable.identity(f"{self.path}/{durable.LOCK}") is not None:
            return
        durable.make_lock(self.root)  # a copy may lack it
        with durable.locked(self.root, deadline):
            for folder in (self._change, self.path):  # made by a process that could not sync them, or died before that
                durable.remove_empty_folder(folder)
            for folder in (self.path, self._change):
                durable.make_folder(folder)
            for folder in (self.path, self.root):
                durable.sync_folder(folder)
            durable.make_lock(self.path)
