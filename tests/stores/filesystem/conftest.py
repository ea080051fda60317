"""Fixtures for the tests of the store of files."""

import pytest

from receiver.stores.filesystem import FilesystemStore


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(root):
    """A store of files, for the tests here and for the receiver that some of them call."""
    opened = FilesystemStore(str(root), 5)
    opened.prepare()
    return opened
