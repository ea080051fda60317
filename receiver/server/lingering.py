"""Closes connections after their clients, without a thread: an immediate close could cost a client its last reply."""

import selectors
import socket
import time
from collections import deque
from functools import partial
from typing import Protocol

from receiver.server.connection import Connection


class LingeringWorker(Protocol):
    """What Lingering needs of its worker."""

    alive: bool
    poller: selectors.BaseSelector
    nr_conns: int


class Lingering:
    """The ``connections`` of ``worker`` that wait for their clients to close; only its main thread uses them."""

    def __init__(self, worker: LingeringWorker) -> None:
        self._worker = worker
        self.connections: deque[Connection] = deque()

    def take(self, conn: Connection) -> None:
        """Close ``conn`` after its client; unless the thread that answered has closed it."""
        if conn.sock.fileno() == -1:
            self._worker.nr_conns -= 1
            return
        conn.expect_end(hurried=not self._worker.alive)
        self.connections.append(conn)
        self._worker.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_readable, conn))

    def expire(self) -> None:
        """Close the connections whose time is over."""
        while self.connections and self.connections[0].timeout <= time.monotonic():
            self._end(self.connections.popleft())

    def _on_readable(self, conn: Connection, _sock: socket.socket) -> None:
        if conn.has_ended():
            self.connections.remove(conn)
            self._end(conn)

    def _end(self, conn: Connection) -> None:
        self._worker.poller.unregister(conn.sock)
        self._worker.nr_conns -= 1
        conn.close()
