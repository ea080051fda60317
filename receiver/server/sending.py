"""Sends replies: head and body together, and no longer than a moment in the thread of a slow client."""

import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Protocol
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from receiver.threadpool import blocking
from receiver.wsgi import BODY_READ, CONTINUE

_JOINED = 64 << 10  # bytes of a body that is copied to be sent with its head
_TLS_PIECE = 64 << 10  # bytes
_BRIEF = 0.05  # seconds that a thread waits for the client in one reply
_SLOWEST_READER = 1 << 20  # bytes a second that a client must take of a large reply

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class _Connection(Protocol):
    """What ``bounded`` needs of receiver.server.connection.Connection."""

    outgoing: "Outgoing | None"

    def begin_request(self, environ: WSGIEnvironment) -> None: ...

    def may_answer(self) -> bool: ...


class _Request(Protocol):
    """gunicorn's request, with what the worker puts there."""

    connection: _Connection
    expects_continue: bool


class _Response(Protocol):
    """gunicorn's response."""

    req: _Request
    sock: object

    def force_close(self) -> None: ...


def next_piece(sock: socket.socket, view: memoryview, sent: int) -> memoryview:
    """Return the next bytes to send of ``view`` after the first ``sent`` bytes.

    TLS sends a piece whole or reports that it sent nothing, and then expects the same piece again (SSL_write(3)).
    """
    return view[sent : sent + _TLS_PIECE] if isinstance(sock, ssl.SSLSocket) else view[sent:]


def send_at_once(sock: socket.socket, data: bytes) -> int:
    """Send what ``sock`` takes of ``data`` without blocking; return how many bytes."""
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
    """A socket that sends the head of a reply together with its body, in one system call and one packet.

    ``rest`` holds what the client does not take soon, for the worker's poller.
    """

    def __init__(self, sock: socket.socket, patience: float) -> None:
        self.sock = sock
        self.patience = patience  # seconds that the client has to take the reply
        self.holds_head = False
        self.head = b""
        self.rest: list[bytes] = []
        self._brief = _BRIEF

    def sendall(self, data: bytes) -> None:
        """Send ``data``; keep it if it is a head whose body follows, or if the client is slow."""
        if self.holds_head:
            self.head, self.holds_head = data, False
            return
        if self.head:
            data, self.head = self.head + data, b""
        if self.rest:  # to keep the order
            self.rest.append(data)
            return
        sent = send_at_once(self.sock, data)
        if sent < len(data):
            sent = self._send_soon(data, sent)
            if sent < len(data):
                self.rest.append(data[sent:])

    def _send_soon(self, data: bytes, sent: int) -> int:
        """Send ``data`` from byte ``sent`` on, for a moment; return how many bytes are sent in all."""
        until = time.monotonic() + self._brief
        try:
            with blocking(), memoryview(data) as view, contextlib.suppress(TimeoutError):
                while sent < len(view) and (left := until - time.monotonic()) > 0:
                    self.sock.settimeout(left)
                    sent += self.sock.send(next_piece(self.sock, view, sent))
        finally:
            self.sock.settimeout(None)  # a time-out would make send_at_once block
        self._brief = max(0.0, until - time.monotonic())
        return sent


def bounded(application: WSGIApplication, patience: float, is_ending: Callable[[], bool]) -> WSGIApplication:
    """Return ``application``, wrapped so that neither an unread body nor a slow reader keeps a thread.

    A client has ``patience`` seconds for its reply, and more if that is large. While ``is_ending()``, each reply closes
    its connection. gunicorn's request must carry its ``connection`` (Worker.handle_request).
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response: _Response = start_response.__self__  # type: ignore[attr-defined]  # it is the response's method
        sock = environ["gunicorn.socket"]
        connection = response.req.connection
        outgoing = response.sock = connection.outgoing = Outgoing(sock, patience)
        connection.begin_request(environ)

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: _ExceptionInfo | None = None, /
        ) -> Callable[[bytes], object]:
            if not connection.may_answer():
                raise BrokenPipeError(errno.EPIPE, "the request was answered by another thread")
            has_body = environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ
            if (has_body and not environ.get(BODY_READ)) or is_ending():
                response.force_close()  # else gunicorn would wait for the rest, or read it as a request
            size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            outgoing.patience = patience + size / _SLOWEST_READER
            outgoing.holds_head = 0 < size <= _JOINED and environ["REQUEST_METHOD"] != "HEAD"
            return start_response(status, headers, exc_info)

        if response.req.expects_continue:
            environ[CONTINUE] = partial(outgoing.sendall, b"HTTP/1.1 100 Continue\r\n\r\n")
        return application(environ, start)

    return answer
