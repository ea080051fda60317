"""The folder that a store makes for itself outlasts a power cut: its name is synced in its parent, the files' in it."""

import contextlib
import errno
import os
import stat

import pytest

from receiver.stores import open_store
from tests.support.states import TENANT, a_state


@pytest.mark.parametrize("is_left", [False, True])
@pytest.mark.parametrize("url", ["sqlite:///{}/new/states.db", "file://{}/new"])
def test_a_new_folder_and_what_is_in_it_are_synced_before_the_first_state(tmp_path, monkeypatch, url, is_left):
    synced, fsync = [], os.fsync

    def noted(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    if is_left:  # by a process that died before it synced anything
        (tmp_path / "new").mkdir(mode=0o700)
    monkeypatch.setattr(os, "fsync", noted)
    store = open_store(url.format(tmp_path), 5)
    store.prepare()
    assert str(tmp_path) in synced
    assert str(tmp_path / "new") in synced
    store.save(TENANT, [a_state()], None)
    store.close()


def test_a_file_system_that_syncs_no_folders_is_no_obstacle(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    with contextlib.closing(open_store(f"sqlite:///{tmp_path}/states.db", 5)) as store:
        store.prepare()
        assert store.save(TENANT, [a_state()], None).stored == 1
    assert (tmp_path / "states.db-marker").exists()
