"""Fixtures for the tests of database servers: each engine, with an empty database."""

import contextlib

import pytest

from receiver.stores import open_store
from tests.support.sql import ENGINES, TIMEOUT


@pytest.fixture(params=ENGINES)
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def database(server):
    return server.new_database()


@pytest.fixture
def url(server, database):
    return server.url(database)


@pytest.fixture
def store(url):
    with contextlib.closing(open_store(url, TIMEOUT)) as opened:
        opened.prepare()
        yield opened
