"""The metrics that no worker counts: they are looked up at each scrape."""

import os
import platform
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # its choice of the two modules

from receiver import __version__
from receiver.admin.counts import Tallies
from receiver.admin.readiness import PATIENCE, Prober, Question, disks
from receiver.keys.keyring import Keyring
from receiver.network import tls
from receiver.problems import Problem
from receiver.process.lifecycle import Lifecycle
from receiver.settings import Settings
from receiver.stores.contract import Store

_TICKS = os.sysconf("SC_CLK_TCK")


def _gauge(name: str, text: str, values: Iterable[tuple[dict[str, str], float]]) -> Metric:
    values = list(values)
    family = GaugeMetricFamily(f"receiver_{name}", text, labels=list(values[0][0]) if values else ())
    for labels, value in values:
        family.add_metric(list(labels.values()), value)
    return family


class ProcessMetrics(Collector):
    """The metrics of the receiver whose master is this process's parent; ``started`` in seconds since the epoch."""

    def __init__(
        self,
        settings: Settings,
        ring: Keyring,
        stores: Mapping[str | None, Store],
        life: Lifecycle,
        prober: Prober,
        tallies: Tallies,
        terms: Callable[[], tls.Terms | None],
        started: float,
    ) -> None:
        self.settings, self.ring, self.life = settings, ring, life
        self.prober, self.tallies, self.terms, self.started = prober, tallies, terms, started
        self.uses = [Question("key uses", store.key_uses) for store in dict.fromkeys(stores.values())]
        self.disks = Question("disks", lambda: disks(settings.store_urls))

    def collect(self) -> Iterator[Metric]:
        """Yield all families; one that cannot be looked up is left out."""
        deadline = time.monotonic() + PATIENCE
        for uses in self.uses:
            uses.begin()
        self.disks.begin()
        build = {
            "version": __version__,
            "python": platform.python_version(),
            "gunicorn": version("gunicorn"),
            "openssl": ssl.OPENSSL_VERSION.split()[1],
            "sqlite": sqlite3.sqlite_version,
        }
        yield _gauge("build_info", "Versions in use; always 1.", [(build, 1)])
        yield _gauge("start_time_seconds", "When the receiver was started.", [({}, self.started)])
        yield from self._readiness()
        yield from self._kept()
        yield from self._keys(deadline)
        yield from self._disks(deadline)
        yield from self._processes()

    def _readiness(self) -> Iterator[Metric]:
        found = self.prober.ask()
        ready = not self.life.is_ending and all(check.verdict != "fail" for check in found.values())
        yield _gauge("ready", "Whether /readyz says 200.", [({}, ready)])
        yield _gauge("draining", "Whether the receiver is about to end.", [({}, self.life.is_ending)])
        verdicts = [({"check": name}, check.verdict != "fail") for name, check in found.items()]
        yield _gauge("check", "Each check of /readyz: 0 when it fails.", verdicts)
        workers = {"configured": self.settings.workers, "running": self.life.workers}
        dropped = self.life.losses.dropped
        yield CounterMetricFamily(
            "receiver_log_lines_dropped", "Lines that standard error did not take.", value=dropped
        )
        yield _gauge("workers", "Processes that answer requests.", [({"state": k}, v) for k, v in workers.items()])

    def _kept(self) -> Iterator[Metric]:
        if self.tallies.taken is None:
            return
        found = self.tallies.found
        yield _gauge("stored_states", "States of each tenant.", [({"tenant": one.tenant}, one.states) for one in found])
        yield _gauge(
            "stored_bytes",
            "Bytes of their contents, as stored.",
            [({"tenant": one.tenant}, one.stored_bytes) for one in found],
        )
        expired = [({"tenant": one.tenant}, one.expired) for one in found]
        yield _gauge("expired_states", "Expired states that are not purged yet.", expired)
        yield _gauge("tally_timestamp_seconds", "When states were last counted.", [({}, self.tallies.taken)])

    def _keys(self, deadline: float) -> Iterator[Metric]:
        made = [({"role": key.role, "kid": key.kid.lower()}, key.made) for key in self.ring if key.made is not None]
        made += [({"role": "sealing", "kid": key.kid}, key.issued) for key in self.ring.sealing if key.issued]
        yield _gauge("key_made_timestamp_seconds", "When each key was made.", made)
        known = {(key.role, key.kid.lower()) for key in self.ring}
        if (uses := self._uses(deadline)) is not None:
            used = [({"role": role, "kid": kid}, time) for (role, kid), time in uses.items() if (role, kid) in known]
            yield _gauge("key_last_used_timestamp_seconds", "When each key was last used, by any receiver.", used)
        if terms := self.terms():
            expires = terms.expires.timestamp()
            yield _gauge(
                "certificate_expires_timestamp_seconds", "When the certificate for TLS expires.", [({}, expires)]
            )

    def _uses(self, deadline: float) -> dict[tuple[str, str], int] | None:
        """Return when each key was last used, from the stores that answer; None when none does."""
        answered = False
        found: dict[tuple[str, str], int] = {}
        for question in self.uses:
            with suppress(Problem, TimeoutError):
                for key, used in question.answer(deadline).items():
                    found[key] = max(used, found.get(key, 0))
                answered = True
        return found if answered else None

    def _disks(self, deadline: float) -> Iterator[Metric]:
        with suppress(OSError, TimeoutError):
            found = self.disks.answer(deadline)
            free = [({"store": disk.store}, disk.free) for disk in found]
            size = [({"store": disk.store}, disk.size) for disk in found]
            yield _gauge("disk_free_bytes", "Free space on the disk of SQLite or files.", free)
            yield _gauge("disk_size_bytes", "Size of that disk.", size)

    def _processes(self) -> Iterator[Metric]:
        """Yield the metrics of the master and its children; processor time includes the children that have ended."""
        master = os.getppid()
        with suppress(OSError, ValueError):
            with open(f"/proc/{master}/task/{master}/children") as file:
                pids = [master, *map(int, file.read().split())]
            yield _gauge("processes_resident_bytes", "Memory, shared pages counted once.", [({}, _resident(pids))])
            used = sum(_seconds_of(pid, ended=pid == master) for pid in pids)
            yield CounterMetricFamily("receiver_processes_cpu_seconds", "Processor time.", value=used)
            files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
            yield _gauge("processes_open_files", "Open files and connections.", [({}, files)])


def _resident(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    return total


def _seconds_of(pid: int, ended: bool) -> float:
    """Return the processor time of ``pid``; ``ended``: with that of its ended children (proc(5), stat)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if ended else 13])) / _TICKS
