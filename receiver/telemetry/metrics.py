"""What a worker counts, for Prometheus: in shared files, which the admin listener adds up.

Every worker writes the files of its *slot*, a number from 0 on. Its successor takes over the slot with all that was
counted, so no count is lost however a worker ends, and there are never more files than slots. Without ``start`` (on
the command line, in the master, under another server) nothing is counted.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, NamedTuple

from receiver.idempotency import Effect
from receiver.telemetry.tracing import Trace

CALLS = ("health", "load", "save", "delete", "other")
STAGES = ("verify", "body", "open", "store", "seal")
SAVED = ("stored", "ignored")
JTI = ("new", "repeated", "conflicting", "refused")
CONNECTIONS = ("in_use", "idle")
DROPPED = ("reply", "slow_reply", "body")
RARE = (("500", "damaged"), ("500", "defect"), ("503", "store_unavailable"), ("507", "store_full"))
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BYTES = tuple(1024 * 4**power for power in range(9))  # 1 KiB to 64 MiB
_SHARED = (1, 2, 4, 8, 16, 32, 64)
_LIVE = "livesum"  # gauges add up over the workers that are running
_LIVE_KIND = f"gauge_{_LIVE}"
_KINDS = ("counter", "histogram", _LIVE_KIND)
_FILE_SIZE = 256 << 10  # bytes; all that can be counted takes a fifth of it

_mine: "_Counts | None" = None


class Declared(NamedTuple):
    """A metric: ``kind``, ``name``, help text, its labels, the ``known`` values of one label or of all, and buckets."""

    kind: str
    name: str
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[str | tuple[str, ...], ...] = ()
    buckets: tuple[float, ...] = ()


DECLARED = {
    "requests": Declared("Counter", "requests", "Requests that were answered.", ("call", "status")),
    "refusals": Declared("Counter", "refusals", "Requests that were refused, and why.", ("status", "reason"), RARE),
    "changes": Declared("Counter", "changes", "Saves and deletes by what became of their jti.", ("jti",), JTI),
    "saved": Declared("Counter", "saved_states", "States in saves; ignored are older ones.", ("outcome",), SAVED),
    "deleted": Declared("Counter", "deleted_states", "States that were deleted."),
    "dropped": Declared(
        "Counter", "slow_clients_dropped", "Replies and bodies that were given up.", ("waiting",), DROPPED
    ),
    "connects": Declared("Counter", "store_connects", "Connections made to a database server."),
    "seconds": Declared("Histogram", "request_seconds", "From head to reply.", ("call",), CALLS, _SECONDS),
    "received": Declared("Histogram", "request_bytes", "Bodies received.", ("call",), ("save", "delete"), _BYTES),
    "sent": Declared("Histogram", "reply_bytes", "Bodies of replies.", ("call",), ("load",), _BYTES),
    "stages": Declared("Histogram", "room_seconds", "Time of a request in each stage.", ("room",), STAGES, _SECONDS),
    "commit_seconds": Declared(
        "Histogram", "store_commit_seconds", "Transactions of changes, until they were durable.", buckets=_SECONDS
    ),
    "commit_changes": Declared("Histogram", "store_commit_changes", "Changes that shared one commit.", buckets=_SHARED),
    "pool_wait": Declared(
        "Histogram", "store_pool_wait_seconds", "Until a connection to a database server was at hand.", buckets=_SECONDS
    ),
    "hanging": Declared("Gauge", "stores_hanging", "Stores that hang, added up over the workers that found it."),
    "stuck": Declared("Gauge", "store_calls_stuck", "Calls of stores that did not return in time, and have not yet."),
    "pool": Declared("Gauge", "store_pool_connections", "Connections to a database server.", ("state",), CONNECTIONS),
}


class _Counts:
    """The metrics by their names in DECLARED, and what is known of pools and stores."""

    def __init__(self, library: ModuleType) -> None:
        self.pools: dict[int, tuple[int, int]] = {}
        self.hanging: set[int] = set()
        self.stuck: dict[int, int] = {}
        self._made: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        for name, one in DECLARED.items():
            more: dict[str, Any] = {"buckets": one.buckets} if one.buckets else {}
            if one.kind == "Gauge":
                more["multiprocess_mode"] = _LIVE
            made = getattr(library, one.kind)(f"receiver_{one.name}", one.help, one.labels, registry=None, **more)
            self._made[name] = made
            for value in one.known:  # a series that exists before its first event can have an alert
                self.of(name, *([value] if isinstance(value, str) else value))

    def of(self, name: str, *labels: str) -> Any:  # noqa: ANN401 - of which class depends on the name
        """Return the metric ``name`` for ``labels``; remembers it, because the library's own lookup is slow."""
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            made = self._made[name]
            child = self._children[key] = made.labels(*labels) if labels else made
        return child


