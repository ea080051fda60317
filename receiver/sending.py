"""Sending replies: head and body together, and no thread is held by a client that does not take its own."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from functools import partial

from receiver.body import BODY_READ, CONTINUE
from receiver.connection import LARGE, Pace
from receiver.turns import waiting

_JOINED = 64 << 10  # bytes of a body that is copied to be sent with its head
_LITTLE_GRACE = 1.0  # seconds
_SLOWEST_READER = 1 << 20  # bytes a second that a client must take of a large reply


def send_patiently(sock: socket.socket, data: bytes | memoryview, patience: float, lends: bool = True) -> None:
    """Send ``data`` to a client that has ``patience`` seconds to take it; others compute meanwhile.

    ``lends``: another thread may serve in place of this one; else the client gets less grace. Raises TimeoutError.
    """
    pace = Pace(patience) if lends else Pace(patience, _LITTLE_GRACE)
    try:
        with waiting(for_client=lends), memoryview(data) as view:
            while pace.moved < len(view):
                left = pace.left()
                if not left:
                    raise TimeoutError
                sock.settimeout(left)
                pace.moved += sock.send(view[pace.moved :])
    finally:
        sock.settimeout(None)  # else each attempt to send at once would wait


def _send_at_once(sock: socket.socket, data: bytes) -> int:
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
            while sent < len(view):  # one TLS record at a time
                sent += sock.send(view[sent:])
    except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
        pass
    finally:
        sock.setblocking(True)
    return sent


class _Joined:
    """A socket that sends the head of a reply together with its body: one system call less, and one packet."""

    def __init__(self, sock: socket.socket, patience: float, large: threading.Semaphore):
        self.sock = sock
        self.patience = patience  # seconds that the client has to take it
        self.large = large
        self.holds_head = False
        self.head = b""

    def sendall(self, data: bytes) -> None:
        """Send ``data``, or keep it when it is a head whose body follows; others compute while the client is slow."""
        if self.holds_head:
            self.head, self.holds_head = data, False
            return
        if self.head:
            data, self.head = self.head + data, b""
        sent = _send_at_once(self.sock, data)
        if sent < len(data):
            with memoryview(data) as view:
                self._send_rest(view[sent:])

    def _send_rest(self, rest: memoryview) -> None:
        """Send ``rest``. Few large ones may wait in memory: beyond those, the thread that waits counts."""
        is_large = len(rest) > LARGE
        lends = not is_large or self.large.acquire(blocking=False)
        try:
            send_patiently(self.sock, rest, self.patience, lends)
        finally:
            if is_large and lends:
                self.large.release()


def bounded(
    application: Callable, patience: float, large: threading.Semaphore, is_ending: Callable[[], bool]
) -> Callable:
    """Return ``application`` such that neither an unread body nor a reply that is not taken keeps a thread.

    A reply has ``patience`` seconds, and more when it is large; ``large`` counts those that may wait for it. When
    ``is_ending``, each closes its connection.
    """

    def answer(environ: dict, start_response: Callable) -> Iterable[bytes]:
        response, sock = start_response.__self__, environ["gunicorn.socket"]
        response.sock = _Joined(sock, patience, large)

        def start(status: str, headers: list, exc_info=None) -> Callable:
            has_body = environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ
            if (has_body and not environ.get(BODY_READ)) or is_ending():
                response.force_close()  # else the rest would be waited for, or read as a request
            size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            response.sock.patience = patience + size / _SLOWEST_READER
            response.sock.holds_head = 0 < size <= _JOINED and environ["REQUEST_METHOD"] != "HEAD"
            return start_response(status, headers, exc_info)

        if response.req.expects_continue:
            environ[CONTINUE] = partial(send_patiently, sock, b"HTTP/1.1 100 Continue\r\n\r\n", patience)
        return application(environ, start)

    return answer
