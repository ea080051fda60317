"""Sends the rest of replies that their clients take slowly, by the worker's poller and without a thread."""

import contextlib
import fcntl
import selectors
import socket
import ssl
import struct
import sys
import termios
import time
from collections import deque
from functools import partial
from typing import Protocol

from receiver.server.capacity import Capacity, Waiter
from receiver.server.connection import Connection
from receiver.server.pace import Pace
from receiver.server.sending import Outgoing, next_piece

_MOST_SENDS = 32  # of a reply at once; then other connections have their turn
_KEPT = 64 << 10  # bytes of a piece that is not copied to free its sent part
_LOOK = 0.5  # seconds between two looks for clients that are too slow
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the kernel discards what it has not sent


class ReplyWorker(Protocol):
    """What Replies needs of its worker."""

    capacity: Capacity
    poller: selectors.BaseSelector
    nr_conns: int

    def resume(self, conn: Connection, kept: bool) -> None:
        """Continue with ``conn`` after its reply: wait for its next request if it is ``kept``."""


class SlowReply(Waiter):
    """The ``pieces`` of a reply that the client of ``connection`` has yet to take; ``kept``: see ReplyWorker."""

    def __init__(self, connection: Connection, outgoing: Outgoing, kept: bool, replies: "Replies") -> None:
        self.pieces = deque(outgoing.rest)
        super().__init__(*connection.caller, sum(map(len, self.pieces)))
        self.connection, self.kept, self._replies = connection, kept, replies
        self.pace = Pace(outgoing.patience)
        self.interest = selectors.EVENT_WRITE
        self._sent = 0  # bytes of the first piece
        self._passed_on = _queued(connection.sock)  # bytes given to the kernel, from its present queue on

    def send(self) -> bool:
        """Send what the client takes now; return whether that was the rest. Raises OSError when the client is gone."""
        sock = self.connection.sock
        self.interest = selectors.EVENT_WRITE
        try:
            for _ in range(_MOST_SENDS):
                with memoryview(self.pieces[0]) as piece:
                    sent = sock.send(next_piece(sock, piece, self._sent))
                self._move(sent)
                if not self.pieces:
                    return True
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLWantReadError:
            self.interest = selectors.EVENT_READ
        return False

    def _move(self, sent: int) -> None:
        self._sent += sent
        self._passed_on += sent
        first = self.pieces[0]
        if self._sent == len(first):
            self.pieces.popleft()
            self._sent = 0
        elif self._sent > max(_KEPT, len(first) // 2):  # so that it copies no more than was sent
            self.pieces[0] = first[self._sent :]
            self._sent = 0

    def measure(self) -> None:
        """Measure how much the client has taken: the kernel may hold megabytes, and seldom asks for more."""
        self.moved = self.pace.moved = max(self.moved, self._passed_on - _queued(self.connection.sock))

    def memory(self) -> int:
        """Return the bytes of all pieces."""
        return sum(map(len, self.pieces))

    def drop(self) -> None:
        """Cut the client off, to free the memory."""
        self._replies.drop(self)


class Replies:
    """The replies that wait in ``worker``; only its main thread uses them."""

    def __init__(self, worker: ReplyWorker) -> None:
        self._worker = worker
        self._ledger = worker.capacity.replies
        self._waiting: set[SlowReply] = set()
        self._next_look = 0.0

    def take(self, connection: Connection, outgoing: Outgoing, kept: bool) -> None:
        """Send the rest of ``outgoing`` on ``connection``; then wait for its next request if it is ``kept``."""
        reply = SlowReply(connection, outgoing, kept, self)
        connection.sock.setblocking(False)
        self._waiting.add(reply)
        self._worker.poller.register(connection.sock, reply.interest, partial(self._on_writable, reply))
        self._ledger.enter(reply)

    def _on_writable(self, reply: SlowReply, sock: socket.socket) -> None:
        if reply not in self._waiting:  # dropped earlier in the same round of events
            return
        interest = reply.interest
        try:
            is_done = reply.send()
        except OSError:  # the client is gone
            self._forget(reply)
            self._cut_off(reply.connection)
            return
        if is_done:
            self._forget(reply)
            self._worker.resume(reply.connection, reply.kept)
            return
        self._ledger.resize(reply, reply.memory())
        if reply.interest != interest:
            self._worker.poller.modify(sock, reply.interest, partial(self._on_writable, reply))

    def expire(self) -> None:
        """Cut off the clients that are too slow."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK
        for reply in self._waiting:
            reply.measure()
        for reply in [one for one in self._waiting if one.pace.is_over()]:
            self._forget(reply)
            self._cut_off(reply.connection)
            self._worker.capacity.on_drop("slow_reply", reply)

    def drop(self, reply: SlowReply) -> None:
        """Cut off the client of ``reply``, which has left the ledger already."""
        self._forget(reply)
        self._cut_off(reply.connection)
        self._worker.capacity.on_drop("reply", reply)

    def _forget(self, reply: SlowReply) -> None:
        self._waiting.discard(reply)
        self._worker.poller.unregister(reply.connection.sock)
        self._ledger.leave(reply)

    def _cut_off(self, connection: Connection) -> None:
        """Close ``connection`` with a reset, so that its client cannot mistake the part for the whole reply."""
        with contextlib.suppress(OSError):
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._worker.nr_conns -= 1
        connection.abort()


def _queued(sock: socket.socket) -> int:
    """Return the bytes that the kernel has yet to send; 0 where it does not report them."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0
