"""A client's connection to a worker: its requests have a time to arrive, and wait for it outside the threads.

gunicorn's own connections make the TLS handshake, and read headers and body, in a thread, without a limit of time.
Here the handshake and the head of a request are seen to by the worker's poller; a thread gets the head whole. Only a
body is read in a thread, and the application reads none before the request's signature holds. What a client goes on
sending behind its last reply is taken and thrown away by the poller, so that it gets to read that reply.
"""

import contextlib
import selectors
import socket
import ssl
import threading
import time

from gunicorn.http import errors, get_parser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn

from receiver import heads
from receiver.turns import waiting

LARGE = 256 << 10  # bytes of a body or reply of which as many are held at once as there are threads
_END_OF_HEAD = b"\r\n\r\n"
_MOST_READ = 64 << 10  # bytes in one go
_OTHER_HEADERS = 56 << 10  # bytes of a head beside one header as large as STORAGE_MAX_HEADER allows
_MOST_READS = 32  # of a head in one go, however little each brings; then it is the others' turn
_LINGER = 5.0  # seconds for a client to stop sending and to take its last reply
_MOST_DISCARDED = 64 << 20  # bytes of it
_GRACE = 5.0  # seconds
_LEAST_RATE = 16 << 10  # bytes a second
_BRIEF = 0.05  # seconds of a request in which its thread waits for the client as for anything else


class Pace:
    """How long a client may take to send or to be sent something: ``most`` seconds, or less if it dawdles.

    It may move nothing for ``grace`` seconds, and then so many bytes a second on average.
    """

    def __init__(self, most: float, grace: float = _GRACE):
        self._began = time.monotonic()
        self._most = most
        self._grace = grace
        self.moved = 0  # bytes

    def left(self) -> float:
        """Return the seconds that are left for the next bytes; 0 when its time is over."""
        now = time.monotonic() - self._began
        if now >= self._most:
            return 0.0
        earned = self._grace + self.moved / _LEAST_RATE
        return max(0.001, min(self._most, earned) - now)  # what is there already can be taken


class HandshakeFailed(Exception):
    """No TLS was agreed on. The text says why, in OpenSSL's words; none when the client just went away."""


class PacedUnreader(SocketUnreader):
    """Reads a body from a socket as long as its client keeps pace; then the client counts as gone.

    Of large bodies so many are held at once as ``large`` allows; the others wait for that.
    """

    def __init__(self, sock: socket.socket, large: threading.Semaphore):
        super().__init__(sock)
        self._large = large
        self.expect(0.0)
        self._holds_large = False

    def expect(self, seconds: float) -> None:
        """Begin to read a body that has ``seconds`` to arrive."""
        self._pace = Pace(seconds)
        self._brief = _BRIEF

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return what arrives next; raises NoMoreData when nothing does in time."""
        outer = self.sock.gettimeout()
        try:
            if self._pace.moved > LARGE and not self._holds_large:
                self._await_large()
            if self._brief > 0:
                with contextlib.suppress(TimeoutError):
                    return self._receive_soon(size_hint)
            return self._receive(size_hint, waiting(for_client=True), self._pace.left())
        except TimeoutError:
            raise errors.NoMoreData() from None
        finally:
            self.sock.settimeout(outer)

    def _receive_soon(self, size_hint: int | None) -> bytes:
        began = time.monotonic()
        try:
            return self._receive(size_hint, waiting(), self._brief)
        finally:
            self._brief -= time.monotonic() - began

    def _receive(self, size_hint: int | None, context: waiting, most: float) -> bytes:
        left = self._pace.left()
        if not left:
            raise TimeoutError
        self.sock.settimeout(min(left, most))
        with context:
            data = super().chunk(size_hint)
        self._pace.moved += len(data)
        return data

    def _await_large(self) -> None:
        with waiting(for_client=True):
            self._holds_large = self._large.acquire(timeout=self._pace.left())
        if not self._holds_large:
            raise TimeoutError

    def let_go(self) -> None:
        """Make room for another large body: this one's request was answered."""
        if self._holds_large:
            self._holds_large = False
            self._large.release()


