"""``python -m tests.bench.slow_clients``: what other tenants feel of a tenant whose clients are slow.

Measures the receiver of this checkout, or of another one (``--receiver-root``), with the same clients.
"""

import contextlib
import json
import os
import random
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click
from tabulate import tabulate

from receiver.commands.demo import Running, running_receiver
from receiver.mock_platform import tokens
from receiver.mock_platform.client import BASE, Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import StoreKeys, new_store
from tests.bench import figures
from tests.support.slow_clients import SlowClients, rendered

_SETTLE = 2.0  # seconds until all slow clients are at it
_REPLY = 3_800_000  # bytes
_PATIENCE = 60.0  # seconds that a client of the other tenant waits


@dataclass
class _Sample:
    """What the other tenant saw: ``seconds`` of each request, and how many were answered with which status."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def row(self, name: str, slow: SlowClients | None) -> list[object]:
        shown = [f"{1000 * figures.percentile(self.seconds, share):.0f} ms" for share in (0.5, 0.99)]
        ended = {} if slow is None else dict(slow.ended)
        return [name, len(self.seconds), *shown, _counts(self.statuses), _counts(ended)]


def _counts(counts: dict) -> str:
    return ", ".join(f"{number} × {name}" for name, number in sorted(counts.items())) or "–"


class _House:
    """A running receiver with two tenants: the one with slow clients, and the ``other`` one."""

    def __init__(self, running: Running, keys: StoreKeys):
        self.url, self.keys = running.url, keys
        parts = urlsplit(running.url)
        self.address = parts.hostname, parts.port
        self.slow, self.other = (str(uuid.uuid4()) for _ in range(2))

    def client(self, tenant: str) -> Client:
        return Client(self.url, tenant, self.keys, timeout=_PATIENCE)

    def state(self, tenant: str, size: int) -> dict:
        content = random.Random(7).randbytes(size // 2).hex()  # a token of it has about ``size`` bytes
        return FlowRun(tenant, 7).state() | {"content": content}

    def signed(self, method: str, tenant: str, id: str = "", body: bytes = b"") -> bytes:
        """Return a request that is signed now."""
        path = f"{BASE}/states/{tenant}" + (f"/{id}" if id else "")
        return rendered(method, path, self.client(tenant).headers(path), body)


def _measure(call: Callable[[], str], seconds: float, each: float) -> _Sample:
    """Begin ``call``, which returns a status, ``each`` so many seconds, however long those before take."""
    sample = _Sample()

    def one(due: float) -> None:
        try:
            status = call()
        except OSError as cause:
            status = type(cause).__name__
        sample.seconds.append(time.monotonic() - due)
        sample.statuses[status] += 1

    began = time.monotonic()
    with ThreadPoolExecutor(200) as pool:
        for number in range(int(seconds / each)):
            due = began + number * each
            time.sleep(max(0.0, due - time.monotonic()))
            pool.submit(one, due)
    return sample


def _reads(house: _House, seconds: float, clients: int) -> Iterator[list[object]]:
    """The other tenant loads a small state while slow clients take a large reply: one signature, over and over."""
    large, small = house.state(house.slow, _REPLY), house.state(house.other, 7_000)
    for tenant, state in ((house.slow, large), (house.other, small)):
        with contextlib.closing(house.client(tenant)) as client:
            assert client.save(state).status == 204

    def load() -> str:
        with contextlib.closing(house.client(house.other)) as client:
            return str(client.load(small["id"]).status)

    yield _measure(load, seconds / 2, 0.1).row("loads 7 KB, no slow client", None)
    captured = house.signed("GET", house.slow, large["id"])
    with SlowClients(house.address, clients, lambda: captured, taken_rate=40_000) as slow:
        time.sleep(_SETTLE)
        yield _measure(load, seconds, 0.1).row(f"loads 7 KB, {clients} slow readers", slow)


def _uploads(house: _House, seconds: float, clients: int) -> Iterator[list[object]]:
    """The other tenant saves 600 KB while a tenant's clients send as much: half at once, then 18 KB a second each."""
    bodies = {
        tenant: json.dumps([{"token": tokens.seal_state(house.state(tenant, size), house.keys)}]).encode()
        for tenant, size in ((house.slow, 655_000), (house.other, 655_000))
    }

    def save() -> str:
        with contextlib.closing(house.client(house.other)) as client:
            return str(client.call("POST", f"{BASE}/states/{house.other}", bodies[house.other]).status)

    yield _measure(save, seconds / 2, 0.5).row("saves 600 KB, no slow client", None)
    with SlowClients(
        house.address,
        clients,
        lambda: house.signed("POST", house.slow, body=bodies[house.slow]),
        sent_rate=18_000,
        at_once=300_000,
    ) as slow:
        time.sleep(_SETTLE)
        yield _measure(save, seconds, 0.5).row(f"saves 600 KB, {clients} slow uploads", slow)


@click.command()
@click.option("--receiver-root", type=click.Path(exists=True, file_okay=False, resolve_path=True), default=".")
@click.option(
    "--seconds", default=20.0, show_default=True, help="Seconds that each measurement takes, and a minute more."
)
@click.option("--readers", default=40, show_default=True, help="Clients that take a reply of 3.8 MB at 40 KB a second.")
@click.option(
    "--uploads", default=120, show_default=True, help="Clients that send 300 KB, then 300 KB at 18 KB a second."
)
@click.option("--workers", default=2, show_default=True)
def main(receiver_root: str, seconds: float, readers: int, uploads: int, workers: int) -> None:
    """Print what the other tenant waits, alone and beside slow clients."""
    keys, rows = new_store(), []
    for scene, clients in ((_reads, readers), (_uploads, uploads)):
        if not clients:
            continue
        with tempfile.TemporaryDirectory(prefix="slow-") as folder, open(Path(folder) / "log", "w") as log:
            os.chdir(receiver_root)  # Python looks for the receiver here first
            given = {"STORAGE_WORKERS": str(workers), "STORAGE_LOG_LEVEL": "warning", "PYTHONPATH": receiver_root}
            with running_receiver(keys, Path(folder), log, **given) as running:
                rows.extend(scene(_House(running, keys), seconds, clients))
    click.echo(f"the receiver of {receiver_root}, {workers} workers")
    click.echo(tabulate(rows, ("the other tenant", "requests", "p50", "p99", "answers", "slow clients ended with")))


if __name__ == "__main__":
    main()
