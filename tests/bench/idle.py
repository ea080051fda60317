"""What a server holds and how it starts: idle memory, seconds to the first answer, peaks at the largest states."""

import contextlib
import http.client
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.bench import cells, processes
from tests.bench.figures import spread
from tests.bench.requests import SIZES, Platform, content_of, requests_of
from tests.bench.servers import House, Server

_STARTS = 5
_SETTLED = 1.0  # seconds after which a server that has started is looked at
_LARGEST = "10 MB"


def peaks(house: House, stores: Sequence[str], say: Callable[[str], None]) -> list[dict]:
    """Return the peak memory of a worker above its base, as multiple of the content: one client, 10 MB, per store.

    Each in a new server of one worker, which had answered small requests before.
    """
    house = replace(house, workers=1)
    large, small = (Platform(str(uuid.uuid4()), house.keys) for _ in range(2))
    size = SIZES[_LARGEST]
    large_states = large.states(content_of(size, large.tenant).state(), size, 2)
    small_states = small.states(content_of(7_000, small.tenant).state(), 7_000, 2)
    warm_up = [one for call in ("POST", "GET") for one in requests_of(call, small, small_states, 4, 0)]
    rows = []
    for name in (*stores, "plain"):
        for call in ("GET", "POST"):
            with house.plain() if name == "plain" else house.receiver(name) as server:
                if call == "GET":
                    _store_unseen(server, large, large_states)
                found = cells.measure(server, requests_of(call, large, large_states, 3, 1), warm_up, 1)
            rows.append({"server": name, "call": call, "bytes": found["memory"], "multiple": found["memory"] / size})
            say(f"peak memory, {call} of {_LARGEST}, {name}: {rows[-1]['multiple']:.1f} times the content")
    return rows


def _store_unseen(server: Server, platform: Platform, states: Sequence) -> None:
    """Save ``states``, then let the worker be replaced, so that its base is that of one that saw no large state."""
    cells.fill(server, platform, states, 1)
    worker = server.workers()[0]
    processes.end(worker)
    while worker in server.workers():
        time.sleep(0.05)
    time.sleep(_SETTLED)


def starts(house: House, say: Callable[[str], None]) -> list[dict]:
    """Return for the receiver and the plain server: seconds to the first answer, bytes of an idle one in all."""
    rows = []
    for name, start in (("receiver", lambda: house.receiver("sqlite")), ("plain", house.plain)):
        looks = [_start(start) for _ in range(_STARTS)]
        rows.append({"server": name} | {figure: spread([look[figure] for look in looks]) for figure in looks[0]})
        say(f"start, {name}: {rows[-1]['seconds']['median']:.2f} s, {rows[-1]['rss']['median'] / 1e6:.0f} MB")
    return rows


def _start(start: Callable[[], contextlib.AbstractContextManager[Server]]) -> dict[str, float]:
    began = time.perf_counter()
    with start() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/api/storage/1/health")
        answer = connection.getresponse()
        seconds = time.perf_counter() - began
        answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"health: {answer.status}")
        time.sleep(_SETTLED)
        family = processes.family(server.pid)
        rss = sum(processes.memory(pid, "VmRSS") for pid in family)
        pss = sum(processes.memory(pid, "Pss", file="smaps_rollup") for pid in family)
    return {"seconds": seconds, "rss": rss, "pss": pss}