class Connection(TConn):
    """A connection whose requests each have ``read_timeout`` seconds, from the first byte, for head and body.

    ``context`` is for TLS, which has to be agreed on within that time, too. Raises OSError when the client is gone.
    """

    def __init__(self, plain: TConn, read_timeout: float, context: ssl.SSLContext | None, large: threading.Semaphore):
        super().__init__(plain.cfg, plain.sock, plain.client, plain.server)
        self.read_timeout = read_timeout
        self.is_agreed = context is None
        self.is_begun = False  # the client has said something in front of TLS
        self.interest = selectors.EVENT_READ  # what the poller shall wait for
        self.head = bytearray()
        self.last_head = b""  # of the request that is served, for the log should it be refused
        self.most_head = _OTHER_HEADERS + plain.cfg.limit_request_field_size
        self.searched = 0  # bytes of it, for its end
        self.ended = False
        self.deadline = 0.0
        self.discarded = 0
        self._large = large
        if context:
            self.sock = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)

    def expect_head(self) -> None:
        """Begin to wait for a request; what was read ahead of the last one is its beginning."""
        self.timeout = time.monotonic() + self.read_timeout
        self.deadline = self.timeout
        if self.initialized and self.has_more():
            self.head += self.parser.unreader.take_buffered()

    def has_more(self) -> bool:
        """Tell whether more was read than the request that was answered."""
        return self.parser.unreader.buf.getbuffer().nbytes > 0 or self._is_pending()

    def _is_pending(self) -> bool:
        """Tell whether TLS holds data that has left the socket: of that the poller knows nothing."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def has_head(self) -> bool:
        """Take what has arrived, without waiting; return whether the request can go to a thread.

        If not, ``interest`` is what to wait for. Raises HandshakeFailed, and heads.HeadRefused.
        """
        if self.sock.gettimeout() != 0.0:
            self.sock.setblocking(False)
        self.interest = selectors.EVENT_READ
        try:
            if not self.is_agreed:
                self._agree()
            reads = 0
            while not self._has_end() and not self.ended:
                if len(self.head) >= self.most_head:
                    raise heads.endless(self.head, self.cfg.limit_request_field_size)
                if reads >= _MOST_READS and not self._is_pending():
                    return False
                reads += 1
                data = self.sock.recv(_MOST_READ)
                if not self.head:
                    self.deadline = time.monotonic() + self.read_timeout
                self.ended = not data
                self.head += data
                if text := heads.foreign(self.head):
                    raise heads.HeadRefused(text)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ssl.SSLWantWriteError:
            self.interest = selectors.EVENT_WRITE
            return False
        except OSError:
            self.ended = True
        return True

    def _has_end(self) -> bool:
        """Look for the end of the head in what is new of it: looking from its beginning would cost its square."""
        start = max(0, self.searched - len(_END_OF_HEAD) + 1)
        self.searched = len(self.head)
        return self.head.find(_END_OF_HEAD, start) >= 0

    def send_at_once(self, data: bytes) -> None:
        """Send what the socket takes of ``data`` without waiting."""
        with contextlib.suppress(OSError):
            self.sock.send(data)

    def _agree(self) -> None:
        if not self.is_begun:
            self._refuse_proxy_line()
        try:
            self.sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as cause:
            is_gone = isinstance(cause, ssl.SSLEOFError) or not isinstance(cause, ssl.SSLError)
            raise HandshakeFailed("" if is_gone else cause.reason or "") from None
        self.is_agreed = True

    def _refuse_proxy_line(self) -> None:
        """Look at the first bytes without taking them: OpenSSL does not know the PROXY protocol."""
        head = socket.socket.recv(self.sock, heads.MOST_PEEKED, socket.MSG_PEEK)
        self.is_begun = bool(head)
        if text := heads.proxy_line(head):
            raise HandshakeFailed(text)

    def wait_for_data(self, timeout: float) -> bool:
        """Return at once: a thread is asked to serve this connection when its data is there."""
        return True

    def init(self) -> None:
        """Prepare for the request whose head was collected; its body has what is left of the time."""
        if not self.initialized:
            self.initialized = True
            self.parser = get_parser(self.cfg, self.sock, self.client)
            self.parser.unreader = PacedUnreader(self.sock, self._large)
        is_whole = _END_OF_HEAD in self.head
        self.parser.unreader.expect(self.deadline - time.monotonic() if is_whole else 0.0)
        self.last_head = bytes(self.head)
        self.parser.unreader.unread(self.last_head)
        self.head.clear()
        self.searched = 0

    def let_go(self) -> None:
        """Let go of what the request that was answered took of the worker."""
        if self.initialized:
            self.parser.unreader.let_go()

    def expect_end(self, hurried: bool) -> None:
        """Say that no more will be sent, and wait for the client to say so; ``hurried`` when the worker is stopping.

        Closing at once would reset the connection, and the client might lose the reply (RFC 9112 section 9.6).
        """
        self.timeout = time.monotonic() + (_LINGER / 5 if hurried else _LINGER)
        self.sock.setblocking(False)
        with contextlib.suppress(OSError):
            self._say_end()
            self.sock.shutdown(socket.SHUT_WR)  # of a TLS socket what comes from now on is as it was sent

    def _say_end(self) -> None:
        """Tell a TLS client that the connection was not cut off (RFC 8446 section 6.1), without waiting."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.setblocking(False)
            with contextlib.suppress(OSError, ValueError):
                self.sock.unwrap()

    def has_ended(self) -> bool:
        """Throw away what has arrived; return whether the client is done, or has sent more than enough."""
        try:
            data = self.sock.recv(_MOST_READ)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.discarded += len(data)
        return not data or self.discarded > _MOST_DISCARDED

    def close(self, graceful: bool = False) -> None:
        """Close the socket, unless the thread that answered has done so already; never wait for the client."""
        if self.sock.fileno() != -1:
            self._say_end()
            super().close(graceful=False)
