"""How cost grows: with stored states, size, clients, workers, tenants; what a server needs to start and to hold."""

import contextlib
import json
import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from receiver.mock_platform.keys import StoreKeys, new_store
from receiver.states import Content, Instant, State
from receiver.stores import open_store
from tests.bench import cells, idle
from tests.bench.figures import slope, spread
from tests.bench.requests import Platform, Request, content_of, requests_of
from tests.bench.servers import House, Server

_ROUNDS = 3
_ROUNDS_OF_STORED = 5
STORED = (1_000, 100_000, 1_000_000)
GROWING = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)  # bytes of content
CLIENTS = (1, 4, 16, 64)
WORKERS = (1, 2)
TENANTS = (1, 100)
_BATCH = 20_000  # states that are stored at once
_REQUESTS = 300
_SMALL = 7_000

Say = Callable[[str], None]


def run(house: House, stores: Sequence[str], clients: int, say: Say) -> dict:
    """Return everything of the issue's second part; ``stores`` are those whose memory is looked at."""
    house = replace(house, workers=2)
    return {
        "stored": _stored(house, say),
        "size": _size(house, say),
        "clients": _clients(house, say),
        "workers": _workers(house, clients, say),
        "tenants": _tenants(house, clients, say),
        "memory": idle.peaks(house, stores, say),
        "start": idle.starts(house, say),
    }


@dataclass(frozen=True)
class _Subject:
    """One point of a chart: a ``server`` and who makes requests of a call for a round (call, seed → requests)."""

    label: int
    server: Server
    requests: Callable[[str, int], list[Request]]
    clients: int


def _compare(
    subjects: Sequence[_Subject], calls: Iterable[str], say: Say, what: str, rounds: int = _ROUNDS
) -> list[dict]:
    """Return for each subject and call the spread of all figures, the subjects interleaved round by round."""
    rows = []
    for call in calls:
        found: list[list[dict]] = [[] for _ in subjects]
        for number in range(rounds):
            places = list(enumerate(subjects))
            for place, one in places if number % 2 == 0 else reversed(places):
                warm_up = one.requests("GET", 1_000 + number)[: max(4, one.clients)]
                found[place].append(cells.measure(one.server, one.requests(call, number), warm_up, one.clients))
        for one, all_rounds in zip(subjects, found, strict=True):
            figures = {name: spread([each[name] for each in all_rounds]) for name in all_rounds[0]}
            rows.append({what: one.label, "call": call} | figures)
            say(f"growth, {what} {one.label}: {call} {1000 * figures['cpu']['median']:.2f} ms of CPU")
    return rows


def _requests(platform: Platform, states: Sequence, count: int) -> Callable[[str, int], list[Request]]:
    return lambda call, seed: requests_of(call, platform, states, count, seed)


def _stored(house: House, say: Say) -> list[dict]:
    """GETs of random states of about 1 KB among 10^3, 10^5 and 10^6 in SQLite, one client."""
    platform = Platform(str(uuid.uuid4()), house.keys)
    with contextlib.ExitStack() as stack:
        subjects = []
        for count in STORED:
            say(f"growth: storing {count:,} states")
            folder = house.folder / f"stored-{count}"
            folder.mkdir()
            ids = _fill(folder, platform.tenant, count)
            server = stack.enter_context(house.receiver("sqlite", folder=folder))
            subjects.append(_Subject(count, server, _random_gets(platform, ids), 1))
        return _compare(subjects, ["GET"], say, "stored", _ROUNDS_OF_STORED)


def _fill(folder: Path, tenant: str, count: int) -> list[str]:
    """Store ``count`` states of ``tenant`` in the SQLite file that a receiver in ``folder`` opens; return their ids."""
    store = open_store(f"sqlite:///{folder}/states.db", 60)
    store.prepare()
    flow = content_of(1_000, tenant)
    now, content = Instant.parse(flow.updated_at), Content(flow.content())
    chance = random.Random(count)
    ids = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(count)]
    for first in range(0, count, _BATCH):
        batch = [
            State(id, tenant, None, flow.flow, flow.flow_version, False, None, None, now, now, None, content)
            for id in ids[first : first + _BATCH]
        ]
        store.save(tenant, batch, None)
    store.close()
    return ids


def _random_gets(platform: Platform, ids: Sequence[str]) -> Callable[[str, int], list[Request]]:
    def make(_call: str, seed: int) -> list[Request]:
        return [platform.get(id) for id in random.Random(seed).choices(ids, k=_REQUESTS)]

    return make


