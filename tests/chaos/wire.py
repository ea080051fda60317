"""A wire between a receiver and its database that faults cut: it swallows, holds, refuses, or loses the answer to a COMMIT.

It reads as much of PostgreSQL's and of MySQL's protocol as it takes to see a client's COMMIT.
"""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator

PASS, HOLD, SWALLOW, REFUSE = "pass", "hold", "swallow", "refuse"
_COMMIT = re.compile(rb"\s*commit\b", re.IGNORECASE)
_SSL_OR_GSS = (80877103, 80877104)


class PostgresReader:
    """Sees the COMMIT in what a client sends to PostgreSQL, cut anywhere."""

    def __init__(self) -> None:
        self.left, self.is_started = b"", False

    def commits(self, data: bytes) -> int:
        """Return how many COMMITs are complete with ``data``, which goes on where the last one ended."""
        self.left += data
        found = 0
        while True:
            head = 0 if not self.is_started else 1
            if len(self.left) < head + 4:
                return found
            size = head + struct.unpack_from("!I", self.left, head)[0]
            if len(self.left) < size:
                return found
            message, self.left = self.left[:size], self.left[size:]
            if not self.is_started:
                self.is_started = struct.unpack_from("!I", message, 4)[0] not in _SSL_OR_GSS
            elif message[:1] == b"Q":
                found += bool(_COMMIT.match(message, 5))
            elif message[:1] == b"P":  # Parse: the name of the statement, then its text
                found += bool(_COMMIT.match(message, message.index(b"\0", 5) + 1))


class MariaReader:
    """Sees the COMMIT in what a client sends to MariaDB or MySQL, cut anywhere."""

    def __init__(self) -> None:
        self.left = b""

    def commits(self, data: bytes) -> int:
        """Return how many COMMITs are complete with ``data``, which goes on where the last one ended."""
        self.left += data
        found = 0
        while len(self.left) >= 4 and len(self.left) >= (size := 4 + int.from_bytes(self.left[:3], "little")):
            packet, self.left = self.left[:size], self.left[size:]
            found += packet[3:5] == b"\0\3" and bool(_COMMIT.match(packet, 5))  # the first of a command; COM_QUERY
        return found


class Wire:
    """Listens at ``port`` and connects to the server at ``behind``. ``mode`` is what it does with bytes and connections.

    ``cut`` is how many of the next COMMITs are forwarded while their answers are lost; ``was_cut`` counts those.
    """

    def __init__(self, behind: int, reader: Callable[[], PostgresReader | MariaReader]) -> None:
        self.behind, self.reader = behind, reader
        self.mode, self.cut, self.was_cut = PASS, 0, 0
        self._lock, self._passes = threading.Lock(), threading.Event()
        self._passes.set()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener: socket.socket | None = None
        self.port = self._listen(0)

    def _listen(self, port: int) -> int:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self._listener.getsockname()[1]

    def change(self, mode: str) -> None:
        """Go over to ``mode``. What was held goes on where it was; connections that lost bytes end."""
        before, self.mode = self.mode, mode
        self._passes.clear() if mode == HOLD else self._passes.set()
        if mode == REFUSE:
            # shutdown wakes the thread in accept, and only then is the port free
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        elif before == REFUSE:
            self._listen(self.port)
        if REFUSE in (before, mode) or before == SWALLOW:
            self.reset()

    def reset(self) -> None:
        """End all connections as a crash does: with a reset."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            _end(pair)

    def close(self) -> None:
        self.change(REFUSE)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._passes.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self.behind), timeout=5)
        except OSError:
            _end((client,))
            return
        server.settimeout(None)
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair, loses = (client, server), threading.Event()
        with self._lock:
            self._pairs.add(pair)
        back = threading.Thread(target=self._bring, args=(pair, loses), daemon=True)
        back.start()
        self._send(pair, loses)

    def _send(self, pair, loses: threading.Event) -> None:
        """Forward what the client sends."""
        client, server = pair
        reader = self.reader()
        for data in _received(client):
            if reader.commits(data) and self._is_to_cut():
                loses.set()
            if self._may_go():
                with contextlib.suppress(OSError):
                    server.sendall(data)
        self._over(pair)

    def _bring(self, pair, loses: threading.Event) -> None:
        """Forward what the server answers; an answer to a COMMIT that is to be cut ends the connection instead."""
        client, server = pair
        for data in _received(server):
            if loses.is_set():
                self.was_cut += 1
                break
            if self._may_go():
                with contextlib.suppress(OSError):
                    client.sendall(data)
        self._over(pair)

    def _is_to_cut(self) -> bool:
        with self._lock:
            self.cut -= bool(wanted := self.cut > 0)
        return wanted

    def _may_go(self) -> bool:
        """Wait while the wire holds; return whether bytes are forwarded at all."""
        self._passes.wait()
        return self.mode != SWALLOW

    def _over(self, pair) -> None:
        with self._lock:
            self._pairs.discard(pair)
        _end(pair)


def _received(one: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            yield data


def _end(sockets) -> None:
    """Close ``sockets``, each with a reset."""
    for one in sockets:
        with contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.shutdown(socket.SHUT_RD)  # wakes the thread that receives
        with contextlib.suppress(OSError):
            one.close()


READERS = {"postgresql": PostgresReader, "mariadb": MariaReader}
