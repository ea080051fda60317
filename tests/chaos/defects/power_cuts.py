"""Defects that only a power cut shows: planted into the processes whose disk is recorded (tests.chaos.powercut)."""

import os
import stat
from collections.abc import Callable

from receiver.stores import filesystem
from receiver.stores.contract import Store
from receiver.stores.sqlite import SqliteStore
from receiver.stores.sqlite.file import DatabaseFile
from tests.chaos.defects import defect

_LOST = {"lost", "receipt lost", "half done", "refused", "broken", "damaged"}


def _syncs(skipped: Callable[[str, bool], bool]) -> None:
    """Leave out the syncs of Python code that ``skipped`` (path, whether it is a folder) names."""
    honest = os.fsync

    def fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if not skipped(os.readlink(f"/proc/self/fd/{descriptor}"), is_folder):
            honest(descriptor)

    os.fsync = fsync


@defect("synchronous-normal", "SQLite commits without a sync", "power-cut", "sqlite", _LOST, seconds=5)
def _synchronous_normal() -> None:
    honest = DatabaseFile.connect

    def connect(self):
        connection = honest(self)
        connection.execute("pragma synchronous = normal")
        return connection

    DatabaseFile.connect = connect


@defect(
    "new-folder-not-synced",
    "the folder that is made for the file is not synced in its parent",
    "power-cut",
    "sqlite",
    _LOST,
)
def _new_folder_not_synced() -> None:
    _syncs(lambda path, is_folder: path == os.environ["CHAOS_SHIM_ROOT"])


@defect(
    "new-store-not-synced", "the folder of the store is not synced in its parent", "power-cut", "file", _LOST, seconds=5
)
def _new_store_not_synced() -> None:
    _new_folder_not_synced()


@defect("no-sync-of-folders", "folders are not synced", "power-cut", "file", _LOST, seconds=5)
def _no_sync_of_folders() -> None:
    _syncs(lambda path, is_folder: is_folder)


@defect("no-sync-of-files", "files are not synced before they get their names", "power-cut", "file", _LOST, seconds=5)
def _no_sync_of_files() -> None:
    _syncs(lambda path, is_folder: not is_folder)


@defect(
    "no-sync-of-shards", "the folders that state files move to are not synced", "power-cut", "file", _LOST, seconds=5
)
def _no_sync_of_shards() -> None:
    _syncs(lambda path, is_folder: is_folder and len(os.path.basename(path)) == 2)


@defect("no-sync-of-receipts", "the folder of the receipts is not synced", "power-cut", "file", _LOST, seconds=5)
def _no_sync_of_receipts() -> None:
    _syncs(lambda path, is_folder: is_folder and path.endswith(".receipts"))


@defect(
    "no-sync-of-the-commit",
    "the folder of the change is not synced after its commit",
    "power-cut",
    "file",
    _LOST,
    seconds=5,
)
def _no_sync_of_the_commit() -> None:
    _syncs(lambda path, is_folder: is_folder and path.endswith(".change"))


@defect(
    "failed-sync-retried",
    "a failed sync is tried again, and believed",
    "power-cut-failed-syncs",
    "file",
    _LOST,
    seconds=5,
)
def _failed_sync_retried() -> None:
    honest = os.fsync

    def fsync(descriptor):
        try:
            honest(descriptor)
        except OSError:
            honest(descriptor)

    os.fsync = fsync


def _receipt_first(kind: type[Store]) -> None:
    for name in ("save", "delete"):
        setattr(kind, name, _receipt_before(getattr(kind, name), kind.save))


def _receipt_before(honest, save):
    def change(self, tenant, items, receipt):
        if receipt and save(self, tenant, [], receipt).jti_was == "repeated":
            return save(self, tenant, [], receipt)
        return honest(self, tenant, items, None)

    return change


@defect(
    "receipts-first", "a receipt is kept in a transaction of its own, before the change", "power-cut", "sqlite", _LOST
)
def _receipts_first() -> None:
    _receipt_first(SqliteStore)


@defect("receipt-files-first", "a receipt is kept before the change, by itself", "power-cut", "file", _LOST, seconds=5)
def _receipt_files_first() -> None:
    _receipt_first(filesystem.FilesystemStore)
