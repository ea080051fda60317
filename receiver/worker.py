"""The gunicorn worker: threads that no slow client can hold, and this contract's error replies.

gunicorn's own gthread worker reads headers and body in its threads without a time limit, closes connections
in the thread that accepts them, and quotes the fault in its error pages.
"""

import contextlib
import ctypes
import gc
import json
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from gunicorn.http import errors
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from receiver import problems, turns
from receiver.body import BODY_READ, CONTINUE
from receiver.connection import Connection
from receiver.signature import SIGNATURE

READ_TIMEOUT = 30.0  # seconds; receiver.server replaces it by STORAGE_READ_TIMEOUT
_LARGE = 2 << 20  # bytes of a piece of memory that is for one state alone
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LONGEST_DEAFNESS = 0.1  # seconds without a look at the connections
_GARBAGE = 10_000  # objects that a worker makes before it looks for rings among them, some 50 requests'
_JOINED = 64 << 10  # bytes of a body that is copied to be sent with its head
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

    def get_thread_pool(self) -> turns.Pool:
        """Return the threads that serve connections whose next request has a whole head."""
        return turns.Pool(self.cfg.threads, turns.share_of(self.cfg.workers), self._serve)

    def run(self) -> None:
        """Serve until told to stop. However that ends, no idle thread keeps the process."""
        try:
            super().run()
        finally:
            self.tpool.shutdown()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for what happens on the connections and see to it, but not while all threads have enough to do."""
        self.tpool.await_appetite(min(timeout, _LONGEST_DEAFNESS))
        super().wait_for_and_dispatch_events(timeout)

    def enqueue_req(self, conn: TConn) -> None:
        """Hand ``conn`` to the thread pool once the head of its request is there; until then it waits in the poller."""
        if not isinstance(conn, Connection):
            conn = Connection(conn, READ_TIMEOUT)
        conn.expect_head()
        if conn.has_head():
            self.tpool.submit(conn)
            return
        self.pending_conns.append(conn)  # murder_pending closes it when its time is over
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_head_readable, conn))

    def _on_head_readable(self, conn: Connection, sock: socket.socket) -> None:
        if conn.has_head():
            self.poller.unregister(sock)
            self.pending_conns.remove(conn)
            self.tpool.submit(conn)

    def _serve(self, conn: Connection) -> None:
        """Answer the request on ``conn``, in a thread; then it waits for the next one, or goes to its end."""
        try:
            if not self.handle(conn):
                self.method_queue.defer(self._linger, conn)
            elif conn.has_more():
                self.method_queue.defer(self.enqueue_req, conn)
            else:
                self._keep(conn)
        except Exception:
            with contextlib.suppress(ValueError):
                self.keepalived_conns.remove(conn)
            self.method_queue.defer(self._linger, conn)
            raise

    def _keep(self, conn: Connection) -> None:
        """Let ``conn`` wait in the poller for its next request, without a word to the main thread."""
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.keepalived_conns.append(conn)  # first: the main thread may see its next request at once
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
        with contextlib.suppress(ValueError):  # all is over, and closed
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def _cap_keepalive(self, deadline: float) -> None:
        """When stopping, do not wait long for requests that have not arrived either."""
        # Not the base's: threads append to keepalived_conns while it walks through them.
        for conn in (*self.keepalived_conns, *self.pending_conns, *self.lingering):
            conn.timeout = min(conn.timeout, deadline)

    def load_wsgi(self) -> None:
        """Load the application, and close the connection behind any request whose body it did not read."""
        super().load_wsgi()
        self.wsgi = _bounded(self.wsgi)
        # What is there now stays: looking for garbage in it, again and again, is work for nothing.
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        _give_memory_back()

    def handle_request(self, req, conn: Connection) -> bool:
        """Answer ``req``; a client that does not take the reply in time is left."""
        # gunicorn would say "100 Continue" before the application has judged the request.
        req.expects_continue, req._expected_100_continue = req._expected_100_continue, False
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            self.log.info("the reply was not taken in time by %s", _peer(conn.client))
            return False

    def _linger(self, conn: Connection) -> None:
        """Take ``conn`` to its end without a thread, unless the one that answered has closed it."""
        if conn.sock.fileno() == -1:
            self.nr_conns -= 1
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
            _send_patiently(client, _reply(status, uri), READ_TIMEOUT)


def _peer(address: object) -> str:
    return str(address[0]) if isinstance(address, tuple) else "-"


def _give_memory_back() -> None:
    """Have glibc return what a large state took as soon as it is free; it would keep it, and take more for the next."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 8 * _LARGE)


def _send_patiently(sock: socket.socket, data: bytes | memoryview, patience: float) -> None:
    """Send ``data`` to a client that has ``patience`` seconds to take it; others compute meanwhile."""
    sock.settimeout(patience)
    try:
        with turns.waiting():
            sock.sendall(data)
    finally:
        sock.settimeout(None)  # else each attempt to send at once would wait


class _Joined:
    """A socket that sends the head of a reply together with its body: one system call less, and one packet."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self.patience = READ_TIMEOUT  # seconds that the client has to take it
        self.holds_head = False
        self.head = b""

    def sendall(self, data: bytes) -> None:
        """Send ``data``, or keep it when it is a head whose body follows; others compute while the client is slow."""
        if self.holds_head:
            self.head, self.holds_head = data, False
            return
        if self.head:
            data, self.head = self.head + data, b""
        try:
            sent = self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            with memoryview(data) as view:
                _send_patiently(self.sock, view[sent:], self.patience)


def _bounded(application: Callable) -> Callable:
    """Return ``application`` such that neither an unread body nor a reply that is not taken keeps a thread."""

    def answer(environ: dict, start_response: Callable) -> Iterable[bytes]:
        response, sock = start_response.__self__, environ["gunicorn.socket"]
        response.sock = _Joined(sock)

        def start(status: str, headers: list, exc_info=None) -> Callable:
            has_body = environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ
            if has_body and not environ.get(BODY_READ):
                response.force_close()  # else the rest would be waited for, or read as a request
            size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            response.sock.patience = READ_TIMEOUT + size / _SLOWEST_READER
            response.sock.holds_head = 0 < size <= _JOINED and environ["REQUEST_METHOD"] != "HEAD"
            return start_response(status, headers, exc_info)

        if response.req.expects_continue:
            environ[CONTINUE] = partial(_send_patiently, sock, b"HTTP/1.1 100 Continue\r\n\r\n", READ_TIMEOUT)
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
