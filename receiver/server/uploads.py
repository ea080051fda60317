"""Bodies on their way in. Each is read in a thread; one that takes its time gives up that thread's slot.

When too many do, the slowest of those that hold more than their share is answered with 503.
"""

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping

from gunicorn.http import errors
from gunicorn.http.unreader import SocketUnreader

from receiver.problems import Busy
from receiver.server.capacity import Capacity, Waiter
from receiver.server.pace import Pace
from receiver.threadpool import blocking
from receiver.wsgi import TENANT

LARGE = 256 << 10  # bytes of a body of which as many are worked on at once as there are threads
_BRIEF = 0.05  # seconds of a request in which its thread waits for the client as for anything else
_STALL = 2.0  # seconds in which none of the large bodies that are worked on is done with
_MOST = 10.0  # seconds that one waits for those before it
_SIGNATURE = "HTTP_X_MANYWHO_SIGNATURE"


def caller_of(environ: Mapping) -> tuple[str | None, str]:
    """Return the proven tenant in the WSGI ``environ``, or None, and the part of its signature that is signed.

    The rest of the signature may be written in more than one way.
    """
    tenant = environ.get(TENANT)
    return (None, "") if tenant is None else (tenant, environ.get(_SIGNATURE, "").strip().rpartition(".")[0])


class SlowBody(Waiter):
    """A body that has not arrived at once. ``wait`` for more of it from ``sock``; ``drop`` ends that from elsewhere."""

    def __init__(self, tenant: str | None, signature: str, held: int, sock: socket.socket):
        super().__init__(tenant, signature, held)
        self.is_dropped = False
        self._guard = threading.Lock()  # else a byte might be written to another file with this one's number
        self._read_end, self._write_end = os.pipe()
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(self._read_end, select.POLLIN)

    def wait(self, events: int, seconds: float) -> None:
        """Return when there may be more, when it is dropped, or after so many ``seconds``."""
        self._poll.register(self._sock, events)
        self._poll.poll(1000 * seconds)

    def drop(self) -> None:
        """Let the thread that reads this body answer 503."""
        with self._guard:
            self.is_dropped = True
            if self._write_end != -1:
                os.write(self._write_end, b"x")

    def close(self) -> None:
        """Give back what this takes of the system."""
        with self._guard:
            os.close(self._read_end)
            os.close(self._write_end)
            self._read_end = self._write_end = -1


class PacedUnreader(SocketUnreader):
    """Reads a body from a socket as long as its client keeps pace; then the client counts as gone.

    Raises Busy where the receiver has no room for it.
    """

    def __init__(self, sock: socket.socket, capacity: Capacity):
        super().__init__(sock)
        self._capacity = capacity
        self._slow: SlowBody | None = None
        self._permit: tuple[str | None] | None = None  # whose it is
        self.environ: Mapping = {}
        self.expect(0.0, 0)

    def expect(self, seconds: float, ahead: int) -> None:
        """Begin to read a body that has ``seconds`` to arrive; so many bytes were read ``ahead``, with the head."""
        self._pace = Pace(seconds)
        self._ahead = ahead
        self._brief = _BRIEF

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return what arrives next; raises NoMoreData when nothing does in time."""
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
                    data = super().chunk(size_hint)
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
                return super().chunk(size_hint)
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            if self._pace.is_over():
                raise TimeoutError
            slow.wait(events, self._pace.left())
        self._capacity.on_drop("body", slow)
        raise Busy("bodies: more wait for their clients than there is room for, this is one of the slowest")

    def _enter(self) -> SlowBody:
        try:
            self._slow = SlowBody(*caller_of(self.environ), self._ahead + self._pace.moved, self.sock)
        except OSError as cause:
            raise Busy(f"bodies: {os.strerror(cause.errno or 0)}") from None
        self._capacity.bodies.enter(self._slow)
        return self._slow

    def admit(self, size: int) -> None:
        """Wait until a body of ``size`` bytes, which is there whole, may be worked on; raises Busy."""
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
                raise Busy("bodies: the receiver does not get on with those that it has")
        self._permit = (tenant,)

    def _leave(self) -> None:
        slow, self._slow = self._slow, None
        if slow:
            self._capacity.bodies.leave(slow)
            slow.close()

    def let_go(self) -> None:
        """Make room for another body: this one's request was answered."""
        if self._slow:
            self._leave()
        if self._permit:
            (tenant,), self._permit = self._permit, None
            self._capacity.permits.release(tenant)
        self.environ = {}
