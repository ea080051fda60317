"""What a worker counts, for Prometheus: in files that its processes share, which the admin listener adds up.

Every worker writes the files of its *slot*, a number from 0 on that the next worker in that place takes over with all
that was counted: so nothing is lost with a worker, however it ended, and there are never more files than places.
Without ``start`` (on the command line, in the master, under another server) nothing is counted.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from receiver.telemetry.tracing import Trace

CALLS = ("health", "load", "save", "delete", "other")
ROOMS = ("verify", "body", "open", "store", "seal")
SAVED = ("stored", "ignored")
JTI = ("new", "repeated", "conflicting", "refused")
CONNECTIONS = ("in_use", "idle")
DROPPED = ("reply", "slow_reply", "body")
RARE = (("500", "damaged"), ("500", "defect"), ("503", "store_unavailable"), ("507", "store_full"))
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BYTES = tuple(1024 * 4**power for power in range(9))  # 1 KiB to 64 MiB
_SHARED = (1, 2, 4, 8, 16, 32, 64)
_LIVE = "livesum"  # gauges of workers that are there
_LIVE_KIND = f"gauge_{_LIVE}"
_KINDS = ("counter", "histogram", _LIVE_KIND)
_ROOM = 256 << 10  # bytes of each file; all that can be counted takes a fifth of it

_mine: "_Counts | None" = None


class Declared(NamedTuple):
    """A metric: ``kind``, ``name``, what it tells, its labels, the ``known`` values of one label or of all, buckets."""

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
    "rooms": Declared("Histogram", "room_seconds", "Time of a request in each room.", ("room",), ROOMS, _SECONDS),
    "commit_seconds": Declared(
        "Histogram", "store_commit_seconds", "Transactions of changes, until they were durable.", buckets=_SECONDS
    ),
    "commit_changes": Declared("Histogram", "store_commit_changes", "Changes that shared one commit.", buckets=_SHARED),
    "pool_wait": Declared(
        "Histogram", "store_pool_wait_seconds", "Until a connection to a database server was at hand.", buckets=_SECONDS
    ),
    "hanging": Declared("Gauge", "stores_hanging", "Stores that hang, added up over the workers that found it."),
    "pool": Declared("Gauge", "store_pool_connections", "Connections to a database server.", ("state",), CONNECTIONS),
}


class _Counts:
    """The metrics themselves, as they are named in DECLARED; with what is known of pools and stores."""

    def __init__(self, library: Any):
        self.pools: dict[int, tuple[int, int]] = {}
        self.hanging: set[int] = set()
        self._made: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        for name, one in DECLARED.items():
            more: dict[str, Any] = {"buckets": one.buckets} if one.buckets else {}
            if one.kind == "Gauge":
                more["multiprocess_mode"] = _LIVE
            made = getattr(library, one.kind)(f"receiver_{one.name}", one.help, one.labels, registry=None, **more)
            self._made[name] = made
            for value in one.known:  # so that each is there before it happens first, and can be alerted on
                self.of(name, *([value] if isinstance(value, str) else value))

    def of(self, name: str, *labels: str) -> Any:
        """Return the metric ``name`` for ``labels``; looked up once, since the library's own way takes its time."""
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            made = self._made[name]
            child = self._children[key] = made.labels(*labels) if labels else made
        return child


def make_room(folder: Path, slot: int) -> None:
    """Make the files of ``slot`` in ``folder`` as far as they are not there; what only the last worker knew is wiped.

    With room on the disk for all that may stand in them: writing to a mapped file that has none ends the process.
    Raises OSError.
    """
    for kind in _KINDS:
        path = folder / f"{kind}_{slot}.db"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, _ROOM)
            if kind == _LIVE_KIND:
                os.pwrite(file, bytes(_ROOM), 0)
        except OSError:
            if not os.fstat(file).st_size:  # it would be no file of the library's
                path.unlink()
            raise
        finally:
            os.close(file)


def start(folder: Path, slot: int) -> None:
    """Count from now on, in the files of ``slot`` in ``folder``; once in the life of a process."""
    global _mine  # noqa: PLW0603 - as logging, it is one for each process
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    import prometheus_client  # noqa: PLC0415 - it looks at the variable
    from prometheus_client import values  # noqa: PLC0415

    values.ValueClass = values.MultiProcessValue(lambda: slot)
    _mine = _Counts(prometheus_client)


def answered(trace: Trace, status: int, size: int) -> None:
    """Count the request of ``trace``, answered with ``status`` and a body of ``size`` bytes."""
    if _mine is None:
        return
    _mine.of("requests", trace.call, str(status)).inc()
    _mine.of("seconds", trace.call).observe(trace.seconds())
    for room, seconds in trace.rooms.items():
        _mine.of("rooms", room).observe(seconds)
    if trace.reason:
        _mine.of("refusals", str(status), trace.reason).inc()
    if trace.reason == "replay":
        _mine.of("changes", "refused").inc()
    if trace.received is not None:
        _mine.of("received", trace.call).observe(trace.received)
    if trace.call == "load" and status == 200:
        _mine.of("sent", "load").observe(size)
    if trace.effect:
        _changed(_mine, trace)


def _changed(counts: _Counts, trace: Trace) -> None:
    effect = trace.effect
    counts.of("changes", effect.jti_was).inc()
    if trace.call == "delete":
        counts.of("deleted").inc(effect.stored)
        return
    for outcome, number in zip(SAVED, (effect.stored, effect.ignored), strict=True):
        if number:
            counts.of("saved", outcome).inc(number)


def dropped(what: str) -> None:
    """Count a reply or body, ``what`` of DROPPED, that was given up because of its client."""
    if _mine is not None:
        _mine.of("dropped", what).inc()


def refused(status: int) -> None:
    """Count a request that was answered with ``status`` before the application saw it."""
    if _mine is not None:
        _mine.of("requests", "other", str(status)).inc()
        _mine.of("refusals", str(status), "http").inc()


@contextmanager
def committing(changes: int) -> Iterator[None]:
    """Count a commit of so many ``changes``, which is what is done in this context, unless that fails."""
    began = perf_counter()
    yield
    if _mine is not None:
        _mine.of("commit_seconds").observe(perf_counter() - began)
        _mine.of("commit_changes").observe(changes)


@contextmanager
def waiting_for_connection() -> Iterator[None]:
    """Count the wait for a connection to a database server, which is what is done in this context."""
    began = perf_counter()
    yield
    if _mine is not None:
        _mine.of("pool_wait").observe(perf_counter() - began)


def connected() -> None:
    """Count a connection that was made to a database server."""
    if _mine is not None:
        _mine.of("connects").inc()


def hanging(store: int, hangs: bool) -> None:
    """Note whether ``store``, one of this process's, hangs now."""
    if _mine is not None:
        (_mine.hanging.add if hangs else _mine.hanging.discard)(store)
        _mine.of("hanging").set(len(_mine.hanging))


def pooled(pool: int, in_use: int, idle: int) -> None:
    """Note how many connections of ``pool``, one of this process's, are ``in_use`` and ``idle`` now."""
    if _mine is not None:
        _mine.pools[pool] = in_use, idle
        for state, count in zip(CONNECTIONS, map(sum, zip(*list(_mine.pools.values()), strict=True)), strict=True):
            _mine.of("pool", state).set(count)
