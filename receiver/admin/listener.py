"""The application of the admin listener: ``/livez``, ``/readyz`` and ``/metrics``, without TLS or authentication.

It runs in a process of its own, so that probes are answered however busy the workers are, and scrapes take nothing
from them.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

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
from receiver.process.run_folder import RunFolder
from receiver.settings import Settings
from receiver.stores.logins import Logins

_PATIENCE = 2.0  # seconds that a store has to answer a check


def create_admin_app(
    settings: Settings,
    ring: Keyring,
    life: Lifecycle,
    folder: RunFolder,
    terms: Callable[[], tls.Terms | None],
    logins: Logins | None,
    started: float,
) -> WSGIApplication:
    """Return the WSGI application, which opens the stores itself: call it in the process that answers, after the fork.

    ``terms`` returns the TLS terms of the receiver at the time; it was ``started`` at seconds since the epoch.
    """
    brief = dataclasses.replace(settings, store_timeout=min(settings.store_timeout, _PATIENCE), pool_size=2)
    stores = bootstrap.open_tenant_stores(brief, ring, lambda _place: False, logins)
    prober = readiness.Prober(readiness.checks(brief, ring, stores, life))
    counted = bootstrap.open_tenant_stores(settings, ring, lambda _place: False, logins)
    tallies = Tallies(counted, settings.tally_every)
    tallies.begin()
    registry = CollectorRegistry()
    registry.register(_WorkerMetrics(folder))
    registry.register(ProcessMetrics(brief, ring, stores, life, prober, tallies, terms, started))
    return _AdminApp(life, prober, make_wsgi_app(registry, disable_compression=True))


class _WorkerMetrics(Collector):
    """The metrics of the workers of the receiver with ``folder``, from the folder that is current at each scrape."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Return the sums over all workers; nothing when the folder was removed."""
        try:
            with self._folder.opened_metrics() as path:
                collector = MultiProcessCollector(None, str(path))  # type: ignore[no-untyped-call]  # it has no types
                return list(collector.collect())  # type: ignore[no-untyped-call]  # it has no types
        except OSError:
            return []


class _AdminApp:
    def __init__(self, life: Lifecycle, prober: readiness.Prober, metrics: WSGIApplication) -> None:
        self._life, self._prober, self._metrics = life, prober, metrics

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        request = Request(environ)
        if request.method not in ("GET", "HEAD"):
            return _json({"message": "Only GET is supported here."}, 405, Allow="GET, HEAD")(environ, start_response)
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
        answer = {"status": status, "checks": {name: check._asdict() for name, check in found.items()}}
        return _json(answer, 200 if status == "ready" else 503)


def _nothing() -> Response:
    return _json({"message": "Try /livez, /readyz or /metrics."}, 404)


def _json(value: object, status: int, **headers: str) -> Response:
    text = json.dumps(value, indent=2) + "\n"
    return Response(text, status, {"Cache-Control": "no-store", **headers}, mimetype="application/json")
