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
import time
from collections.abc import Mapping

from gunicorn.http import get_parser
from gunicorn.util import close
from gunicorn.workers.gthread import TConn

from receiver.server import heads
from receiver.server.capacity import Capacity
from receiver.server.sending import Outgoing
from receiver.server.uploads import PacedUnreader, caller_of

_END_OF_HEAD = b"\r\n\r\n"
_MOST_READ = 64 << 10  # bytes in one go
_OTHER_HEADERS = 56 << 10  # bytes of a head beside one header as large as STORAGE_MAX_HEADER allows
_MOST_READS = 32  # of a head in one go, however little each brings; then it is the others' turn
_LINGER = 5.0  # seconds for a client to stop sending and to take its last reply
_MOST_DISCARDED = 64 << 20  # bytes of it


class HandshakeFailed(Exception):
    """No TLS was agreed on. The text says why, in OpenSSL's words; none when the client just went away."""


class Connection(TConn):
    """A connection whose requests each have ``read_timeout`` seconds, from the first byte, for head and body.

    ``context`` is for TLS, which has to be agreed on within that time, too. Raises OSError when the client is gone.
    """

    def __init__(self, plain: TConn, read_timeout: float, context: ssl.SSLContext | None, capacity: Capacity):
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
        self.left = 0.0  # seconds that a body has, once its head is there
        self.discarded = 0
        self.outgoing: Outgoing | None = None
        self.caller: tuple[str | None, str] = (None, "")
        self._capacity = capacity
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
        # From now on time passes while the request waits for a thread: that is not the client's.
        self.left = self.deadline - time.monotonic()
        return True

    def _has_end(self) -> bool:
        """Look for the end of the head in what is new of it: looking from its beginning would cost its square."""
        start = max(0, self.searched - len(_END_OF_HEAD) + 1)
        self.searched = len(self.head)
        return self.head.find(_END_OF_HEAD, start) >= 0

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
            self.parser.unreader = PacedUnreader(self.sock, self._capacity)
        is_whole = _END_OF_HEAD in self.head
        self.parser.unreader.expect(self.left if is_whole else 0.0, len(self.head))
        self.last_head = bytes(self.head)
        self.parser.unreader.unread(self.last_head)
        self.head.clear()
        self.searched = 0

    def begin_request(self, environ: Mapping) -> None:
        """Note the WSGI ``environ`` of the request, which will tell whose body or reply it is."""
        self.parser.unreader.environ = environ

    def let_go(self) -> bool:
        """Let go of what the request took of the worker; return whether its client has yet to take of the reply."""
        if self.outgoing and self.outgoing.rest and self.sock.fileno() != -1:
            self.caller = caller_of(self.parser.unreader.environ)
        else:
            self.outgoing = None
        self.last_head = b""  # a connection may be idle for long, and there may be thousands
        if self.initialized:
            self.parser.unreader.let_go()
        return self.outgoing is not None

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

    def abort(self) -> None:
        """Close the socket in the middle of a reply, without a word."""
        close(self.sock)

    def close(self, graceful: bool = False) -> None:
        """Close the socket, unless the thread that answered has done so already; never wait for the client."""
        if self.sock.fileno() != -1:
            self._say_end()
            super().close(graceful=False)
