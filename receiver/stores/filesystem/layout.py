"""Where the files of one tenant are, and what they hold now; changes nothing."""

import os
import zlib
from collections.abc import Iterable

from receiver.problems import StoreDamaged
from receiver.stores.filesystem import durable
from receiver.stores.filesystem.formats import StateFile, Torn, from_line
from receiver.stores.filesystem.receipts import Receipts
from receiver.stores.filesystem.shapes import Fields, is_record, only


class Layout:
    """The folder of ``tenant`` in the folder ``root``; it need not exist."""

    def __init__(self, root: str, tenant: str) -> None:
        self.root = root
        self.tenant = tenant
        self.path = f"{root}/{tenant}"
        self.receipts = Receipts(f"{self.path}/.receipts")
        self._change = f"{self.path}/.change"
        self._record = f"{self._change}/record"

    def open(self, id: str) -> StateFile:
        """Return the open StateFile of ``id``; raises FileNotFoundError, StoreDamaged."""
        return StateFile(self._file_of(id), self.tenant, id)

    def held(self, ids: Iterable[str]) -> list[str]:
        """Return those of ``ids`` that have a state, damaged or not."""
        shards = set(os.listdir(self.path))
        return [id for id in ids if id[:2] in shards and durable.identity(self._file_of(id))]

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

    def _committed(self) -> tuple[Fields, dict[str, str]] | None:
        """Return the record of a committed change and the path of each of its states, in ``.change`` or in place.

        None where there is no such change: also for a record that came without all of its files.
        """
        record = self._read_record()
        if record is None:
            return None
        paths: dict[str, str] = {}
        for id in record["states"]:
            places = (self._file_of(id), self._new(id, record))
            path = next((path for path in places if self._is_written(path, id, record)), None)
            if path is None:
                return None
            paths[id] = path
        return record, paths

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
