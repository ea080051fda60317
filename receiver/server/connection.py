"""A client's connection to a worker. Its requests have a time limit, and use no thread before their head is complete.

gunicorn's own connections do the TLS handshake and read headers and body in a thread, without a time limit. Here the
worker's poller does the handshake and reads the head of a request, and a thread gets the complete head. A thread reads
only the body, and the application asks for that after it has checked the signature. The poller discards what a client
sends after its last reply, so that the client can still read that reply.
"""

import contextlib
import selectors
import socket
import ssl
import time
from wsgiref.types import WSGIEnvironment

from gunicorn.config import Config
from gunicorn.http import RequestParser, get_parser
from gunicorn.util import close
from gunicorn.workers.gthread import TConn

from receiver.server import heads
from receiver.server.capacity import Capacity
from receiver.server.sending import Outgoing
from receiver.server.uploads import PacedUnreader, caller_of
from receiver.waits import Wait
from receiver.wsgi import ADMIT, MAY_ANSWER

_END_OF_HEAD = b"\r\n\r\n"
_MOST_READ = 64 << 10  # bytes at once
_OTHER_HEADERS = 56 << 10  # bytes of a head besides one header as large as STORAGE_MAX_HEADER allows
_MOST_READS = 32  # of a head at once, however few bytes each returns; then other connections have their turn
_LINGER = 5.0  # seconds for a client to stop sending and to read its last reply
_MOST_DISCARDED = 64 << 20  # bytes


class HandshakeFailed(Exception):
    """The TLS handshake failed. The text is OpenSSL's reason; empty when the client closed the connection."""


