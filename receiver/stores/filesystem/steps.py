"""The steps of a change, and of making one anew that a step failed of; ``changes.py`` says why they are these.

All are taken under the tenant's lock.
"""

import os
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress

from receiver.stores.filesystem import durable
from receiver.stores.filesystem.formats import encode, to_line
from receiver.stores.filesystem.layout import Layout
from receiver.stores.filesystem.planning import Plan
from receiver.stores.filesystem.receipts import fields_of
from receiver.stores.filesystem.reserve import Reserve
from receiver.stores.filesystem.shapes import Fields

_MADE = re.compile(r"[0-9a-f]{2}|\.receipts")  # the folders that a change makes where they are missing


class Steps(Layout):
    """The steps in the folder of ``tenant``; ``reserve`` is that of the store."""

    def __init__(self, root: str, tenant: str, reserve: Reserve) -> None:
        super().__init__(root, tenant)
        self._reserve = reserve

    def _written(self, plan: Plan) -> Fields:
        """Write ``plan`` into ``.change`` and commit it; return its record. An error leaves nothing behind."""
        if not plan.states:
            return self._reserve.lending(lambda: self._write(plan))
        self._reserve.ensure()
        return self._write(plan)

    def _write(self, plan: Plan) -> Fields:
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
                self._discard()
            raise
        return record

    def _files(self, record: Fields, plan: Plan) -> Iterator[tuple[str, tuple[bytes, ...], int | None]]:
        """Yield the files of ``plan`` for ``durable.write_files``, one at a time in memory, ``record`` last."""
        for id, state in plan.states.items():
            line, content = encode(self.tenant, state)
            record["states"][id] = zlib.crc32(line)
            yield self._new(id, record), (line, content), None
        yield self._file_of_record(record)

    def _file_of_record(self, record: Fields) -> tuple[str, tuple[bytes, ...], int | None]:
        latest = max((receipt["expires"] for receipt in record["receipts"]), default=None)
        return self._new("", record), (to_line(record),), latest

    def _make_folders(self, record: Fields) -> None:
        folders = self._shards(record) | ({self.receipts.path} if record["receipts"] else set())
        if sum(map(durable.make_folder, folders)):
            durable.sync_folder(self.path)

    def _finished(self, record: Fields, waiting: Iterable[str]) -> None:
        try:
            self._finish(record, waiting)
        except OSError as cause:
            if not durable.is_full(cause):
                raise
            self._recover()

    def _finish(self, record: Fields, waiting: Iterable[str], again: bool = False) -> None:
        """Put the committed change ``record`` in place; its states ``waiting`` are still in ``.change``.

        With ``again``, it may be in place already: each name is then removed and made anew.
        """
        durable.sync_folder(self._change)
        for id in waiting:
            if again:  # two names of one file: renaming would do nothing
                _remove(self._file_of(id))
            os.rename(self._new(id, record), self._file_of(id))
        for id in record["deleted"]:
            if again:
                with suppress(FileExistsError):
                    os.link(self._record, self._file_of(id))
            _remove(self._file_of(id))
        for shard in self._shards(record):
            durable.sync_folder(shard)
        if record["receipts"]:
            self.receipts.keep(self._record, [receipt["jti"] for receipt in record["receipts"]])
        os.unlink(self._record)

    def _recover(self) -> None:
        """Make anew a change that was committed but not finished, or remove what was not committed. Under the lock."""
        try:
            if not os.listdir(self._change):
                return
        except FileNotFoundError:  # a copy that left out empty folders
            self._make_change()
            return
        self._reserve.lending(self._redo)
        self._discard()

    def _make_change(self) -> None:
        durable.make_folder(self._change)
        try:
            durable.sync_folder(self.path)
        except BaseException:
            durable.remove_empty_folder(self._change)
            raise

    def _redo(self) -> None:
        """Make the committed change, if any, again: every name of it, since a sync may have failed."""
        committed = self._committed()
        if committed is None:
            return
        former, paths = committed
        record = former | {"token": secrets.token_hex(8)}
        self._remove_empty_folders()
        try:
            for id, path in paths.items():
                os.link(path, self._new(id, record))
            durable.write_files([self._file_of_record(record)])
            self._make_folders(record)
            os.rename(self._new("", record), self._record)
        except BaseException:
            with suppress(OSError):
                for id in ("", *paths):
                    _remove(self._new(id, record))
            raise
        self._finish(record, paths, again=True)

    def _discard(self) -> None:
        """Empty ``.change``, after removing the folders that a failed change may have made in vain."""
        left = os.listdir(self._change)
        if left:
            self._remove_empty_folders()
        for name in left:
            os.unlink(f"{self._change}/{name}")

    def _remove_empty_folders(self) -> None:
        for name in filter(_MADE.fullmatch, os.listdir(self.path)):
            durable.remove_empty_folder(f"{self.path}/{name}")


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
