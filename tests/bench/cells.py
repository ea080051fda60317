"""The main table: each call at each size on all servers, round by round."""

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from receiver.mock_platform.client import Client
from receiver.mock_platform.keys import StoreKeys
from tests.bench import load
from tests.bench.figures import percentile, ratios, spread
from tests.bench.requests import COUNTS, SHARES, SIZES, Platform, Request, Saved, changed, content_of, requests_of
from tests.bench.servers import Meter, Server

_WARM_UP = 3  # requests of each connection that are not counted
_NEEDS_STATES = ("GET", "DELETE", "mixed")


@dataclass(frozen=True)
class Stock:
    """The states of one size, under a tenant of their own: ``count`` requests are made of each call.

    ``jws`` is the length of what is signed of one, ``content`` what it holds.
    """

    size: str
    platform: Platform
    states: list[Saved]
    count: int
    jws: int
    content: str

    def floor_sizes(self) -> dict[str, int]:
        """Return the lengths that the floor works on, those of the first state's token and of what is in it."""
        token = len(self.states[0].body) - len('[{"token":""}]')
        compressed = token * 3 // 4
        return {"jws": self.jws, "compressed": compressed, "content": SIZES[self.size], "token": token}


def stock(size: str, keys: StoreKeys, scale: float) -> Stock:
    """Return the states of ``size``; ``scale`` is the share of the usual number of requests."""
    count = max(4, round(COUNTS[size] * scale))
    platform = Platform(str(uuid.uuid5(uuid.NAMESPACE_OID, size)), keys)
    spare = round(count * SHARES["DELETE"]) + 1  # of which the deletions of mixed live
    state = content_of(SIZES[size], platform.tenant).state()
    states = platform.states(state, SIZES[size], count + spare)
    return Stock(size, platform, states, count, platform.jws_size(state), state["content"])


def measure(server: Server, requests: Sequence[Request], warm_up: Sequence[Request], clients: int) -> dict:
    """Return what ``requests`` cost ``server``: seconds of CPU per request, seconds that answers took, bytes.

    ``busiest`` is the share of the CPU that one worker took: which of them gets a connection is chance.
    """
    meter = Meter(server)
    outcome = load.run(server, requests, warm_up, clients, meter.begin)
    time.sleep(0.03)  # the log line of the last answer is part of its cost
    taken, count = meter.end(), len(requests)
    return {
        "busiest": taken["busiest"],
        "requests_per_second": count / outcome.seconds,
        "p50": percentile(outcome.latencies, 0.50),
        "p90": percentile(outcome.latencies, 0.90),
        "p99": percentile(outcome.latencies, 0.99),
        "cpu": taken["cpu"] / count,
        "database_cpu": taken["database_cpu"] / count,
        "load_cpu": outcome.cpu / count,
        "memory": taken["memory"],
    }


def fill(server: Server, platform: Platform, states: Sequence[Saved], clients: int) -> None:
    """Save those of ``states`` that ``server`` does not hold."""
    missing = [state for state in states if state.id not in server.held]
    if missing and server.name != "floor":
        load.run(server, [platform.post(state) for state in missing], clients=clients)
    server.held.update(state.id for state in missing)


def check(server: Server, of: Stock) -> None:
    """Raise unless ``server`` answers the content that it was given to keep."""
    fill(server, of.platform, of.states[:1], 1)
    with contextlib.closing(Client(f"http://127.0.0.1:{server.port}", of.platform.tenant, of.platform.keys)) as client:
        answer = client.load(of.states[0].id)
        if answer.status != 200 or client.open(of.states[0].id, answer) != of.content:
            raise ValueError(f"{server.name} answers something else than was saved")


def run_cell(
    call: str, of: Stock, smallest: Stock, servers: Sequence[Server], clients: int, seed: int
) -> dict[str, dict]:
    """Return server's name → figures of one round of ``call`` on each of ``servers``, one right after the other.

    They are warmed up with states of ``smallest``: large ones would leave large heaps, and take as long as what is
    measured.
    """
    found = {}
    for server in servers:
        if call in _NEEDS_STATES:
            fill(server, of.platform, of.states, clients)
        fill(server, smallest.platform, smallest.states[:1], 1)
    warm_up = _warm_up(call, smallest, clients)
    requests = requests_of(call, of.platform, of.states, of.count, seed)
    saved, deleted = changed(call, of.states, of.count)
    for server in servers:
        found[server.name] = measure(server, requests, warm_up, clients)
        server.held |= set(saved)
        server.held -= set(deleted)
    return found


def _warm_up(call: str, of: Stock, clients: int) -> list[Request]:
    """Return requests about small states that leave what ``call`` works on alone: saves, or deletions of nothing."""
    count = _WARM_UP * clients
    if call == "DELETE":
        return [of.platform.delete(str(uuid.uuid4())) for _ in range(count)]
    return requests_of("GET" if call == "GET" else "POST", of.platform, of.states[:1], count, 0)


def run_rounds(
    servers: Sequence[Server],
    stocks: Sequence[Stock],
    calls: Sequence[str],
    rounds: int,
    clients: int,
    say: Callable[[str], None],
) -> list[dict]:
    """Run all cells ``rounds`` times; return a dict for each cell: call, size, and servers → figure → all rounds."""
    cells = [{"call": call, "size": of.size, "rounds": []} for of in stocks for call in calls]
    by_size = {of.size: of for of in stocks}
    for number in range(rounds):
        for place, cell in enumerate(cells):
            turn = (number + place) % len(servers)
            order = [*servers[turn:], *servers[:turn]]
            if (number // len(servers)) % 2:
                order.reverse()
            found = run_cell(cell["call"], by_size[cell["size"]], stocks[0], order, clients, seed=number)
            cell["rounds"].append({server.name: found[server.name] for server in servers})
            told = ", ".join(f"{server.name} {1000 * found[server.name]['cpu']:.2f}" for server in servers)
            say(f"round {number + 1}/{rounds} {cell['call']:6} {cell['size']:>6}, ms of CPU: {told}")
    return cells


def summarise(cell: dict) -> dict:
    """Return ``cell`` with median and spread of each figure, and the ratios to the floor and to the plain server."""
    rounds = cell["rounds"]
    names = list(rounds[0])
    servers = {}
    for name in names:
        mine = [one[name] for one in rounds]
        servers[name] = {figure: spread([one[figure] for one in mine]) for figure in mine[0]}
        if name != "floor" and "floor" in names:
            servers[name]["efficiency"] = ratios([one["floor"]["cpu"] for one in rounds], [one["cpu"] for one in mine])
        if name not in ("floor", "plain") and "plain" in names:
            rates = ([one["requests_per_second"] for one in some] for some in (mine, [one["plain"] for one in rounds]))
            servers[name]["to_plain"] = ratios(*rates)
    return cell | {"servers": servers}
