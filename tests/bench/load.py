"""The load: processes of their own that send rendered requests over kept-alive connections and time the answers."""

import multiprocessing
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.bench.connections import PATIENCE, Connection, open_evenly
from tests.bench.requests import Request
from tests.bench.servers import Server

_forking = multiprocessing.get_context("fork")  # the requests are inherited, not copied


@dataclass(frozen=True)
class Outcome:
    """What the load saw: ``latencies`` in seconds, one per request; ``seconds`` from the first byte to the last.

    ``cpu`` is the seconds of CPU that the load itself took meanwhile.
    """

    latencies: list[float]
    seconds: float
    cpu: float


def _drive(connections: Sequence[Connection], requests: Sequence[Request]) -> list[float]:
    """Send ``requests``, the next one wherever an answer came; return the latencies in seconds."""
    waiting, latencies = iter(requests), []
    with selectors.DefaultSelector() as selector:
        for connection, request in zip(connections, waiting, strict=False):
            connection.begin(request)
            selector.register(connection.socket, _interest(connection), connection)
        while selector.get_map():
            ready = selector.select(PATIENCE)
            if not ready:
                raise TimeoutError("the server is silent")
            for key, events in ready:
                _go_on(key.data, events, selector, waiting, latencies)
    return latencies


def _interest(connection: Connection) -> int:
    return selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)


def _go_on(connection: Connection, events: int, selector, waiting: Iterator[Request], latencies: list[float]) -> None:
    before = _interest(connection)
    if events & selectors.EVENT_WRITE:
        connection.send()
    if events & selectors.EVENT_READ and connection.receive():
        latencies.append(time.perf_counter() - connection.began)
        following = next(waiting, None)
        if following is None:
            selector.unregister(connection.socket)
            return
        connection.begin(following)
    if _interest(connection) != before:
        selector.modify(connection.socket, _interest(connection), connection)


def _client(connections: Sequence[Connection], warm_up: Sequence[Request], requests: Sequence[Request], pipe) -> None:
    """Be one load process: warm up, say so, wait for the word, send, tell."""
    try:
        _drive(connections, warm_up)
        pipe.send("ready")
        pipe.recv()
        cpu, began = time.process_time(), time.perf_counter()
        latencies = _drive(connections, requests)
        pipe.send((latencies, began, time.perf_counter(), time.process_time() - cpu))
    except Exception as fault:
        pipe.send(fault)


def run(
    server: Server,
    requests: Sequence[Request],
    warm_up: Sequence[Request] = (),
    clients: int = 16,
    before: Callable[[], None] = lambda: None,
) -> Outcome:
    """Send ``warm_up``, then ``requests`` to ``server`` over ``clients`` connections, of two processes.

    ``warm_up`` has at least a request for each connection: gunicorn's own worker holds a thread for up to five seconds
    for one that says nothing. ``before`` is called when all are warm and nothing is under way. Raises what a load met.
    """
    connections = open_evenly(server.port, server.workers(), min(clients, len(requests)))
    count = min(2, len(connections))
    pipes, processes = [], []
    try:
        for number in range(count):
            ours, theirs = _forking.Pipe()
            own = slice(len(connections) * number // count, len(connections) * (number + 1) // count)
            args = connections[own], warm_up[number::count], requests[number::count], theirs
            processes.append(_forking.Process(target=_client, args=args, daemon=True))
            processes[-1].start()
            theirs.close()  # one that dies is then noticed here
            pipes.append(ours)
        for pipe in pipes:
            _answer(pipe)
        before()
        for pipe in pipes:
            pipe.send("go")
        told = [_answer(pipe) for pipe in pipes]
    finally:
        for connection in connections:
            connection.socket.close()
        for process in processes:
            process.terminate()  # it has told all, or another has failed
            process.join()
    latencies = [one for latencies, *_ in told for one in latencies]
    return Outcome(latencies, max(one[2] for one in told) - min(one[1] for one in told), sum(one[3] for one in told))


def _answer(pipe) -> object:
    found = pipe.recv()
    if isinstance(found, Exception):
        raise found
    return found
