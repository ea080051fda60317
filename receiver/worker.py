"""The gunicorn worker: threads that no slow client can hold, and this contract's error replies.

gunicorn's own gthread worker reads headers and body in its threads without a time limit, closes connections
in the thread that accepts them, and quotes the fault in its error pages.
"""

import contextlib
import json
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial

from gunicorn.http import errors
from gunicorn.workers.gthread import TConn, ThreadWorker

from receiver import problems
from receiver.body import BODY_READ, CONTINUE
from receiver.connection import Connection
from receiver.signature import SIGNATURE

READ_TIMEOUT = 30.0  # seconds; receiver.server replaces it by STORAGE_READ_TIMEOUT
_SLOWEST_READER = 1 << 20  # bytes a second that a client must take of a large reply

_STATUSES = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.UnsupportedTransferCoding: 501,
    errors.ExpectationFailed: 417,
}


class Worker(ThreadWorker):
    """gunicorn's gthread worker with these connections and these error replies."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lingering: deque[Connection] = deque()

    def enqueue_req(self, conn: TConn) -> None:
        """Hand ``conn`` to the thread pool once the head of its request is there; until then it waits in the poller."""
        if not isinstance(conn, Connection):
            conn = Connection(conn, READ_TIMEOUT)
        conn.expect_head()
        if conn.has_head():
            super().enqueue_req(conn)
            return
        self.pending_conns.append(conn)  # murder_pending closes it when its time is over
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_head_readable, conn))

    def _on_head_readable(self, conn: Connection, sock: socket.socket) -> None:
        if conn.has_head():
            self.poller.unregister(sock)
            self.pending_conns.remove(conn)
            super().enqueue_req(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """When stopping, do not wait long for requests that have not arrived either."""
        super()._cap_keepalive(deadline)
        for conn in (*self.pending_conns, *self.lingering):
            conn.timeout = min(conn.timeout, deadline)

    def load_wsgi(self) -> None:
        """Load the application, and close the connection behind any request whose body it did not read."""
        super().load_wsgi()
        self.wsgi = _bounded(self.wsgi)

    def handle_request(self, req, conn: Connection) -> bool:
        """Answer ``req``; a client that does not take the reply in time is left."""
        # gunicorn would say "100 Continue" before the application has judged the request.
        req.expects_continue, req._expected_100_continue = req._expected_100_continue, False
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            self.log.info("the reply was not taken in time by %s", _peer(conn.client))
            return False

    def finish_request(self, conn: Connection, fs: Future) -> None:
        """Take ``conn`` back from its thread: for its next request, or to linger to its end without a thread."""
        if fs.cancelled() or fs.exception() is not None or fs.result() is not False or conn.sock.fileno() == -1:
            super().finish_request(conn, fs)
            return
        with contextlib.suppress(OSError):
            conn.sock.shutdown(socket.SHUT_WR)
        conn.expect_end(hurried=not self.alive)
        self.lingering.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_lingering_readable, conn))

    def _on_lingering_readable(self, conn: Connection, _sock: socket.socket) -> None:
        if conn.has_ended():
            self.lingering.remove(conn)
            self._end_lingering(conn)

    def _end_lingering(self, conn: Connection) -> None:
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        """Close connections whose request did not arrive in time, and those that have lingered long enough."""
        super().murder_pending()
        while self.lingering and self.lingering[0].timeout <= time.monotonic():
            self._end_lingering(self.lingering.popleft())

    def handle_error(self, req, client, addr, exc) -> None:
        """Answer a request that is not HTTP, or that failed outside the application; then it is closed."""
        if isinstance(exc, errors.ParseException):
            status = _status_of(exc)
            self.log.warning("refused: %s from %s", type(exc).__name__, _peer(addr))
        else:
            status = 500
            self.log.error("error outside the application", exc_info=exc)
        uri = (getattr(req, "uri", None) or "").partition("?")[0]
        with contextlib.suppress(OSError):
            client.sendall(_reply(status, uri))


def _peer(address: object) -> str:
    return str(address[0]) if isinstance(address, tuple) else "-"


def _bounded(application: Callable) -> Callable:
    """Return ``application`` such that neither an unread body nor a reply that is not taken keeps a thread."""

    def answer(environ: dict, start_response: Callable) -> Iterable[bytes]:
        response, sock = start_response.__self__, environ["gunicorn.socket"]

        def start(status: str, headers: list, exc_info=None) -> Callable:
            has_body = environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ
            if has_body and not environ.get(BODY_READ):
                response.force_close()  # else the rest would be waited for, or read as a request
            size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            sock.settimeout(READ_TIMEOUT + size / _SLOWEST_READER)
            return start_response(status, headers, exc_info)

        if response.req.expects_continue:
            environ[CONTINUE] = partial(sock.sendall, b"HTTP/1.1 100 Continue\r\n\r\n")
        return application(environ, start)

    return answer


def _status_of(exc: Exception) -> int:
    if isinstance(exc, errors.InvalidHeaderName):
        # X_ManyWho_Signature, which other servers take for the real one, is a signature that is not valid.
        imitated = str(exc.hdr).replace("_", "-").lower() == SIGNATURE.lower()
        return 401 if imitated else 400
    return next((status for kind, status in _STATUSES.items() if isinstance(exc, kind)), 400)


def _reply(status: int, uri: str) -> bytes:
    body, _, headers = problems.reply(status, problems.message_of(status), uri)
    payload = json.dumps(body).encode("ascii")
    lines = [f"HTTP/1.1 {status} {problems.phrase_of(status)}", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + payload
