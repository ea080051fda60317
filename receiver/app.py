"""create_app: the wiring, nothing else."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from urllib.parse import unquote

from flask import Flask, Request, Response, current_app, g, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter

from receiver import bootstrap, problems, wsgi
from receiver.encoding import canonical_uuid
from receiver.keys.keyring import Keyring
from receiver.network.addresses import AccessPolicy
from receiver.problems import AddressRefused, Problem, Reply, StoreHangs
from receiver.protocol import BASE_PATH
from receiver.routes import Receiver, called_path, calls
from receiver.settings import Settings
from receiver.stores.contract import Store
from receiver.telemetry import logs, metrics, standard_error, tracing
from receiver.telemetry.tracing import Trace

_HEALTH = f"{calls.name}.health"
View = TypeVar("View", bound=Callable[..., object])


def create_app(
    settings: Settings | None = None,
    ring: Keyring | None = None,
    store: Store | None = None,
    clock: Callable[[], float] = time.time,
) -> Flask:
    """Return the receiver as a WSGI application; ``gunicorn 'receiver.app:create_app()'`` works.

    Takes from the environment what is not given; ``clock`` returns seconds since the epoch. Raises SettingsMistakes.
    Only logs that a store is down: each request asks it again. Does not prepare a store that is given, which its first
    use does, so that one that does not answer delays no other.
    """
    if settings is None or ring is None:
        standard_error.install()
        settings, ring = bootstrap.configure()
        logs.configure(settings.log_level, settings.log_format)
        logs.warn((*settings.warnings, *ring.exposed))
        if settings.tls_cert:
            logs.log.warning("STORAGE_TLS_CERT is for receiver serve; this server has options of its own for TLS")
    if store is None:
        store = bootstrap.open_configured(settings, ring, guarded=True)
        ring.uses.set_sink(store.note_key_uses)
        try:
            store.prepare()
        except Problem as cause:
            logs.log.error("the store is not ready: %s", cause)
    app = _Receiver("receiver", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # A redirect to a tidier spelling would answer before the signature is verified.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    app.url_map.redirect_defaults = False
    app.access = AccessPolicy(settings.allow_from, settings.trusted_proxies)
    app.extensions["receiver"] = Receiver(settings, ring, store, clock)
    app.register_blueprint(calls)
    app.register_error_handler(Problem, _on_problem)
    app.register_error_handler(HTTPException, _on_http)
    app.register_error_handler(Exception, _on_defect)
    return app


class _NoSessions(SessionInterface):
    """The one session of all requests: none."""

    _null = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        """Return the null session."""
        return self._null


class _Receiver(Flask):
    """Flask without sessions, hooks, signals and hosts: the four calls need none, and they take a tenth of a load."""

    session_interface = _NoSessions()
    access = AccessPolicy()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return the adapter that finds the view for the path and method of ``request``, whatever host it names."""
        if request is None:
            return None
        path, prefix = request.path, self.extensions["receiver"].settings.public_prefix
        if prefix and wsgi.has_prefix(wsgi.raw_path(request.environ), prefix):
            path = path.removeprefix(unquote(prefix))
        return self.url_map.bind("", path_info=path, default_method=request.method)

    def full_dispatch_request(self) -> Response:
        """Return the answer to the request, counted and logged."""
        environ = request.environ
        peer, forwarded = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", "")
        trace = g.trace = tracing.begin(environ.get("HTTP_X_REQUEST_ID") if self.access.trusts(peer) else None)
        line = logs.RequestLine(self.access.client(peer, forwarded), environ["REQUEST_METHOD"], called_path())
        environ[wsgi.INSTEAD] = partial(_instead, trace, line)
        if request.endpoint:
            trace.call = request.endpoint.removeprefix(f"{calls.name}.")
            trace.tenant = canonical_uuid((request.view_args or {}).get("tenant"))
        try:
            if not self.access.admits(peer, forwarded, request.endpoint == _HEALTH):
                raise AddressRefused("the address is not one of STORAGE_ALLOW_FROM")
            answer = self.make_response(self.dispatch_request())
        except Exception as error:  # noqa: BLE001 - Flask's handlers make a reply of every one
            answer = self.make_response(self.handle_user_exception(error))
        answer.headers["X-Request-ID"] = trace.request_id
        if not wsgi.may_answer(environ):
            return answer  # to nobody: the worker has answered, counted and logged the request
        metrics.answered(trace, answer.status_code, answer.content_length or 0)
        logs.log_request(line, trace, answer.status_code)
        return answer

    def ensure_sync(self, func: View) -> View:
        """Return ``func``: no view is a coroutine."""
        return func

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        """There is nothing to tear down."""

    do_teardown_appcontext = do_teardown_request


def _instead(trace: Trace, line: logs.RequestLine) -> Reply:
    """Return the reply to the request of ``trace``, whose call of the store does not return; count and log it."""
    problem = StoreHangs("the call of the store has not returned")
    seen = dataclasses.replace(trace, stages=dict(trace.stages), reason=problem.reason, cause=problem.cause)
    metrics.answered(seen, problem.status, 0)
    logs.log_request(line, seen, problem.status)
    headers = problem.headers | {"X-Request-ID": trace.request_id}
    return problems.reply(problem.status, problem.message, line.path, headers)


def _on_problem(problem: Problem) -> Reply:
    g.trace.reason, g.trace.cause = problem.reason, problem.cause
    if problem.status in (500, 503, 507) and not problem.has_own_line:  # the receiver's own trouble, not the caller's
        logs.log.error("%s: %s", type(problem).__name__, problem.cause, extra={"request": g.trace.request_id})
    return problems.reply(problem.status, problem.message, called_path(), problem.headers)


def _on_http(error: HTTPException) -> Reply:
    status = error.code or 500
    g.trace.reason, g.trace.cause = problems.reason_of(status), error.name
    methods = error.valid_methods if isinstance(error, MethodNotAllowed) else None
    headers = {"Allow": ", ".join(sorted(methods))} if methods else {}
    message, path = problems.message_of(status), called_path()
    start = f"{current_app.extensions['receiver'].settings.public_prefix}{BASE_PATH}/"
    if status == 404 and not path.startswith(start):
        message += f" This is a receiver of External Storage: its API begins at {start}, try {start}health."
    return problems.reply(status, message, path, headers)


def _on_defect(error: Exception) -> Reply:
    g.trace.reason, g.trace.cause = "defect", type(error).__name__
    logs.log.exception("a defect", extra={"request": g.trace.request_id})
    return problems.reply(500, problems.message_of(500), called_path())
