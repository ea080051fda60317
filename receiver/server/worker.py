"""The gunicorn worker: no slow client can hold its threads, and its error replies follow the protocol.

gunicorn's own gthread worker reads headers and body in its threads without a time limit, closes connections in the
thread that accepts them, and quotes the fault in its error pages.
"""

import contextlib
import errno
import os
import select
import selectors
import socket
import ssl
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from wsgiref.types import WSGIApplication

from gunicorn.http import Request, errors
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn

from receiver import threadpool
from receiver.network.addresses import unmapped
from receiver.server import memory, reload
from receiver.server.capacity import Capacity
from receiver.server.connection import Connection, HandshakeFailed
from receiver.server.errors import Drops, ThrottledLog, peer, reply, status_of, tls_fault
from receiver.server.heads import HeadRefused, fault_of
from receiver.server.host import PlainHost, WorkerHost
from receiver.server.lingering import Lingering
from receiver.server.overdue import Overdue
from receiver.server.replies import Replies
from receiver.server.sending import bounded, send_at_once
from receiver.server.worker_signals import SignalSafeWorker
from receiver.telemetry import metrics, standard_error
from receiver.wsgi import public_path

_LONGEST_PAUSE = 0.1  # seconds without a look at the connections
_RETRY = 5.0  # seconds until a failed reload is tried again
_NO_ACCEPT = 0.5  # seconds without new connections after the system had no resources for one
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Worker(SignalSafeWorker):
    """gunicorn's gthread worker with Connection, Replies and the error replies of the protocol."""

    slot: int | None = None  # set by Master.prepare_worker
    poller: selectors.BaseSelector
    tpool: threadpool.Pool[Connection]
    sockets: list[socket.socket]
    keepalived_conns: deque[Connection]
    pending_conns: deque[Connection]
    nr_conns: int
    wsgi: WSGIApplication

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.host: WorkerHost = self.app if isinstance(self.app, WorkerHost) else PlainHost(self.cfg)
        self.is_reloadable = not isinstance(self.host, PlainHost)
        slots = threadpool.releasable_slots(self.cfg.threads)
        self.capacity = Capacity(self.host.max_body, self.cfg.threads, slots, Drops(self.log))
        self.replies, self.overdue, self.lingering = Replies(self), Overdue(self), Lingering(self)
        self.accepts_again = 0.0  # time.monotonic
        self.reload_lock = threading.Lock()
        self.not_listed, self.not_agreed, self.no_room = (ThrottledLog(self.log) for _ in range(3))
        self.no_head: dict[str, ThrottledLog] = defaultdict(partial(ThrottledLog, self.log))  # by HeadRefused.kind
        self.served = threading.local()  # conn: the connection that this thread serves

    def get_thread_pool(self) -> threadpool.Pool[Connection]:
        """Return the threads that serve connections whose next request has a complete head."""
        return threadpool.Pool(self.cfg.threads, threadpool.processors_for(self.cfg.workers), self._serve)

    def reload_keys(self) -> None:
        """Take the present keys and certificates, in a thread: decrypting protected keys may take long."""

        def read() -> None:
            with self.reload_lock:  # so that the last reader reads the last files
                while not reload.take(self._refresh, self.log):  # the master has taken them, so they are valid
                    time.sleep(_RETRY)
                self.log.info("%s %s has taken keys and certificates", self.host.title, self.pid)

        threading.Thread(target=read, daemon=True).start()

    def _refresh(self) -> list[str]:
        self.host.refresh()
        self.host.warm_up()  # a worker without requests would keep its connection with a former login
        return []  # the master has logged the changes

    def run(self) -> None:
        """Serve until a signal ends it; then end the idle threads, which would keep the process alive."""
        self.begin_to_serve()
        try:
            super().run()
        finally:
            self.tpool.shutdown()
            if self.overdue.has_stuck():
                self.log.warning("a call of a store has not returned: the process ends without it")
                standard_error.flush()
                os._exit(0)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events on the connections and handle them, but not while all threads have enough work.

        As long as a request waits for a thread, new connections stay in the backlog, where another worker finds them,
        and where they outlive this one.
        """
        if not self.tpool.wait_until_drained(min(timeout, _LONGEST_PAUSE)):
            timeout = 0.0
            self.set_accept_enabled(False)  # until the next round
        super().wait_for_and_dispatch_events(self.overdue.pause(timeout))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept new connections or not; never just after the system had no resources for one."""
        super().set_accept_enabled(enabled and time.monotonic() >= self.accepts_again)

    def accept(self, listener: socket.socket) -> None:
        """Accept a new connection; when the system has no resources for it, leave it in the backlog for a moment."""
        try:
            super().accept(listener)
        except OSError as cause:
            if cause.errno not in _NO_ROOM:
                raise
            self.no_room.say("cannot accept new connections: %s", os.strerror(cause.errno))
            self.accepts_again = time.monotonic() + _NO_ACCEPT
            self.set_accept_enabled(False)

    def enqueue_req(self, conn: TConn) -> None:
        """Hand ``conn`` to the thread pool once the head of its request is complete, and to the poller until then."""
        if not isinstance(conn, Connection):
            admitted = self._admit(conn)
            if admitted is None:
                self.nr_conns -= 1
                return
            conn = admitted
        conn.expect_head()
        step = self._next_step(conn)
        if step:
            step(conn)
            return
        self.pending_conns.append(conn)  # for murder_pending, which closes it when its time is over
        self.poller.register(conn.sock, conn.interest, partial(self._on_head_readable, conn))

    def _admit(self, plain: TConn) -> Connection | None:
        """Return ``plain`` as a Connection, or close it and return None."""
        plain.client = unmapped(plain.client)
        if self.host.access.lets_in(peer(plain.client)):
            with contextlib.suppress(OSError, ValueError):  # the client is gone
                return Connection(plain, self.host.read_timeout, self.host.tls_context, self.capacity)
        else:
            self.not_listed.say("closed: %s is not one of STORAGE_ALLOW_FROM", peer(plain.client))
        plain.close()
        return None

    def _next_step(self, conn: Connection) -> Callable[[Connection], None] | None:
        """Read what has arrived on ``conn``; return what to do with it, None to wait for more."""
        try:
            return self.tpool.submit if conn.has_head() else None
        except HeadRefused as fault:
            self.no_head[fault.kind].say("refused: no request from %s, %s", peer(conn.client) or "-", fault)
            metrics.refused(fault.status)
            with contextlib.suppress(OSError):
                send_at_once(conn.sock, reply(fault.status, ""))
            return self.lingering.take
        except HandshakeFailed as fault:
            if str(fault):
                self.not_agreed.say("closed: no TLS with %s, %s", peer(conn.client), tls_fault(str(fault)))
            return self.lingering.take

    def _on_head_readable(self, conn: Connection, sock: socket.socket) -> None:
        waited_for = conn.interest
        step = self._next_step(conn)
        if step:
            self.poller.unregister(sock)
            self.pending_conns.remove(conn)
            step(conn)
        elif conn.interest != waited_for:
            self.poller.modify(sock, conn.interest, partial(self._on_head_readable, conn))

    def _serve(self, conn: Connection) -> None:
        """Answer the request on ``conn``, in a thread; then wait for the next one, or close the connection."""
        rest, kept, is_ours = None, False, True
        self.served.conn = conn
        self.overdue.begin(conn)
        try:
            try:
                kept = self.handle(conn)
            finally:
                is_ours = self.overdue.end(conn)
                rest = conn.release() if is_ours else None
            if not is_ours:
                return
            if rest:
                self.method_queue.defer(self.replies.take, conn, rest, kept)
            elif not kept:
                self.method_queue.defer(self.lingering.take, conn)
            elif conn.has_more():
                self.method_queue.defer(self.enqueue_req, conn)
            else:
                self._keep(conn)
        except Exception:
            if is_ours:
                with contextlib.suppress(ValueError):
                    self.keepalived_conns.remove(conn)
                self.method_queue.defer(self.lingering.take, conn)
            raise

    def resume(self, conn: Connection, kept: bool) -> None:
        """Continue with ``conn``, whose client has taken its reply: wait for its next request if it is ``kept``."""
        if not kept:
            self.lingering.take(conn)
        elif conn.has_more():
            self.enqueue_req(conn)
        else:
            self._keep(conn)

    def _keep(self, conn: Connection) -> None:
        """Let the poller wait for the next request on ``conn``, without a call to the main thread."""
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.keepalived_conns.append(conn)  # first: the main thread may see its next request at once
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
        with contextlib.suppress(ValueError):  # the worker has ended, and the socket is closed
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def _accept_backlog(self) -> None:
        """Accept the connections in the backlog, and close the listeners.

        The system adds connections to the backlog as long as any worker has the listener open, and resets those that no
        worker has accepted when the last one closes it, including requests that came before the signal to stop.
        """
        for listener in self.sockets:
            waiting = select.poll()
            waiting.register(listener, select.POLLIN)
            for _ in range(self.cfg.backlog):  # no more can have waited; a flood must not keep the worker
                if not waiting.poll(0) or time.monotonic() < self.accepts_again:
                    break
                self.accept(listener)
            listener.close()

    def _cap_keepalive(self, deadline: float) -> None:
        """Accept the backlog of a stopping worker, and do not wait long for requests that have not arrived."""
        self._accept_backlog()
        # Not the base's method: threads append to keepalived_conns during its loop.
        for conn in (*self.keepalived_conns, *self.pending_conns, *self.lingering.connections):
            conn.timeout = min(conn.timeout, deadline)

    def load_wsgi(self) -> None:
        """Load the application, wrapped by ``bounded``, and what its first request would otherwise wait for."""
        super().load_wsgi()
        self.host.warm_up()
        self.wsgi = bounded(self.wsgi, self.host.read_timeout, lambda: self.host.is_ending)
        memory.settle()

    def handle_request(self, req: Request, conn: Connection) -> bool:
        """Answer ``req``, and leave what the client takes slowly to the poller; return whether to keep ``conn``."""
        # gunicorn would send "100 Continue" before the application has checked the signature.
        req.expects_continue, req._expected_100_continue = req._expected_100_continue, False
        req.connection = conn
        try:
            kept: bool = super().handle_request(req, conn)
            return kept
        finally:
            req.connection = None  # the cycle would keep the bytes of the request alive

    def murder_pending(self) -> None:
        """Close connections whose time is over, while they wait for a request, a slow reader or the client's close."""
        super().murder_pending()
        self.replies.expire()
        self.overdue.look()
        self.lingering.expire()

    def handle_error(self, req: Request | None, client: socket.socket, addr: object, exc: Exception) -> None:
        """Answer a request that is not HTTP, or that failed outside the application; the connection closes then."""
        if self.served.conn.wait.is_given_up:
            return
        if isinstance(exc, ssl.SSLError):
            self.not_agreed.say("closed: TLS with %s failed, %s", peer(addr), exc.reason or type(exc).__name__)
            return
        if isinstance(exc, errors.ParseException):
            status = status_of(exc)
            fault = fault_of(exc, self.served.conn.last_head, self.cfg.limit_request_field_size)
            self.log.warning("refused: %s, from %s", fault, peer(addr) or "-")
        else:
            status = 500
            self.log.error("error outside the application", exc_info=exc)
        metrics.refused(status)
        uri = (req.uri or "" if req else "").partition("?")[0]
        if uri.startswith("/"):
            uri = public_path(uri, self.host.public_prefix)
        with contextlib.suppress(OSError):
            send_at_once(client, reply(status, uri))  # it fits, unless the client reads nothing at all
