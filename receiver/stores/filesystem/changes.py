"""The folder of one tenant, and how it is changed: all or nothing, at whatever instant the process or the power goes.

| in the folder          |                                                                                    |
|------------------------|------------------------------------------------------------------------------------|
| ``ab/<id>.state``        | a state, in the shard of the first two digits of its id                              |
| ``.receipts/<hash>``     | the record of a change that came with a ``jti``, under that one's SHA-256             |
| ``.lock``                | locked by whoever changes something here                                           |
| ``.change/``             | the change under way; empty at rest                                                |
| ``.change/<id>.<token>`` | a state file on its way to its shard                                               |
| ``.change/record``       | what the change does; once it bears this name, the change is done, come what may     |

The steps of a change, under the lock. A name lasts when its folder is synced; before that, in no order.

1. State files and record are written into ``.change`` and synced; the folders they go to are made and synced.
2. The record gets its name: the commit. From here on whoever meets it goes on with step 3.
3. ``.change`` is synced. State files move to their shards, deleted ones go, the shards are synced.
4. The record gets a second name in ``.receipts``, which is synced, if it came with a receipt.
5. It loses the first. That need not last: a record that comes back is finished again, to no effect, since a later
   change replaces it before it moves a file.

What a process left that died before step 2 is removed by the next one. A power cut in step 3, or a copy of the folder
made meanwhile, can leave a record without its files: nothing of that change was acknowledged, and nothing is done.
"""

import os
import secrets
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from receiver.problems import StoreDamaged
from receiver.states import State
from receiver.stores import Receipt
from receiver.stores.filesystem import durable
from receiver.stores.filesystem.formats import StateFile, encode, seal, unseal
from receiver.stores.filesystem.receipts import Receipts, fields_of


class TenantFolder:
    """The folder of ``tenant`` in the folder ``root``, which need not have one. One object serves all threads."""

    def __init__(self, root: str, tenant: str):
        self.root = root
        self.tenant = tenant
        self.path = f"{root}/{tenant}"
        self.receipts = Receipts(f"{self.path}/.receipts")
        self._change = f"{self.path}/.change"
        self._record = f"{self._change}/record"
        self._queue = durable.Queue()

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

    @contextmanager
    def locked(self, timeout: float) -> Iterator[None]:
        """Hold this tenant's lock, with nothing half done; makes the folder.

        Raises StoreUnavailable after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        # Threads of one process queue here; only processes meet in the polling of the file's lock.
        with self._queue.turn(deadline):
            if durable.identity(f"{self.path}/{durable.LOCK}") is None:
                self._make()
            with durable.locked(self.path, deadline):
                self._recover()
                yield

    def commit(self, states: Mapping[str, State], deleted: Collection[str], receipt: Receipt | None) -> None:
        """Store ``states``, by id, delete those of the ids ``deleted`` and keep ``receipt``, durably; under the lock.

        Whatever it raises before the commit leaves nothing. After it, it raises StoreUnavailable, and the next
        call goes on with the change.
        """
        if not (states or deleted or receipt):
            return
        record = {"token": secrets.token_hex(8), "states": {}, "deleted": list(deleted), "receipt": fields_of(receipt)}
        try:
            self._write(record, states)
            os.rename(self._new("", record), self._record)
        except BaseException:
            with suppress(OSError):
                self._sweep()
            raise
        with durable.file_errors():
            self._finish(record, states)

    def _make(self) -> None:
        """Make the folder. Its lock comes last: where that is, the rest lasts, whoever made it."""
        for folder in (self.path, self._change):
            durable.make_folder(folder)
        for folder in (self.path, self.root):
            durable.sync_folder(folder)
        durable.make_lock(self.path)

    def _write(self, record: dict, states: Mapping[str, State]) -> None:
        """Write the files of the change ``record``, itself the last, into ``.change``, and make the folders they go to.

        Files come first: they tell who finds them that a folder may have been made that does not last yet.
        """
        for id, state in states.items():
            line, content = encode(self.tenant, state)
            durable.write_file(self._new(id, record), line, content)
            record["states"][id] = zlib.crc32(line)
        expires = record["receipt"]["expires"] if record["receipt"] else None
        durable.write_file(self._new("", record), seal(record), mtime=expires)
        self._make_folders(record)

    def _make_folders(self, record: dict) -> None:
        folders = self._shards(record) | ({self.receipts.path} if record["receipt"] else set())
        if sum(map(durable.make_folder, folders)):
            durable.sync_folder(self.path)

    def _finish(self, record: dict, waiting: Collection[str]) -> None:
        """Put the committed change ``record`` in place; its states ``waiting`` are still in ``.change``."""
        durable.sync_folder(self._change)
        for id in waiting:
            os.rename(self._new(id, record), self._file_of(id))
        for id in record["deleted"]:
            with suppress(FileNotFoundError):
                os.unlink(self._file_of(id))
        for shard in self._shards(record):
            durable.sync_folder(shard)
        if record["receipt"]:
            self.receipts.keep(self._record, record["receipt"]["jti"])
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

    def _read_record(self) -> dict | None:
        try:
            with open(self._record, "rb", opener=durable.read_only) as file:
                return unseal(file.read())
        except (FileNotFoundError, ValueError):
            return None

    def _is_written(self, path: str, id: str, record: dict) -> bool:
        """Tell whether at ``path`` lies, undamaged, the very file of the state ``id`` that ``record`` is about."""
        try:
            with StateFile(path, self.tenant, id) as file:
                file.whole()
                return zlib.crc32(file.line) == record["states"][id]
        except (FileNotFoundError, StoreDamaged):
            return False

    def _file_of(self, id: str) -> str:
        return f"{self.path}/{id[:2]}/{id}.state"

    def _new(self, id: str, record: dict) -> str:
        return f"{self._change}/{id}.{record['token']}"

    def _shards(self, record: dict) -> set[str]:
        return {f"{self.path}/{id[:2]}" for id in (*record["states"], *record["deleted"])}