def _size(house: House, say: Say) -> dict:
    """GET and POST of states of 1 KB to 10 MB on SQLite, beside a memory copy and the ciphers alone."""
    with house.receiver("sqlite") as server:
        subjects, alone = [], []
        for size in GROWING:
            platform = Platform(str(uuid.uuid4()), house.keys)
            states = platform.states(content_of(size, platform.tenant).state(), size, 2)
            cells.fill(server, platform, states, 2)
            subjects.append(
                _Subject(size, server, _requests(platform, states, max(6, min(100, 30_000_000 // size))), 2)
            )
            alone.append({"size": size} | _alone(size, len(states[0].body) * 3 // 4))
        rows = _compare(subjects, ["GET", "POST"], say, "size")
    slopes = {
        call: slope([(row["size"] / 1e6, row["cpu"]["median"]) for row in rows if row["call"] == call])
        for call in ("GET", "POST")
    }
    slopes |= {name: slope([(row["size"] / 1e6, row[name]) for row in alone]) for name in ("copy", "ciphers")}
    return {"rows": rows, "alone": alone, "seconds_per_megabyte": slopes}


def _alone(content: int, compressed: int) -> dict[str, float]:
    """Return the seconds of one copy of ``content`` bytes, and of AES-CBC and HMAC-SHA-384 over ``compressed``."""
    data, sealed = bytearray(content), bytes(compressed // 16 * 16)

    def ciphers() -> None:
        encryptor = Cipher(algorithms.AES(bytes(24)), modes.CBC(bytes(16))).encryptor()
        mac = hmac.HMAC(bytes(24), hashes.SHA384())
        mac.update(encryptor.update(sealed))
        mac.finalize()

    return {"copy": _time(lambda: bytes(data)), "ciphers": _time(ciphers)}


def _time(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(9):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return statistics.median(taken)


def _clients(house: House, say: Say) -> list[dict]:
    with house.receiver("sqlite") as server:
        platform, states = _small(house.keys)
        cells.fill(server, platform, states, 16)
        subjects = [_Subject(count, server, _requests(platform, states, _REQUESTS), count) for count in CLIENTS]
        return _compare(subjects, ["GET", "POST"], say, "clients")


def _workers(house: House, clients: int, say: Say) -> list[dict]:
    platform, states = _small(house.keys)
    with contextlib.ExitStack() as stack:
        subjects = []
        for count in WORKERS:
            server = stack.enter_context(replace(house, workers=count).receiver("sqlite"))
            cells.fill(server, platform, states, clients)
            subjects.append(_Subject(count, server, _requests(platform, states, _REQUESTS), clients))
        return _compare(subjects, ["GET", "POST"], say, "workers")


def _small(keys: StoreKeys) -> tuple[Platform, list]:
    platform = Platform(str(uuid.uuid4()), keys)
    return platform, platform.states(content_of(_SMALL, platform.tenant).state(), _SMALL, 32)


def _tenants(house: House, clients: int, say: Say) -> list[dict]:
    """Requests of one tenant with one pair of keys each, and of 100 tenants with a pair of their own each."""
    with contextlib.ExitStack() as stack:
        subjects = [_one_of_many(house, count, clients, stack) for count in TENANTS]
        return _compare(subjects, ["GET", "POST"], say, "tenants")


def _one_of_many(house: House, count: int, clients: int, stack: contextlib.ExitStack) -> _Subject:
    folder = house.folder / f"tenants-{count}"
    platforms = list(_key_folders(folder / "keys", count))
    server = stack.enter_context(house.receiver("sqlite", folder=folder))
    spread_over = []
    for platform in platforms:
        states = platform.states(content_of(_SMALL, platform.tenant).state(), _SMALL, max(1, 100 // count))
        cells.fill(server, platform, states, clients)
        spread_over.append((platform, states))

    def make(call: str, seed: int) -> list[Request]:
        each = max(1, _REQUESTS // count)
        made = [one for platform, states in spread_over for one in requests_of(call, platform, states, each, seed)]
        random.Random(seed).shuffle(made)
        return made

    return _Subject(count, server, make, clients)


def _key_folders(folder: Path, count: int) -> Iterator[Platform]:
    """Write a pair of keys for each of ``count`` tenants as receiver/keys/keyring.py reads them; yield their platforms."""
    for _ in range(count):
        tenant, keys = str(uuid.uuid4()), new_store()
        own = folder / tenant
        own.mkdir(parents=True)
        (own / f"platform-{keys.platform.kid}.json").write_text(json.dumps(keys.platform.public()))
        (own / f"receiver-{keys.receiver.kid}.json").write_text(json.dumps(keys.receiver.private()))
        yield Platform(tenant, keys)
