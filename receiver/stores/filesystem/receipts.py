"""The receipts of one tenant: which requests were done before. A receipt is the record of its change's group."""

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress

from receiver.idempotency import Receipt
from receiver.problems import StoreDamaged
from receiver.stores.filesystem.durable import read_only, sync_folder
from receiver.stores.filesystem.formats import from_line
from receiver.stores.filesystem.shapes import Fields, is_record, only

_TIDYING = 60  # seconds between two searches for expired ones
_NAME = re.compile("[0-9a-f]{64}")


class Receipts:
    """The receipts in the folder ``path``, which need not exist."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._tidied: int | None = None

    def file_of(self, jti: str) -> str:
        """Return the path of the receipt of ``jti``, whether it exists or not."""
        return f"{self.path}/{_name_of(jti)}"

    def first_use(self, receipt: Receipt) -> tuple[str, bytes] | None:
        """Return (method, digest) of the first use of the ``jti`` of ``receipt``, or None; raises StoreDamaged."""
        try:
            path = self.file_of(receipt.jti)
            first = _read(path)
            return None if first["expires"] < receipt.now else (first["method"], bytes.fromhex(first["digest"]))
        except FileNotFoundError:
            return None
        except ValueError as cause:
            raise StoreDamaged(f"files: the receipt {path} cannot be read back") from cause

    def keep(self, record: str, jtis: Iterable[str]) -> None:
        """Keep the file ``record``, which also stays where it is, as the receipt of all ``jtis``, durably."""
        for path in map(self.file_of, jtis):
            try:
                os.link(record, path)
            except FileExistsError:  # an expired one, or this very one
                os.unlink(path)
                os.link(record, path)
        sync_folder(self.path)

    def drop_expired(self, now: int) -> None:
        """Remove receipts that expired before ``now``, once in a while. Under the tenant's lock.

        A file's modification time is its latest expiry, so only expired ones are read. What they hold counts: a copy of
        the folder may have other times.
        """
        if self._tidied is not None and abs(now - self._tidied) < _TIDYING:
            return
        with suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in filter(lambda entry: _NAME.fullmatch(entry.name), entries):
                if entry.stat(follow_symlinks=False).st_mtime < now and _has_expired(entry.path, now):
                    os.unlink(entry.path)
        self._tidied = now


def fields_of(receipt: Receipt) -> dict[str, str | int]:
    """Return the fields of ``receipt`` in a record."""
    return {
        "jti": receipt.jti,
        "method": receipt.method,
        "digest": receipt.digest.hex(),
        "expires": receipt.expires,
    }


def _name_of(jti: str) -> str:
    return hashlib.sha256(jti.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: str) -> Fields:
    """Return the fields of the receipt that ``path`` is named for; raises ValueError for damage."""
    with open(path, "rb", opener=read_only) as file:
        kept = only(from_line(file.read()), is_record)["receipts"]
    fields: Fields
    for fields in kept:
        if _name_of(fields["jti"]) == os.path.basename(path):
            return fields
    raise ValueError("the receipt of another request")


def _has_expired(path: str, now: int) -> bool:
    try:
        return bool(_read(path)["expires"] < now)
    except ValueError:
        return True  # damaged, and expired by its time