class Connection(TConn):
    """A connection whose requests each have ``read_timeout`` seconds, from the first byte, for head and body.

    ``context`` is for TLS, whose handshake has the same time. Raises OSError when the client is gone.
    """

    cfg: Config
    sock: socket.socket
    parser: RequestParser
    initialized: bool
    timeout: float
    client: object  # the socket address

    def __init__(self, plain: TConn, read_timeout: float, context: ssl.SSLContext | None, capacity: Capacity) -> None:
        super().__init__(plain.cfg, plain.sock, plain.client, plain.server)
        self.read_timeout = read_timeout
        self.is_agreed = context is None
        self.is_begun = False  # the client has sent its first bytes
        self.interest = selectors.EVENT_READ  # the event that the poller waits for
        self.head = bytearray()
        self.last_head = b""  # of the current request, for the log if it is refused
        self.most_head = _OTHER_HEADERS + plain.cfg.limit_request_field_size
        self.searched = 0  # bytes of the head in which its end was searched
        self.ended = False
        self.deadline = 0.0
        self.left = 0.0  # seconds for the body, set when the head is complete
        self.discarded = 0
        self.outgoing: Outgoing | None = None
        self.caller: tuple[str | None, str] = (None, "")
        self.wait = Wait(None)  # of its request for the store
        self.environ: WSGIEnvironment = {}  # of its request
        self._capacity = capacity
        if context:
            self._secured = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
            self.sock = self._secured

    def expect_head(self) -> None:
        """Begin to wait for a request, which may begin with bytes that were read with the last one."""
        self.timeout = time.monotonic() + self.read_timeout
        self.deadline = self.timeout
        if self.initialized and self.has_more():
            self.head += self.parser.unreader.take_buffered()

    def has_more(self) -> bool:
        """Tell whether more bytes were read than the request that was answered."""
        buffered: int = self.parser.unreader.buf.getbuffer().nbytes
        return buffered > 0 or self._is_pending()

    def _is_pending(self) -> bool:
        """Tell whether TLS holds data that it has read from the socket: the poller cannot see that."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def has_head(self) -> bool:
        """Read what has arrived, without blocking; return whether the request can go to a thread.

        If not, ``interest`` is the event to wait for. Raises HandshakeFailed and heads.HeadRefused.
        """
        if self.sock.gettimeout() != 0.0:
            self.sock.setblocking(False)
        self.interest = selectors.EVENT_READ
        try:
            if not self.is_agreed:
                self._agree()
            if not self._read_head():
                return False
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ssl.SSLWantWriteError:
            self.interest = selectors.EVENT_WRITE
            return False
        except OSError:
            self.ended = True
        # While the request waits for a thread, its client's time stands still.
        self.left = self.deadline - time.monotonic()
        return True

    def _read_head(self) -> bool:
        """Read until the head is complete; return False when other connections have their turn first."""
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
        return True

    def _has_end(self) -> bool:
        """Look for the end of the head in its new bytes: a search from the start would take quadratic time."""
        start = max(0, self.searched - len(_END_OF_HEAD) + 1)
        self.searched = len(self.head)
        return self.head.find(_END_OF_HEAD, start) >= 0

    def _agree(self) -> None:
        if not self.is_begun:
            self._refuse_proxy_line()
        try:
            self._secured.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as cause:
            is_gone = isinstance(cause, ssl.SSLEOFError)
            raise HandshakeFailed("" if is_gone else cause.reason or "") from None
        except OSError:
            raise HandshakeFailed("") from None
        self.is_agreed = True

    def _refuse_proxy_line(self) -> None:
        """Peek at the first bytes: OpenSSL does not know the PROXY protocol."""
        head = socket.socket.recv(self.sock, heads.MOST_PEEKED, socket.MSG_PEEK)
        self.is_begun = bool(head)
        if text := heads.proxy_line(head):
            raise HandshakeFailed(text)

    def wait_for_data(self, timeout: float) -> bool:
        """Return True: a thread gets this connection only when its data has arrived."""
        return True

    def init(self) -> None:
        """Prepare the parser for the request whose head is complete; the rest of the time is for its body."""
        if not self.initialized:
            self.initialized = True
            self.parser = get_parser(self.cfg, self.sock, self.client)
            self.parser.unreader = PacedUnreader(self.sock, self._capacity)
        is_whole = _END_OF_HEAD in self.head
        self.parser.unreader.expect(self.left if is_whole else 0.0, len(self.head))
        self.last_head = bytes(self.head)
        self.parser.unreader.unread(self.last_head)
        self.head.clear()
        self.searched = 0

    def begin_request(self, environ: WSGIEnvironment) -> None:
        """Remember the WSGI ``environ`` of the request, which will hold its tenant, and let it admit the body."""
        self.environ = self.parser.unreader.environ = environ
        environ[ADMIT] = self.parser.unreader.admit
        environ[MAY_ANSWER] = self.wait.claim

    def may_answer(self) -> bool:
        """Return whether the thread of the request may answer it (wsgi.MayAnswer)."""
        return self.wait.claim()

    def release(self) -> Outgoing | None:
        """Release what the request holds of the worker; return its reply if the client has not taken all of it."""
        outgoing, self.outgoing = self.outgoing, None
        if outgoing and outgoing.rest and self.sock.fileno() != -1:
            self.caller = caller_of(self.parser.unreader.environ)
        else:
            outgoing = None
        self.last_head = b""  # thousands of connections may be idle for long
        self.environ = {}
        if self.initialized:
            self.parser.unreader.release()
        return outgoing

    def expect_end(self, hurried: bool) -> None:
        """Close the sending side, and begin to wait for the client to do the same; ``hurried`` when the worker stops.

        An immediate close would reset the connection, and the client might lose the reply (RFC 9112 section 9.6).
        """
        self.timeout = time.monotonic() + (_LINGER / 5 if hurried else _LINGER)
        self.sock.setblocking(False)
        with contextlib.suppress(OSError):
            self._send_close_notify()
            self.sock.shutdown(socket.SHUT_WR)  # a TLS socket returns undecrypted bytes from now on

    def _send_close_notify(self) -> None:
        """Tell a TLS client that the connection ends properly (RFC 8446 section 6.1), without blocking."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.setblocking(False)
            with contextlib.suppress(OSError, ValueError):
                self.sock.unwrap()

    def has_ended(self) -> bool:
        """Discard what has arrived; return whether the client is done, or has sent more than is allowed."""
        try:
            data = self.sock.recv(_MOST_READ)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.discarded += len(data)
        return not data or self.discarded > _MOST_DISCARDED

    def abort(self) -> None:
        """Close the socket in the middle of a reply."""
        close(self.sock)

    def close(self, graceful: bool = False) -> None:
        """Close the socket, unless the thread that answered has closed it; never block."""
        if self.sock.fileno() != -1:
            self._send_close_notify()
            super().close(graceful=False)
