"""Connections of an engine's pool while they are in use, and their metrics."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, QueuePool
from sqlalchemy.exc import DBAPIError

from receiver.stores.deadline import left
from receiver.stores.sql.errors import is_refused_login
from receiver.telemetry import metrics


class InUse:
    """The connections of a store that are in use; a call waits at most ``seconds`` for one of them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._count = 0
        self.returned = 0
        self._changed = threading.Condition(threading.Lock())

    def begin(self) -> None:
        """Note that one more is in use."""
        with self._changed:
            self._count += 1

    def end(self, is_usable: bool) -> None:
        """Note that one was returned, which another call can use if it ``is_usable``."""
        with self._changed:
            self._count -= 1
            self.returned += is_usable
            self._changed.notify() if self._count else self._changed.notify_all()

    def wait(self, returned: int, seconds: float) -> bool:
        """Return True once one was returned since there were ``returned``; False when none can be, or not in time."""
        if seconds <= 0:
            return False
        with self._changed:
            self._changed.wait_for(lambda: self.returned != returned or not self._count, left(seconds))
            return self.returned != returned


@contextmanager
def checked_out(engine: Engine, in_use: InUse) -> Iterator[Connection]:
    """Yield a connection of ``engine`` and return it at the end; raises SQLAlchemy's error when none is free."""
    with metrics.waiting_for_connection():
        connection = _connect(engine, in_use)
    in_use.begin()
    is_usable = False
    try:
        with connection:
            _note(engine)
            try:
                yield connection
            finally:
                is_usable = not connection.invalidated
    finally:
        in_use.end(is_usable)
        _note(engine)


def _connect(engine: Engine, in_use: InUse) -> Connection:
    """Return a connection of ``engine``; where the server refuses the login of a new one, wait for one in use.

    Until a new password has reached both the server and this process, the connections made before serve on.
    """
    until = time.monotonic() + in_use.seconds
    while True:
        returned = in_use.returned
        try:
            return engine.connect()
        except DBAPIError as error:
            if not is_refused_login(error.orig) or not in_use.wait(returned, until - time.monotonic()):
                raise


def _note(engine: Engine) -> None:
    if isinstance(engine.pool, QueuePool):
        metrics.pooled(id(engine), engine.pool.checkedout(), engine.pool.checkedin())
