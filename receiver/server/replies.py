"""Replies that their clients do not take at once: the worker's poller sends them, and no thread waits."""

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
from typing import TYPE_CHECKING

from receiver.server.capacity import Waiter
from receiver.server.connection import Connection
from receiver.server.pace import Pace
from receiver.server.sending import next_piece

if TYPE_CHECKING:
    from receiver.server.worker import Worker

_MOST_SENDS = 32  # of a reply in one go; then it is the others' turn
_KEPT = 64 << 10  # bytes of a piece that is not cut to give its memory back
_LOOK = 0.5  # seconds between two looks for those that are too slow
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is in the kernel is thrown away


class SlowReply(Waiter):
    """The ``pieces`` of a reply that ``connection`` has yet to take; then it goes on, if it is ``kept``."""

    def __init__(self, connection: Connection, kept: bool, worker: "Replies"):
        outgoing, connection.outgoing = connection.outgoing, None
        self.pieces = deque(outgoing.rest)
        super().__init__(*connection.caller, sum(map(len, self.pieces)))
        self.connection, self.kept, self._replies = connection, kept, worker
        self.pace = Pace(outgoing.patience)
        self.interest = selectors.EVENT_WRITE
        self._sent = 0  # bytes of the first piece
        self._passed_on = _queued(connection.sock)  # bytes that the kernel was given, beginning with what it has

    def send(self) -> bool:
        """Send what the client takes now; return whether that was the rest. Raises OSError when it is gone."""
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
        elif self._sent > max(_KEPT, len(first) // 2):  # copies no more than was sent
            self.pieces[0] = first[self._sent :]
            self._sent = 0

    def take_stock(self) -> None:
        """Note how much the client has taken: the kernel, which may hold megabytes, asks for more only now and then."""
        self.moved = self.pace.moved = max(self.moved, self._passed_on - _queued(self.connection.sock))

    def memory(self) -> int:
        """Return the bytes that the pieces take."""
        return sum(map(len, self.pieces))

    def drop(self) -> None:
        """Cut the client off: others need the room."""
        self._replies.give_up(self)


class Replies:
    """The replies that wait in ``worker``; for its main thread alone."""

    def __init__(self, worker: "Worker"):
        self._worker = worker
        self._ledger = worker.capacity.replies
        self._waiting: set[SlowReply] = set()
        self._next_look = 0.0

    def take(self, connection: Connection, kept: bool) -> None:
        """Send what ``connection`` has yet to take. Then its next request is awaited if it is ``kept``."""
        reply = SlowReply(connection, kept, self)
        connection.sock.setblocking(False)
        self._waiting.add(reply)
        self._worker.poller.register(connection.sock, reply.interest, partial(self._on_writable, reply))
        self._ledger.enter(reply)

    def _on_writable(self, reply: SlowReply, sock: socket.socket) -> None:
        if reply not in self._waiting:  # dropped by one that came in the same go
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
            self._worker.go_on(reply.connection, reply.kept)
            return
        self._ledger.resize(reply, reply.memory())
        if reply.interest != interest:
            self._worker.poller.modify(sock, reply.interest, partial(self._on_writable, reply))

    def expire(self) -> None:
        """Cut off those that do not keep pace."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK
        for reply in self._waiting:
            reply.take_stock()
        for reply in [one for one in self._waiting if one.pace.is_over()]:
            self._forget(reply)
            self._cut_off(reply.connection)
            self._worker.capacity.on_drop("slow_reply", reply)

    def give_up(self, reply: SlowReply) -> None:
        """Cut ``reply`` off, which counts no longer: there is no room for it."""
        self._forget(reply)
        self._cut_off(reply.connection)
        self._worker.capacity.on_drop("reply", reply)

    def _forget(self, reply: SlowReply) -> None:
        self._waiting.discard(reply)
        self._worker.poller.unregister(reply.connection.sock)
        self._ledger.leave(reply)

    def _cut_off(self, connection: Connection) -> None:
        """Close ``connection`` such that its client sees a reset, and nothing that could pass for the whole reply."""
        with contextlib.suppress(OSError):
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._worker.nr_conns -= 1
        connection.abort()


def _queued(sock: socket.socket) -> int:
    """Return the bytes that the kernel holds of what was sent; 0 where it does not tell."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0
