"""Connections of an engine's pool while they are in use, and their metrics."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, QueuePool

from receiver.telemetry import metrics


@contextmanager
def checked_out(engine: Engine) -> Iterator[Connection]:
    """Yield a connection of ``engine`` and return it at the end; raises SQLAlchemy's error when none is free."""
    with metrics.waiting_for_connection():
        connection = engine.connect()
    try:
        with connection:
            _note(engine)
            yield connection
    finally:
        _note(engine)


def _note(engine: Engine) -> None:
    if isinstance(engine.pool, QueuePool):
        metrics.pooled(id(engine), engine.pool.checkedout(), engine.pool.checkedin())
