"""Fixtures for the tests of content at rest."""

import contextlib

import pytest

from receiver.stores import open_store
from tests.support.backends import url_of_an_empty_store
from tests.support.sealing import STORES


@pytest.fixture(params=STORES)
def inner(request, tmp_path):
    """An empty store of each kind, as it is without sealing."""
    with contextlib.closing(
        open_store(url_of_an_empty_store(request, request.param, tmp_path / "sealed"), 10)
    ) as opened:
        opened.prepare()
        yield opened
