"""A client's connection to a worker: its requests have a time to arrive, and wait for it outside the threads.

gunicorn's own connections read headers and body in a thread, without a limit of time. Here the head of a
request is collected by the worker's poller; a thread gets it whole. Only a body is read in a thread, and
the application reads none before the request's signature holds. What a client goes on sending behind its
last reply is taken and thrown away by the poller, so that it gets to read that reply.
"""

import time

from gunicorn.http import errors
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn

from receiver.turns import waiting

_END_OF_HEAD = b"\r\n\r\n"
_MOST_HEAD = 64 << 10  # bytes; a head of 100 headers of 8190 bytes would be refused anyway
_LINGER = 5.0  # seconds for a client to stop sending and to take its last reply
_MOST_DISCARDED = 64 << 20  # bytes of it


class DeadlineUnreader(SocketUnreader):
    """Reads from a socket until ``deadline`` (time.monotonic); then the client counts as gone."""

    deadline = 0.0

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return what arrives next; raises NoMoreData when nothing does in time."""
        outer = self.sock.gettimeout()
        left = self.deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left if outer is None else min(outer, left))
            with waiting():
                return super().chunk(size_hint)
        except TimeoutError:
            raise errors.NoMoreData() from None
        finally:
            self.sock.settimeout(outer)


class Connection(TConn):
    """A connection whose requests each have ``read_timeout`` seconds, from the first byte, for head and body."""

    def __init__(self, plain: TConn, read_timeout: float):
        super().__init__(plain.cfg, plain.sock, plain.client, plain.server)
        self.read_timeout = read_timeout
        self.is_tls = plain.cfg.is_ssl
        self.head = bytearray()
        self.ended = False
        self.deadline = 0.0
        self.discarded = 0

    def expect_head(self) -> None:
        """Begin to wait for a request; what was read ahead of the last one is its beginning."""
        self.timeout = time.monotonic() + self.read_timeout
        self.deadline = self.timeout
        if self.initialized and self.has_more():
            self.head += self.parser.unreader.take_buffered()

    def has_more(self) -> bool:
        """Tell whether more was read than the request that was answered."""
        return self.parser.unreader.buf.getbuffer().nbytes > 0

    def has_head(self) -> bool:
        """Take what has arrived, without waiting; return whether the request can go to a thread."""
        if self.is_tls:  # a handshake must come first, and that is done in a thread
            return True
        if self.sock.gettimeout() != 0.0:
            self.sock.setblocking(False)
        while _END_OF_HEAD not in self.head and len(self.head) < _MOST_HEAD and not self.ended:
            try:
                data = self.sock.recv(_MOST_HEAD)
            except BlockingIOError:
                return False
            except OSError:
                data = b""
            if not self.head:
                self.deadline = time.monotonic() + self.read_timeout
            self.ended = not data
            self.head += data
        return True

    def wait_for_data(self, timeout: float) -> bool:
        """Return at once: a thread is asked to serve this connection when its data is there."""
        return True

    def init(self) -> None:
        """Prepare for the request whose head was collected; its body has what is left of the time."""
        fresh = not self.initialized
        super().init()
        if fresh:
            self.parser.unreader = DeadlineUnreader(self.sock)
        whole = _END_OF_HEAD in self.head or self.is_tls
        self.parser.unreader.deadline = self.deadline if whole else 0.0
        self.parser.unreader.unread(bytes(self.head))
        self.head.clear()

    def expect_end(self, hurried: bool) -> None:
        """Begin to wait for the client to stop sending; ``hurried`` when the worker is stopping.

        Closing at once would reset the connection, and the client might lose the reply (RFC 9112 section 9.6).
        """
        self.timeout = time.monotonic() + (_LINGER / 5 if hurried else _LINGER)
        self.sock.setblocking(False)

    def has_ended(self) -> bool:
        """Throw away what has arrived; return whether the client is done, or has sent more than enough."""
        try:
            data = self.sock.recv(_MOST_HEAD)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.discarded += len(data)
        return not data or self.discarded > _MOST_DISCARDED

    def close(self, graceful: bool = False) -> None:
        """Close the socket, unless the thread that answered has done so already; never wait for the client."""
        if self.sock.fileno() != -1:
            super().close(graceful=False)
