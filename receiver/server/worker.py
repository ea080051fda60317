"""The gunicorn worker: threads that no slow client can hold, and this contract's error replies.

gunicorn's own gthread worker reads headers and body in its threads without a time limit, closes connections
in the thread that accepts them, and quotes the fault in its error pages.
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
from functools import cached_property, partial

from gunicorn.http import errors
from gunicorn.sock import ssl_context
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn

from receiver import threadpool
from receiver.network.addresses import AccessPolicy, unmapped
from receiver.server import memory, reload
from receiver.server.capacity import Capacity
from receiver.server.connection import Connection, HandshakeFailed
from receiver.server.errors import Drops, ThrottledLog, reply, status_of, tls_fault
from receiver.server.heads import HeadRefused, fault_of
from receiver.server.replies import Replies
from receiver.server.sending import bounded, send_at_once
from receiver.server.signals import SignalledWorker
from receiver.telemetry import metrics
from receiver.wsgi import public_path

READ_TIMEOUT = 30.0  # seconds; receiver.server.application replaces it by STORAGE_READ_TIMEOUT
_LONGEST_DEAFNESS = 0.1  # seconds without a look at the connections
_AGAIN = 5.0  # seconds until keys and certificates that could not be taken are tried once more
_BREATH = 0.5  # seconds without new connections when the system has no room for one
_MAX_BODY = 32 << 20  # bytes; under gunicorn's own application, which has no settings of ours
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Worker(SignalledWorker):
    """gunicorn's gthread worker with these connections and these error replies."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lingering: deque[Connection] = deque()
        settings = getattr(self.app, "settings", None)
        self.prefix = settings.public_prefix if settings else ""
        self.gate: AccessPolicy = getattr(self.app, "gate", AccessPolicy())
        max_body = settings.max_body if settings else _MAX_BODY
        self.capacity = Capacity(
            max_body, self.cfg.threads, threadpool.releasable_slots(self.cfg.threads), Drops(self.log)
        )
        self.replies = Replies(self)
        self.deaf_until = 0.0
        self.reading_anew = threading.Lock()
        self.not_listed, self.not_agreed, self.no_room = (ThrottledLog(self.log) for _ in range(3))
        self.no_head: dict[str, ThrottledLog] = defaultdict(partial(ThrottledLog, self.log))  # by HeadRefused.kind
        self.served = threading.local()  # conn: the connection that this thread serves

    def get_thread_pool(self) -> threadpool.Pool:
        """Return the threads that serve connections whose next request has a whole head."""
        return threadpool.Pool(self.cfg.threads, threadpool.processors_for(self.cfg.workers), self._serve)

    def read_anew(self) -> None:
        """Take the keys and certificates that are there now, in a thread: opening protected ones may take long."""

        def read() -> None:
            with self.reading_anew:  # whoever reads last has read what is there last
                while not reload.take(self._refresh, self.log):  # which the master could
                    time.sleep(_AGAIN)
                self.log.info("%s %s has taken keys and certificates", getattr(self.app, "title", "worker"), self.pid)

        threading.Thread(target=read, daemon=True).start()

    def _refresh(self) -> list[str]:
        self.app.refresh()
        return []  # the master has told what changed

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what a new connection is secured with: the receiver's own, or what gunicorn's options say."""
        if hasattr(self.app, "tls"):
            return self.app.tls.context if self.app.tls else None
        return self._tls_of_options

    @cached_property
    def _tls_of_options(self) -> ssl.SSLContext | None:
        return ssl_context(self.cfg) if self.cfg.is_ssl else None

    def run(self) -> None:
        """Serve until told to stop. However that ends, no idle thread keeps the process."""
        try:
            super().run()
        finally:
            self.tpool.shutdown()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for what happens on the connections and see to it, but not while all threads have enough to do."""
        self.tpool.wait_until_drained(min(timeout, _LONGEST_DEAFNESS))
        super().wait_for_and_dispatch_events(timeout)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Take new connections or not; there is no room for any shortly after the system had none."""
        super().set_accept_enabled(enabled and time.monotonic() >= self.deaf_until)

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection; when the system has no room for it, it waits outside for a moment."""
        try:
            super().accept(listener)
        except OSError as cause:
            if cause.errno not in _NO_ROOM:
                raise
            self.no_room.say("no new connection can be taken: %s", os.strerror(cause.errno))
            self.deaf_until = time.monotonic() + _BREATH
            self.set_accept_enabled(False)

    def enqueue_req(self, conn: TConn) -> None:
        """Hand ``conn`` to the thread pool once the head of its request is there; until then it waits in the poller."""
        if not isinstance(conn, Connection):
            conn = self._let_in(conn)
            if conn is None:
                self.nr_conns -= 1
                return
        conn.expect_head()
        step = self._step_of(conn)
        if step:
            step(conn)
            return
        self.pending_conns.append(conn)  # murder_pending closes it when its time is over
        self.poller.register(conn.sock, conn.interest, partial(self._on_head_readable, conn))

    def _let_in(self, plain: TConn) -> Connection | None:
        """Return the connection that ``plain`` becomes, or None when it was closed."""
        plain.client = unmapped(plain.client)
        if self.gate.lets_in(_peer(plain.client)):
            with contextlib.suppress(OSError, ValueError):  # the client is gone
                return Connection(plain, READ_TIMEOUT, self.tls_context(), self.capacity)
        else:
            self.not_listed.say("closed: %s is not one of STORAGE_ALLOW_FROM", _peer(plain.client))
        plain.close()
        return None

    def _step_of(self, conn: Connection) -> Callable[[Connection], None] | None:
        """Take what has arrived on ``conn``; return what to do with it, None to wait for more."""
        try:
            return self.tpool.submit if conn.has_head() else None
        except HeadRefused as fault:
            self.no_head[fault.kind].say("refused: no request from %s, %s", _peer(conn.client) or "-", fault)
            metrics.refused(fault.status)
            with contextlib.suppress(OSError):
                send_at_once(conn.sock, reply(fault.status, ""))
            return self._linger
        except HandshakeFailed as fault:
            if str(fault):
                self.not_agreed.say("closed: no TLS with %s, %s", _peer(conn.client), tls_fault(str(fault)))
            return self._linger

    def _on_head_readable(self, conn: Connection, sock: socket.socket) -> None:
        waited_for = conn.interest
        step = self._step_of(conn)
        if step:
            self.poller.unregister(sock)
            self.pending_conns.remove(conn)
            step(conn)
        elif conn.interest != waited_for:
            self.poller.modify(sock, conn.interest, partial(self._on_head_readable, conn))

    def _serve(self, conn: Connection) -> None:
        """Answer the request on ``conn``, in a thread; then it waits for the next one, or goes to its end."""
        has_rest = kept = False
        self.served.conn = conn
        try:
            try:
                kept = self.handle(conn)
            finally:
                has_rest = conn.let_go()
            if has_rest:
                self.method_queue.defer(self.replies.take, conn, kept)
            elif not kept:
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

    def go_on(self, conn: Connection, kept: bool) -> None:
        """Go on with ``conn``, whose reply was taken to its end: wait for its next request if it is ``kept``."""
        if not kept:
            self._linger(conn)
        elif conn.has_more():
            self.enqueue_req(conn)
        else:
            self._keep(conn)

    def _keep(self, conn: Connection) -> None:
        """Let ``conn`` wait in the poller for its next request, without a word to the main thread."""
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.keepalived_conns.append(conn)  # first: the main thread may see its next request at once
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
        with contextlib.suppress(ValueError):  # all is over, and closed
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def _take_the_last(self) -> None:
        """Take the connections that were made already, and let nobody make another one.

        As long as any worker has the listener open the system goes on making them, and would cut off all that were not
        taken when the last worker ends: also those whose request came before the signal to stop.
        """
        for listener in self.sockets:
            waiting = select.poll()
            waiting.register(listener, select.POLLIN)
            for _ in range(self.cfg.backlog):  # more cannot have waited; who comes in a flood now is no reason to stay
                if not waiting.poll(0) or time.monotonic() < self.deaf_until:
                    break
                self.accept(listener)
            listener.close()

    def _cap_keepalive(self, deadline: float) -> None:
        """When stopping, take who is there, and do not wait long for requests that have not arrived either."""
        self._take_the_last()
        # Not the base's: threads append to keepalived_conns while it walks through them.
        for conn in (*self.keepalived_conns, *self.pending_conns, *self.lingering):
            conn.timeout = min(conn.timeout, deadline)

    def load_wsgi(self) -> None:
        """Load the application, and close the connection behind any request whose body it did not read."""
        super().load_wsgi()
        self.wsgi = bounded(self.wsgi, READ_TIMEOUT, self._is_ending)
        memory.settle()

    def _is_ending(self) -> bool:
        """Tell whether the receiver is about to end: whoever uses this connection had better make another one."""
        return getattr(getattr(self.app, "life", None), "is_ending", False)

    def handle_request(self, req, conn: Connection) -> bool:
        """Answer ``req``; what the client does not take soon is left for the poller."""
        # gunicorn would say "100 Continue" before the application has judged the request.
        req.expects_continue, req._expected_100_continue = req._expected_100_continue, False
        req.connection = conn
        try:
            return super().handle_request(req, conn)
        finally:
            req.connection = None  # else they would hold one another, and what was read

    def _linger(self, conn: Connection) -> None:
        """Take ``conn`` to its end without a thread, unless the one that answered has closed it."""
        if conn.sock.fileno() == -1:
            self.nr_conns -= 1
            return
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
        """Close connections whose time is over: no request, a reply that is not taken, enough of lingering."""
        super().murder_pending()
        self.replies.expire()
        while self.lingering and self.lingering[0].timeout <= time.monotonic():
            self._end_lingering(self.lingering.popleft())

    def handle_error(self, req, client, addr, exc) -> None:
        """Answer a request that is not HTTP, or that failed outside the application; then it is closed."""
        if isinstance(exc, ssl.SSLError):
            self.not_agreed.say("closed: TLS with %s broke, %s", _peer(addr), exc.reason or type(exc).__name__)
            return
        if isinstance(exc, errors.ParseException):
            status = status_of(exc)
            fault = fault_of(exc, self.served.conn.last_head, self.cfg.limit_request_field_size)
            self.log.warning("refused: %s, from %s", fault, _peer(addr) or "-")
        else:
            status = 500
            self.log.error("error outside the application", exc_info=exc)
        metrics.refused(status)
        uri = (getattr(req, "uri", None) or "").partition("?")[0]
        if uri.startswith("/"):
            uri = public_path(uri, self.prefix)
        with contextlib.suppress(OSError):
            send_at_once(client, reply(status, uri))  # it fits, unless the client takes nothing at all


def _peer(address: object) -> str:
    """Return the text of a socket's ``address``; empty for a Unix socket."""
    return str(address[0]) if isinstance(address, tuple) else ""
