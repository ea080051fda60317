"""Sending replies: head and body together, without a thread for a client that does not take its own at once."""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from functools import partial

from receiver.threadpool import blocking
from receiver.wsgi import ADMIT, BODY_READ, CONTINUE

_JOINED = 64 << 10  # bytes of a body that is copied to be sent with its head
_TLS_PIECE = 64 << 10  # bytes
_BRIEF = 0.05  # seconds of a reply in which its thread waits for the client as for anything else
_SLOWEST_READER = 1 << 20  # bytes a second that a client must take of a large reply


def next_piece(sock: socket.socket, view: memoryview, sent: int) -> memoryview:
    """Return what to send of ``view`` after the first ``sent`` bytes.

    TLS takes what it is given whole or, as far as anybody sees, not at all; and wants the same again (SSL_write(3)).
    """
    return view[sent : sent + _TLS_PIECE] if isinstance(sock, ssl.SSLSocket) else view[sent:]


def send_at_once(sock: socket.socket, data: bytes) -> int:
    """Send what ``sock`` takes of ``data`` without waiting; returns how many bytes."""
    if not isinstance(sock, ssl.SSLSocket):
        try:
            return sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
    sent = 0
    sock.setblocking(False)
    try:
        with memoryview(data) as view:
            while sent < len(view):
                sent += sock.send(next_piece(sock, view, sent))
    except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
        pass
    finally:
        sock.setblocking(True)
    return sent


class Outgoing:
    """A socket that sends the head of a reply together with its body: one system call less, and one packet.

    What the client does not take soon is left in ``rest``, for the worker's poller.
    """

    def __init__(self, sock: socket.socket, patience: float):
        self.sock = sock
        self.patience = patience  # seconds that the client has to take it
        self.holds_head = False
        self.head = b""
        self.rest: list[bytes] = []
        self._brief = _BRIEF

    def sendall(self, data: bytes) -> None:
        """Send ``data``, or keep it: when it is a head whose body follows, or when the client is slow."""
        if self.holds_head:
            self.head, self.holds_head = data, False
            return
        if self.head:
            data, self.head = self.head + data, b""
        if self.rest:  # nothing overtakes it
            self.rest.append(data)
            return
        sent = send_at_once(self.sock, data)
        if sent < len(data):
            sent = self._send_soon(data, sent)
            if sent < len(data):
                self.rest.append(data[sent:])

    def _send_soon(self, data: bytes, sent: int) -> int:
        """Send what follows the first ``sent`` bytes of ``data`` as long as that is soon; returns how many are sent."""
        until = time.monotonic() + self._brief
        try:
            with blocking(), memoryview(data) as view, contextlib.suppress(TimeoutError):
                while sent < len(view) and (left := until - time.monotonic()) > 0:
                    self.sock.settimeout(left)
                    sent += self.sock.send(next_piece(self.sock, view, sent))
        finally:
            self.sock.settimeout(None)  # else each attempt to send at once would wait
        self._brief = max(0.0, until - time.monotonic())
        return sent


def bounded(application: Callable, patience: float, is_ending: Callable[[], bool]) -> Callable:
    """Return ``application`` such that neither an unread body nor a reply that is not taken keeps a thread.

    A reply has ``patience`` seconds, and more when it is large. When ``is_ending``, each closes its connection. The
    request that gunicorn made has to know its ``connection``.
    """

    def answer(environ: dict, start_response: Callable) -> Iterable[bytes]:
        response, sock = start_response.__self__, environ["gunicorn.socket"]
        connection = response.req.connection
        outgoing = response.sock = connection.outgoing = Outgoing(sock, patience)
        connection.begin_request(environ)

        def start(status: str, headers: list, exc_info=None) -> Callable:
            has_body = environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ
            if (has_body and not environ.get(BODY_READ)) or is_ending():
                response.force_close()  # else the rest would be waited for, or read as a request
            size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            outgoing.patience = patience + size / _SLOWEST_READER
            outgoing.holds_head = 0 < size <= _JOINED and environ["REQUEST_METHOD"] != "HEAD"
            return start_response(status, headers, exc_info)

        if response.req.expects_continue:
            environ[CONTINUE] = partial(outgoing.sendall, b"HTTP/1.1 100 Continue\r\n\r\n")
        environ[ADMIT] = connection.parser.unreader.admit
        return application(environ, start)

    return answer