def prepare_files(folder: Path, slot: int) -> None:
    """Make the missing files of ``slot`` in ``folder``, and wipe the gauges that the last worker left.

    Reserves disk space for all they may come to hold: writing to a mapped file without it would end the process.
    Raises OSError.
    """
    for kind in _KINDS:
        path = folder / f"{kind}_{slot}.db"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, _FILE_SIZE)
            if kind == _LIVE_KIND:
                os.pwrite(file, bytes(_FILE_SIZE), 0)
        except OSError:
            if not os.fstat(file).st_size:  # the library cannot read an empty one
                path.unlink()
            raise
        finally:
            os.close(file)


def start(folder: Path, slot: int) -> None:
    """Count from now on, in the files of ``slot`` in ``folder``; at most once in the life of a process."""
    global _mine  # noqa: PLW0603 - like logging, there is one for each process
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    import prometheus_client  # noqa: PLC0415 - it reads the variable when it is imported
    from prometheus_client import values  # noqa: PLC0415

    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]  # it has no types
    _mine = _Counts(prometheus_client)


def answered(trace: Trace, status: int, size: int) -> None:
    """Count the request of ``trace``, answered with ``status`` and a body of ``size`` bytes."""
    if _mine is None:
        return
    _mine.of("requests", trace.call, str(status)).inc()
    _mine.of("seconds", trace.call).observe(trace.seconds())
    for stage, seconds in trace.stages.items():
        _mine.of("stages", stage).observe(seconds)
    if trace.reason:
        _mine.of("refusals", str(status), trace.reason).inc()
    if trace.reason == "replay":
        _mine.of("changes", "refused").inc()
    if trace.received is not None:
        _mine.of("received", trace.call).observe(trace.received)
    if trace.call == "load" and status == 200:
        _mine.of("sent", "load").observe(size)
    if trace.effect:
        _count_effect(_mine, trace.call, trace.effect)


def _count_effect(counts: _Counts, call: str, effect: Effect) -> None:
    counts.of("changes", effect.jti_was).inc()
    if call == "delete":
        counts.of("deleted").inc(effect.stored)
        return
    for outcome, number in zip(SAVED, (effect.stored, effect.ignored), strict=True):
        if number:
            counts.of("saved", outcome).inc(number)


def dropped(what: str) -> None:
    """Count a reply or body, ``what`` of DROPPED, that was given up because its client was too slow."""
    if _mine is not None:
        _mine.of("dropped", what).inc()


def refused(status: int) -> None:
    """Count a request that was answered with ``status`` before it reached the application."""
    if _mine is not None:
        _mine.of("requests", "other", str(status)).inc()
        _mine.of("refusals", str(status), "http").inc()


@contextmanager
def committing(changes: int) -> Iterator[None]:
    """Count the work of this context as a commit of ``changes`` changes, unless it fails."""
    began = perf_counter()
    yield
    if _mine is not None:
        _mine.of("commit_seconds").observe(perf_counter() - began)
        _mine.of("commit_changes").observe(changes)


@contextmanager
def waiting_for_connection() -> Iterator[None]:
    """Count the time of this context as a wait for a connection to a database server."""
    began = perf_counter()
    yield
    if _mine is not None:
        _mine.of("pool_wait").observe(perf_counter() - began)


def connected() -> None:
    """Count a new connection to a database server."""
    if _mine is not None:
        _mine.of("connects").inc()


def hanging(store: int, hangs: bool) -> None:
    """Note whether ``store``, one of this process's, hangs at the moment."""
    if _mine is not None:
        (_mine.hanging.add if hangs else _mine.hanging.discard)(store)
        _mine.of("hanging").set(len(_mine.hanging))


def stuck(store: int, calls: int) -> None:
    """Note how many ``calls`` of ``store``, one of this process's, have not returned though their requests are over."""
    if _mine is not None:
        _mine.stuck[store] = calls
        _mine.of("stuck").set(sum(_mine.stuck.values()))


def pooled(pool: int, in_use: int, idle: int) -> None:
    """Note how many connections of ``pool``, one of this process's, are ``in_use`` and ``idle`` at the moment."""
    if _mine is not None:
        _mine.pools[pool] = in_use, idle
        for state, count in zip(CONNECTIONS, map(sum, zip(*list(_mine.pools.values()), strict=True)), strict=True):
            _mine.of("pool", state).set(count)
