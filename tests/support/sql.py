"""Database servers that refuse, and locks that are held."""

import contextlib
import time

import pytest

from receiver.problems import StoreUnavailable
from tests.support import servers

TIMEOUT = 2.0
ENGINES = ["postgresql", "mariadb"]


@contextlib.contextmanager
def unavailable(within=TIMEOUT + 0.7, kind=StoreUnavailable):
    """Assert that what is done inside is an outage, told in time."""
    began = time.monotonic()
    with pytest.raises(kind) as told:
        yield told
    assert time.monotonic() - began < within


@contextlib.contextmanager
def holding(server, database, *statements):
    """Hold what ``statements`` lock in a transaction of somebody else."""
    if isinstance(server, servers.Postgres):
        import psycopg

        connection = psycopg.connect(server.url(database))
    else:
        import pymysql

        connection = pymysql.connect(
            host="127.0.0.1", port=server.port, user="receiver", password=server.password, database=database
        )
    with contextlib.closing(connection), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        yield
        connection.rollback()
