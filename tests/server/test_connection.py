"""The head of a request, however small the pieces are that it arrives in."""

import ssl
import time

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from receiver.server import connection
from receiver.server.capacity import Capacity
from receiver.server.connection import Connection


class Records(ssl.SSLSocket):
    """A TLS socket, agreed on, that has received ``records``: it gives out ``most`` bytes of one at a time."""

    def __init__(self, records, most=1 << 16):
        self.records, self.most = [*reversed(records)], most
        self.rest = b""

    def __del__(self):
        """There is nothing to close."""

    def gettimeout(self):
        return 0.0

    def setblocking(self, _flag):
        """It never blocks."""

    def pending(self):
        return len(self.rest)

    def recv(self, _size):
        if not self.rest:
            if not self.records:
                raise ssl.SSLWantReadError
            self.rest = self.records.pop()
        data, self.rest = self.rest[: self.most], self.rest[self.most :]
        return data


def received(*how):
    connected = Connection(
        TConn(Config(), Records(*how), ("h", 1), ("h", 2)), 30, None, Capacity(1 << 20, 1, 8, lambda *_: None)
    )
    connected.expect_head()
    return connected


def test_a_head_in_records_of_a_byte_costs_its_length_and_not_its_square():
    connected = received([b"x"] * 63_000)
    began = time.thread_time()
    while connected.sock.records:
        assert not connected.has_head()
    assert len(connected.head) == 63_000
    assert time.thread_time() - began < 0.5  # it was 1.5 s


def test_others_get_their_turn_while_a_head_comes_in_small_pieces():
    connected = received([b"x"] * 1000)
    assert not connected.has_head()
    assert len(connected.head) == connection._MOST_READS
    assert connected.interest == connection.selectors.EVENT_READ


def test_what_tls_holds_is_taken_at_once_since_the_poller_would_not_tell_of_it():
    connected = received([b"x" * 1000, b"y" * 1000], 10)
    assert not connected.has_head()
    assert connected.sock.pending() == 0
    assert connected.head == b"x" * 1000


@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_the_end_of_a_head_is_found_wherever_it_is_cut(cut, size):
    head = b"GET / HTTP/1.1\r\nA: \r\r\n\r" + b"x" * 300 + b"\r\n\r\n"
    records = [head[:cut], *(head[at : at + size] for at in range(cut, len(head), size))]
    connected = received(records)
    turns = 0
    while not connected.has_head():
        turns += 1
        assert turns < len(records)
    assert connected.head == head
    assert turns == (len(records) - 1) // connection._MOST_READS
