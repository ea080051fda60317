"""``python -m tests.bench.hung_store``: what one tenant's store that hangs costs the tenants of other stores.

A receiver serves many tenants from SQLite, and one from a database server that takes connections and never answers. One
client loads a state of a tenant of SQLite all the time; after a while clients of the other tenant begin. Those that are
answered 503 come again when Retry-After says. With ``--code`` another checkout is measured. Prints a row for each phase.
"""

import contextlib
import itertools
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import click

from receiver.commands.demo import running_receiver
from receiver.mock_platform.client import Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import StoreKeys, new_store

_CONTENT = 7_000  # characters
_PAUSE = 0.005  # seconds between two loads of the tenant that is measured
_URLS = {"postgresql": "postgresql://me:secret@127.0.0.1:{port}/d", "mariadb": "mysql://me:secret@127.0.0.1:{port}/d"}


@contextlib.contextmanager
def silent_server():
    """Yield the port of a server that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for one in taken:
            one.close()


def attack(url: str, tenant: str, keys: StoreKeys, clients: int, until: float, found: multiprocessing.Queue) -> None:
    """Call as ``clients`` of ``tenant`` at once, loads and saves; put into ``found`` (status, seconds) of each call."""
    state = FlowRun(tenant, 1).state()

    def call(number: int) -> None:
        with contextlib.closing(Client(url, tenant, keys)) as client:
            for turn in itertools.count(number):
                if time.time() >= until:
                    return
                answer = client.load(state["id"]) if turn % 4 else client.save(state)
                found.put((answer.status, answer.seconds))
                time.sleep(float(answer.headers.get("retry-after", 0)))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def load(client: Client, id: str, until: float) -> list[float]:
    """Return the seconds of each load of the state ``id`` until ``until`` (time.time)."""
    seconds = []
    while time.time() < until:
        answer = client.load(id)
        if answer.status != 200:
            raise click.ClickException(f"the other tenant's load was answered {answer.status}")
        seconds.append(answer.seconds)
        time.sleep(_PAUSE)
    return seconds


def measure(kind: str, clients: int, calm: float, stormy: float, folder: Path) -> dict[str, dict[str, float]]:
    """Return milliseconds of the other tenant's loads by phase, and what the attackers were answered."""
    keys, own = new_store(), str(uuid.uuid4())
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(silent_server())
        log = stack.enter_context(open(folder / "log", "w"))
        variable = f"STORAGE_TENANT_{own.replace('-', '_')}"
        running = stack.enter_context(running_receiver(keys, folder, log, **{variable: _URLS[kind].format(port=port)}))
        client = stack.enter_context(contextlib.closing(Client(running.url, str(uuid.uuid4()), keys)))
        state = FlowRun(client.tenant, 7).state() | {"content": json.dumps("x" * _CONTENT)}
        if client.save(state).status != 204:
            raise click.ClickException("the state of the other tenant was not saved")
        load(client, state["id"], time.time() + 1)
        rows = {"before": figures(load(client, state["id"], time.time() + calm))}
        found, until = multiprocessing.Queue(), time.time() + stormy
        attackers = multiprocessing.Process(target=attack, args=(running.url, own, keys, clients, until, found))
        attackers.start()
        rows["under attack"] = figures(load(client, state["id"], until))
        rows["the hung tenant itself"] = figures(_drained(attackers, found))
    return rows


def _drained(process: multiprocessing.Process, found: multiprocessing.Queue) -> list[float]:
    seconds, statuses = [], Counter()
    while process.is_alive() or not found.empty():
        with contextlib.suppress(Exception):  # it is empty for now
            status, took = found.get(timeout=0.2)
            statuses[status] += 1
            seconds.append(took)
    click.echo(f"the hung tenant was answered {dict(statuses)}", err=True)
    return seconds


def figures(seconds: list[float]) -> dict[str, float]:
    """Return how many there were, and percentiles in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    return {"calls": len(seconds), "p50": 1000 * cuts[49], "p99": 1000 * cuts[98], "max": 1000 * max(seconds)}


@click.command()
@click.option("--kind", type=click.Choice(list(_URLS)), default="postgresql", show_default=True)
@click.option("--clients", default=24, show_default=True, help="Of the tenant whose store hangs, all at once.")
@click.option("--calm", default=8.0, show_default=True, help="Seconds before they begin.")
@click.option("--stormy", default=25.0, show_default=True, help="Seconds from then on.")
@click.option("--code", type=click.Path(exists=True, file_okay=False), help="Folder of the checkout to measure.")
def main(kind: str, clients: int, calm: float, stormy: float, code: str | None) -> None:
    """Measure and print the table."""
    if code:
        os.chdir(code)  # where ``python -m receiver`` finds it first
    with tempfile.TemporaryDirectory(prefix="hung-") as folder:
        rows = measure(kind, clients, calm, stormy, Path(folder))
    click.echo(f"{'':24}{'calls':>8}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    for phase, row in rows.items():
        click.echo(f"{phase:24}{row['calls']:8}{row['p50']:10.1f}{row['p99']:10.1f}{row['max']:10.1f}")


if __name__ == "__main__":
    sys.exit(main())
