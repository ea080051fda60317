"""What the admin listener answers: ``/livez``, ``/readyz`` and ``/metrics``, without TLS and to whoever can reach it.

It runs under gunicorn's master in a worker process of its own, so that probes are answered however busy the others are,
and that whoever asks takes nothing from them.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable

from gunicorn.config import Config
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from werkzeug.wrappers import Request, Response

from receiver import bootstrap
from receiver.admin import readiness
from receiver.admin.counts import Tallies
from receiver.admin.metrics import ProcessMetrics
from receiver.keys.keyring import Keyring
from receiver.network import tls
from receiver.process.lifecycle import Lifecycle
from receiver.process.running import RunFolder, shared_memory
from receiver.settings import Settings
from receiver.stores.logins import Logins

_PATIENCE = 2.0  # seconds that a store has here to answer
_THREADS = 4
_CONNECTIONS = 10_000  # as many as a worker's


class AdminApplication:
    """gunicorn's application for the process that listens on STORAGE_ADMIN_BIND.

    ``refresh`` takes other keys as the workers do; ``terms`` returns how TLS is spoken now.
    """

    title = "admin listener"

    def __init__(
        self,
        settings: Settings,
        ring: Keyring,
        life: Lifecycle,
        folder: RunFolder,
        refresh: Callable[[], object],
        terms: Callable[[], tls.Terms | None],
        logins: Logins | None = None,
    ):
        self.settings = settings
        self.ring, self.life, self.folder, self.refresh, self.terms = ring, life, folder, refresh, terms
        self.logins = logins
        self.tls = None  # of this listener itself
        self.started = time.time()
        self.cfg = Config()
        for name, value in {
            "bind": settings.admin_bind,
            "workers": 1,
            "threads": _THREADS,
            "worker_connections": _CONNECTIONS,
            "graceful_timeout": 1,
            "timeout": 60,
            "worker_tmp_dir": shared_memory(),
            "limit_request_line": 1024,
            "limit_request_fields": 50,
            "control_socket_disable": True,
        }.items():
            self.cfg.set(name, value)

    def wsgi(self) -> Callable:
        """Return the WSGI application; called in the process that answers, so that nothing is shared over a fork."""
        settings = dataclasses.replace(
            self.settings, store_timeout=min(self.settings.store_timeout, _PATIENCE), pool_size=2
        )
        tenant_stores = bootstrap.open_tenant_stores(settings, self.ring, lambda _place: False, self.logins)
        prober = readiness.Prober(readiness.checks(settings, self.ring, tenant_stores, self.life))
        counted = bootstrap.open_tenant_stores(self.settings, self.ring, lambda _place: False, self.logins)
        tallies = Tallies(counted, settings.tally_every)
        tallies.begin()
        registry = CollectorRegistry()
        registry.register(_Counted(self.folder))
        registry.register(
            ProcessMetrics(settings, self.ring, tenant_stores, self.life, prober, tallies, self.terms, self.started)
        )
        return _Answers(self.life, prober, make_wsgi_app(registry, disable_compression=True))


class _Counted(Collector):
    """What the workers of the receiver with ``folder`` have counted, in the files that are in force at each scrape."""

    def __init__(self, folder: RunFolder):
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Return the sums of all workers; nothing when the folder was taken away."""
        try:
            with self._folder.opened_metrics() as path:
                return list(MultiProcessCollector(None, str(path)).collect())
        except OSError:
            return []


class _Answers:
    def __init__(self, life: Lifecycle, prober: readiness.Prober, metrics: Callable):
        self._life, self._prober, self._metrics = life, prober, metrics

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        request = Request(environ)
        if request.method not in ("GET", "HEAD"):
            return _json({"message": "Only GET is answered here."}, 405, Allow="GET, HEAD")(environ, start_response)
        if request.path == "/metrics":
            return self._metrics(environ, start_response)
        answer = {"/livez": self._live, "/readyz": self._ready}.get(request.path, _nothing)()
        return answer(environ, start_response)

    def _live(self) -> Response:
        well = self._life.is_well
        return _json({"status": "alive" if well else "the master is silent"}, 200 if well else 503)

    def _ready(self) -> Response:
        found = self._prober.ask()
        failed = any(check.verdict == "fail" for check in found.values())
        status = "draining" if self._life.is_ending else "not ready" if failed else "ready"
        told = {"status": status, "checks": {name: check._asdict() for name, check in found.items()}}
        return _json(told, 200 if status == "ready" else 503)


def _nothing() -> Response:
    return _json({"message": "Here are /livez, /readyz and /metrics."}, 404)


def _json(value: object, status: int, **headers: str) -> Response:
    text = json.dumps(value, indent=2) + "\n"
    return Response(text, status, {"Cache-Control": "no-store", **headers}, mimetype="application/json")
