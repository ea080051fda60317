"""The gunicorn worker: threads, a deadline for every request's arrival, and this contract's error replies.

gunicorn's own gthread worker reads headers and body without a time limit, so that a client which sends half
a request keeps a thread for ever; and its error pages quote the fault.
"""

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterable

from gunicorn import util
from gunicorn.http import errors
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from receiver import problems
from receiver.body import BODY_READ
from receiver.signature import SIGNATURE

READ_TIMEOUT = 30.0  # seconds; receiver.server replaces it by STORAGE_READ_TIMEOUT
_FIRST_BYTE = 0.2  # seconds a new connection may keep a thread before it must wait for its data elsewhere
_LINGER = 1.0  # seconds for a client to take the reply before its connection is closed

_STATUSES = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.UnsupportedTransferCoding: 501,
    errors.ExpectationFailed: 417,
}


class DeadlineUnreader(SocketUnreader):
    """Reads from a socket until ``deadline`` (time.monotonic); then the client counts as gone."""

    deadline = 0.0
    gave_up = False

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return what arrives next; raises NoMoreData when nothing does in time."""
        outer = self.sock.gettimeout()
        left = self.deadline - time.monotonic()
        if left <= 0:
            self.gave_up = True
            raise errors.NoMoreData()
        self.sock.settimeout(left if outer is None else min(outer, left))
        try:
            return super().chunk(size_hint)
        except TimeoutError:
            self.gave_up = True
            raise errors.NoMoreData() from None
        finally:
            self.sock.settimeout(outer)


class Connection(TConn):
    """A connection whose requests each have ``read_timeout`` seconds to arrive."""

    def __init__(self, cfg, sock, client, server, read_timeout: float):
        super().__init__(cfg, sock, client, server)
        self.read_timeout = read_timeout
        # A client that does not read its reply must not keep the thread either.
        limit = struct.pack("ll", int(read_timeout), 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def close(self, graceful: bool = False) -> None:
        """Close the socket, unless the thread that answered has done so already."""
        if self.sock.fileno() != -1:
            super().close(graceful)

    def wait_for_data(self, timeout: float) -> bool:
        """Return whether data is there, soon; an idle connection then waits in the poller, not in a thread."""
        return super().wait_for_data(min(timeout, _FIRST_BYTE))

    def init(self) -> None:
        """Prepare for the next request on this connection: its time to arrive begins now."""
        fresh = not self.initialized
        super().init()
        if fresh:
            self.parser.unreader = DeadlineUnreader(self.sock)
        self.parser.unreader.deadline = time.monotonic() + self.read_timeout


class Worker(ThreadWorker):
    """gunicorn's gthread worker with these connections and these error replies."""

    def enqueue_req(self, conn: TConn) -> None:
        """Hand ``conn`` to the thread pool, as a Connection."""
        if not isinstance(conn, Connection):
            conn = Connection(conn.cfg, conn.sock, conn.client, conn.server, READ_TIMEOUT)
        super().enqueue_req(conn)

    def load_wsgi(self) -> None:
        """Load the application, and close the connection behind any request whose body it did not read."""
        super().load_wsgi()
        self.wsgi = _closing_unread(self.wsgi)

    def handle(self, conn: TConn):
        """Handle one request in a thread; a connection that ends also lingers here, not in the accepting thread."""
        kept = super().handle(conn)
        if kept is False:
            too_slow = conn.initialized and conn.parser.unreader.gave_up
            util.close_graceful(conn.sock, 0 if too_slow else _LINGER)
        return kept

    def handle_error(self, req, client, addr, exc) -> None:
        """Answer a request that is not HTTP, or that failed outside the application; then it is closed."""
        if isinstance(exc, errors.ParseException):
            status = _status_of(exc)
            self.log.warning("refused: %s from %s", type(exc).__name__, addr[0] if addr else "-")
        else:
            status = 500
            self.log.error("error outside the application", exc_info=exc)
        uri = (getattr(req, "uri", None) or "").partition("?")[0]
        with contextlib.suppress(OSError):
            client.sendall(_reply(status, uri))


def _closing_unread(application: Callable) -> Callable:
    """Return ``application`` such that a body which it leaves unread is not waited for, nor read as a request."""

    def answer(environ: dict, start_response: Callable) -> Iterable[bytes]:
        def start(status: str, headers: list, exc_info=None) -> Callable:
            has_body = environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ
            if has_body and not environ.get(BODY_READ):
                start_response.__self__.force_close()
            return start_response(status, headers, exc_info)

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
