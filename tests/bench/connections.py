"""Kept-alive connections of the load: opened evenly over a server's workers, before any time is measured."""

import contextlib
import itertools
import socket
import time
from collections.abc import Sequence

from tests.bench import processes
from tests.bench.requests import Request

PATIENCE = 120  # seconds of silence after which a load gives up
_PIECE = 1 << 18  # bytes taken from a socket at once
_TRYING = 5  # seconds after which any worker will do


class Connection:
    """One kept-alive connection and the request that is under way on it."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = memoryview(bytearray(_PIECE))

    def begin(self, request: Request) -> None:
        self.request, self.began = request, time.perf_counter()
        self.unsent = [memoryview(one) for one in (request.head, request.body) if one]
        self.head, self.missing = b"", None
        self.send()

    def send(self) -> bool:
        """Send what the socket takes; tell whether all is sent."""
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                sent = self.socket.sendmsg(self.unsent)
                while self.unsent and sent >= len(self.unsent[0]):
                    sent -= len(self.unsent.pop(0))
                if sent:
                    self.unsent[0] = self.unsent[0][sent:]
        return not self.unsent

    def receive(self) -> bool:
        """Take what came; tell whether the answer is complete."""
        count = self.socket.recv_into(self.buffer)
        if not count:
            raise ConnectionError(f"the server closed the connection: {self.head[:200]!r}")
        if self.missing is None:
            self.head += self.buffer[:count].tobytes()
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return False
            self.missing = self._length(self.head[:end].lower()) - (len(self.head) - end - 4)
        else:
            self.missing -= count
        return self.missing == 0

    def _length(self, head: bytes) -> int:
        status = int(head[9:12])
        if status != self.request.status:
            raise ValueError(f"{self.request.status} was expected: {self.head[:600]!r}")
        _, _, rest = head.partition(b"content-length:")
        return int(rest.partition(b"\r\n")[0] or 0)


def open_evenly(port: int, workers: Sequence[int], count: int) -> list[Connection]:
    """Return ``count`` connections to the server at ``port``, as many to each of its ``workers`` (pids) as can be.

    Which worker accepts one is chance, and may be the same for nearly all: then one worker's speed would be measured.
    What goes to a worker that has its share is closed again. Neighbours in the list are of different workers.
    """
    shares: dict[int, list[Connection]] = {pid: [] for pid in workers}
    most, surplus = -(-count // len(workers)), []
    until = time.monotonic() + _TRYING
    while missing := count - sum(map(len, shares.values())):
        if time.monotonic() > until:
            surplus = [Connection(port) for _ in range(missing)]
            break
        for one, pid in _accepted([Connection(port) for _ in range(missing)], port, workers):
            if len(shares[pid]) < most:
                shares[pid].append(one)
            else:
                one.socket.close()
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*shares.values()))
    return [one for one in in_turn if one] + surplus


def _accepted(opened: Sequence[Connection], port: int, workers: Sequence[int]) -> list[tuple[Connection, int]]:
    """Return ``opened`` with the worker that accepted each, once all are."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        owners = processes.owners(port, workers)
        found = [(one, owners.get(one.socket.getsockname()[1])) for one in opened]
        if all(pid for _, pid in found):
            return found
        time.sleep(0.002)
    raise TimeoutError("the server accepts no connections")
