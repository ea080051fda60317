"""The servers of a run: started as their users would, measured from outside, stopped at the end."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from receiver.commands.demo import running_receiver
from receiver.mock_platform.keys import StoreKeys
from tests.bench import processes

_PATIENCE = 30  # seconds in which workers have to be there
STORES = ("sqlite", "file", "postgresql")


@dataclass
class Server:
    """A server that runs: its name, ``port``, the process ``pid`` of its master, and that of its ``database`` server.

    It has ``size`` workers once it is up. ``held`` are the ids of the states that it keeps.
    """

    name: str
    port: int
    pid: int
    size: int
    database: int | None = None
    held: set[str] = field(default_factory=set)

    def workers(self) -> list[int]:
        """Return the processes of its workers, once all are there."""
        until = time.monotonic() + _PATIENCE
        while len(found := processes.children(self.pid)) != self.size:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name} has {len(found)} workers")
            time.sleep(0.01)
        return found


class Meter:
    """Measures ``server`` from ``begin`` to ``end``: CPU of its processes, of its database's, and workers' memory."""

    def __init__(self, server: Server):
        self.server = server

    def begin(self) -> None:
        self.resident = {pid: processes.forget_peak(pid) for pid in self.server.workers()}
        self.before = self._cpu()

    def end(self) -> dict[str, float]:
        """Return seconds of ``cpu`` and ``database_cpu``; ``memory``: bytes that a worker peaked above its base.

        And ``busiest``, the largest share of one worker in the CPU of all.
        """
        after = self._cpu()
        own, database = (
            sum(seconds - before.get(pid, 0) for pid, seconds in now.items())
            for before, now in zip(self.before, after, strict=True)
        )
        peaks = [processes.memory(pid, "VmHWM") - base for pid, base in self.resident.items()]
        workers = [after[0].get(pid, 0) - self.before[0].get(pid, 0) for pid in self.resident]
        return {
            "cpu": own,
            "database_cpu": database,
            "memory": max(peaks),
            "busiest": max(workers) / (sum(workers) or 1),
        }

    def _cpu(self) -> tuple[dict[int, float], dict[int, float]]:
        database = processes.family(self.server.database) if self.server.database else []
        return processes.cpu_of(processes.family(self.server.pid)), processes.cpu_of(database)


@dataclass
class House:
    """Where servers are started: a ``folder`` for what they keep, the ``keys`` of the platform, workers and threads.

    ``postgres`` is the running database server, if any.
    """

    folder: Path
    keys: StoreKeys
    workers: int = 2
    threads: int = 8
    postgres: object = None

    @contextlib.contextmanager
    def receiver(self, store: str, name: str = "", folder: Path | None = None, **environment: str) -> Iterator[Server]:
        """Run the receiver on ``store`` (of STORES) as a customer would; new unless ``folder`` holds one."""
        own = folder or self._new_folder(store)
        environment = {"STORAGE_WORKERS": str(self.workers), "STORAGE_THREADS": str(self.threads)} | environment
        if store == "file":
            environment["DATABASE_URL"] = f"file://{own}/states"
        if store == "postgresql":
            environment["DATABASE_URL"] = self.postgres.url(self.postgres.new_database())
        with (
            open(own / "log", "a") as log,
            running_receiver(self.keys, own, log, **environment) as running,
        ):
            database = self.postgres.process.pid if store == "postgresql" else None
            yield Server(name or store, urlsplit(running.url).port, running.process.pid, self.workers, database)

    def plain(self) -> contextlib.AbstractContextManager[Server]:
        """Run the plain server."""
        keys = {
            "PLATFORM_KEY": json.dumps(self.keys.platform.public()),
            "RECEIVER_KEY": json.dumps(self.keys.receiver.private()),
        }
        return self._bare("plain", [], keys | {"BENCH_DATABASE": str(self._new_folder("plain") / "states.db")})

    def floor(self, sizes: Mapping[str, Mapping[str, int]], worker: str) -> contextlib.AbstractContextManager[Server]:
        """Run the floor with ``sizes`` (tenant → what floor.Inputs takes), in gunicorn's ``worker`` class."""
        return self._bare("floor", [worker, str(self._new_folder("floor")), json.dumps(sizes)], {})

    @contextlib.contextmanager
    def _bare(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> Iterator[Server]:
        given = os.environ | {"BENCH_WORKERS": str(self.workers), "BENCH_THREADS": str(self.threads)} | environment
        command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
        process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True)
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"the {name} server did not start")
            yield Server(name, urlsplit(address).port, process.pid, self.workers)
        finally:
            process.terminate()
            process.communicate(timeout=60)

    def _new_folder(self, name: str) -> Path:
        number = len(list(self.folder.iterdir()))
        made = self.folder / f"{number}-{name}"
        made.mkdir()
        return made
