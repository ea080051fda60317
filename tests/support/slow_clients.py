"""Clients that take replies or send bodies slowly, many at once: driven by one thread, on loopback only."""

import contextlib
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable

_TICK = 0.1  # seconds between two pieces
_PAUSE = 1.0  # seconds
_SEGMENT = 1400  # bytes, as on a network; with those of loopback the kernel takes megabytes off the server at once
_RECEIVE_BUFFER = 64 << 10  # bytes that the kernel takes on a client's behalf


class _Client:
    """One connection: sends ``request``, ``sent_rate`` bytes of it a second, and takes ``taken_rate`` of the reply."""

    def __init__(self, address: tuple[str, int], request: bytes, at_once: int, context: ssl.SSLContext | None):
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
        plain.settimeout(10)
        plain.connect(address)
        self.sock = context.wrap_socket(plain, server_hostname="localhost") if context else plain
        self.sock.sendall(request[:at_once])
        self.sock.setblocking(False)
        self.rest = request[at_once:]
        self.began = time.monotonic()
        self.reply = b""  # its beginning
        self.taken = 0

    @property
    def status(self) -> str:
        """The status of the reply; "none" when the connection ended without one."""
        return self.reply[9:12].decode() or "none"

    def step(self, sends: int, takes: int) -> bool:
        """Send and take so many bytes; return whether the connection has ended."""
        try:
            while self.rest and sends > 0:
                sent = self.sock.send(self.rest[:sends])
                self.rest, sends = self.rest[sent:], sends - sent
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError:
            self.rest = b""  # a reply may be there
        try:
            data = self.sock.recv(takes)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        self.reply += data[: max(0, 4096 - len(self.reply))]
        self.taken += len(data)
        return not data


class SlowClients:
    """A context in which so many clients (``count``) send ``request()``; one that ends comes again after a second.

    ``sent_rate`` and ``taken_rate`` are bytes a second; ``at_once`` bytes of a request go out first. ``ended`` counts
    the statuses of the replies, ``seconds`` lists after how long each of a status came.
    """

    def __init__(
        self,
        address: tuple[str, int],
        count: int,
        request: Callable[[], bytes],
        sent_rate: int = 1 << 30,
        taken_rate: int = 1 << 30,
        at_once: int = 1 << 30,
        follows: bool = True,
        context: ssl.SSLContext | None = None,
    ):
        self._address, self._count, self._request, self._context = address, count, request, context
        self._sends, self._takes = (max(1, int(rate * _TICK)) for rate in (sent_rate, taken_rate))
        self._at_once, self._follows = at_once, follows
        self.clients: list[_Client] = []
        self.ended: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._is_over.set()
        self._thread.join()
        for client in self.clients:
            client.sock.close()

    def _run(self) -> None:
        due = [0.0] * self._count  # when each of those that are missing comes
        while not self._is_over.wait(_TICK):
            while due and due[0] <= time.monotonic() and not self._is_over.is_set():
                due.pop(0)
                with contextlib.suppress(OSError):
                    self.clients.append(_Client(self._address, self._request(), self._at_once, self._context))
            for client in [*self.clients]:
                if client.step(self._sends, self._takes):
                    self._end(client)
                    due.extend([time.monotonic() + _PAUSE] * self._follows)

    def _end(self, client: _Client) -> None:
        self.clients.remove(client)
        client.sock.close()
        self.ended[client.status] += 1
        self.seconds.setdefault(client.status, []).append(time.monotonic() - client.began)


def rendered(method: str, path: str, headers: dict[str, str], body: bytes = b"", length: int | None = None) -> bytes:
    """Return a request as it goes over the wire; ``length`` is what it declares, where that is not its body's."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or length:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def is_ended(sock: socket.socket, seconds: float) -> bool:
    """Tell whether the other side closes ``sock`` within so many seconds; what it sends is thrown away."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as waiting:
        waiting.register(sock, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if waiting.select(left):
                try:
                    if not sock.recv(1 << 20):
                        return True
                except BlockingIOError:
                    continue
                except OSError:
                    return True
    return False
