"""Fixtures for the tests of content at rest."""

import contextlib

import pytest

from receiver.stores import open_store
from tests.support.backends import SERVERS
from tests.support.sealing import STORES


@pytest.fixture(params=STORES)
def inner(request, tmp_path):
    """An empty store of each kind, as it is without sealing."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/sealed.db"
    elif request.param == "filesystem":
        url = f"file://{tmp_path}/sealed"
    else:
        url = request.getfixturevalue(request.param).url(request.getfixturevalue(SERVERS[request.param]).new_database())
    with contextlib.closing(open_store(url, 10)) as opened:
        opened.prepare()
        yield opened
