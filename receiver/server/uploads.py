"""Reads bodies, each in a thread. A slow body releases the slot of its thread, so that another thread can start.

When too many bodies wait, the slowest one of a tenant or signature above its share gets 503.
"""

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from wsgiref.types import WSGIEnvironment

from gunicorn.http import errors
from gunicorn.http.unreader import SocketUnreader

from receiver.problems import Busy
from receiver.server.capacity import Capacity, Waiter
from receiver.server.pace import Pace
from receiver.threadpool import blocking
from receiver.wsgi import TENANT

LARGE = 256 << 10  # bytes; a larger body needs a permit, and there are as many permits as threads
_BRIEF = 0.05  # seconds that a thread waits for the client in one request before its slot is released
_STALL = 2.0  # seconds without a released permit after which a waiting body gets 503
_MOST = 10.0  # seconds that a body waits for a permit
_SIGNATURE = "HTTP_X_MANYWHO_SIGNATURE"


def caller_of(environ: WSGIEnvironment) -> tuple[str | None, str]:
    """Return the proven tenant in the WSGI ``environ``, or None, and the signed part of its signature.

    The rest of a signature has more than one valid spelling.
    """
    tenant = environ.get(TENANT)
    return (None, "") if tenant is None else (tenant, environ.get(_SIGNATURE, "").strip().rpartition(".")[0])


class SlowBody(Waiter):
    """A body that arrives slowly. ``wait`` waits for more of it on ``sock``; ``drop`` ends that from another thread."""

    def __init__(self, tenant: str | None, signature: str, held: int, sock: socket.socket) -> None:
        super().__init__(tenant, signature, held)
        self.is_dropped = False
        self._guard = threading.Lock()  # else drop might write to another file that has got the number of this pipe
        self._read_end, self._write_end = os.pipe()
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(self._read_end, select.POLLIN)

    def wait(self, events: int, seconds: float) -> None:
        """Return when more may have arrived, when it is dropped, or after ``seconds``."""
        self._poll.register(self._sock, events)
        self._poll.poll(1000 * seconds)

    def drop(self) -> None:
        """Make the thread that reads this body answer 503."""
        with self._guard:
            self.is_dropped = True
            if self._write_end != -1:
                os.write(self._write_end, b"x")

    def close(self) -> None:
        """Close the pipe."""
        with self._guard:
            os.close(self._read_end)
            os.close(self._write_end)
            self._read_end = self._write_end = -1


class PacedUnreader(SocketUnreader):
    """Reads a body from a socket while its client is fast enough; a client that is too slow counts as gone.

    Raises Busy when the receiver has no capacity for the body.
    """

    def __init__(self, sock: socket.socket, capacity: Capacity) -> None:
        super().__init__(sock)
        self._capacity = capacity
        self._slow: SlowBody | None = None
        self._permit: tuple[str | None] | None = None  # the tenant that holds it
        self.environ: WSGIEnvironment = {}
        self.expect(0.0, 0)

    def expect(self, seconds: float, ahead: int) -> None:
        """Begin to read a body that has ``seconds`` to arrive; ``ahead`` bytes were read with the head."""
        self._pace = Pace(seconds)
        self._ahead = ahead
        self._brief = _BRIEF

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next bytes; raises NoMoreData when none arrive in time."""
        if not self._pace.left():
            raise errors.NoMoreData()
        outer = self.sock.gettimeout()
        try:
            if self._brief > 0:
                with contextlib.suppress(TimeoutError):
                    return self._receive_soon(size_hint)
            return self._receive_slowly(size_hint)
        except TimeoutError:
            raise errors.NoMoreData() from None
        finally:
            self.sock.settimeout(outer)

    def _receive_soon(self, size_hint: int | None) -> bytes:
        began = arrived = time.monotonic()
        self.sock.settimeout(min(self._pace.left() or _BRIEF, self._brief))
        try:
            with blocking():
                try:
                    data: bytes = super().chunk(size_hint)
                finally:
                    arrived = time.monotonic()
        finally:
            self._brief -= arrived - began
            self._pace.forgive(time.monotonic() - arrived)
        self._pace.moved += len(data)
        return data

    def _receive_slowly(self, size_hint: int | None) -> bytes:
        slow = self._slow or self._enter()
        arrived = time.monotonic()
        self.sock.settimeout(0.0)
        with blocking(release_slot=True):
            data = self._next(slow, size_hint)
            arrived = time.monotonic()
        self._pace.forgive(time.monotonic() - arrived)
        self._pace.moved += len(data)
        slow.moved += len(data)
        self._capacity.bodies.resize(slow, self._ahead + self._pace.moved)
        return data

    def _next(self, slow: SlowBody, size_hint: int | None) -> bytes:
        while not slow.is_dropped:
            events = select.POLLIN
            try:
                data: bytes = super().chunk(size_hint)
                return data
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            if self._pace.is_over():
                raise TimeoutError
            slow.wait(events, self._pace.left())
        self._capacity.on_drop("body", slow)
        raise Busy("bodies: too many wait for their clients, and this is one of the slowest")

    def _enter(self) -> SlowBody:
        try:
            self._slow = SlowBody(*caller_of(self.environ), self._ahead + self._pace.moved, self.sock)
        except OSError as cause:
            raise Busy(f"bodies: {os.strerror(cause.errno or 0)}") from None
        self._capacity.bodies.enter(self._slow)
        return self._slow

    def admit(self, size: int) -> None:
        """Wait until a body of ``size`` bytes, which has arrived, may be processed; raises Busy."""
        if size > LARGE:
            self._await_permit(size)
        self._leave()

    def _await_permit(self, size: int) -> None:
        tenant, _ = caller_of(self.environ)
        permits = self._capacity.permits
        if not permits.take(tenant):
            slow = self._slow or self._enter()
            slow.is_whole = True
            self._capacity.bodies.resize(slow, size)
            with blocking(release_slot=True):
                granted = permits.wait(tenant, _STALL, _MOST, lambda: slow.is_dropped)
            if not granted:
                self._capacity.on_drop("body", slow)
                raise Busy("bodies: the receiver is not finishing the bodies that it has")
        self._permit = (tenant,)

    def _leave(self) -> None:
        slow, self._slow = self._slow, None
        if slow:
            self._capacity.bodies.leave(slow)
            slow.close()

    def release(self) -> None:
        """Release what the body of the answered request holds."""
        if self._slow:
            self._leave()
        if self._permit:
            (tenant,), self._permit = self._permit, None
            self._capacity.permits.release(tenant)
        self.environ = {}
