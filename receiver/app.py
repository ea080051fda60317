"""create_app: the wiring, nothing else."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote

from flask import Flask, Request, Response, current_app, g, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from receiver import keyring, logs, metrics, problems, standard_error, stores, tls, tracing
from receiver.addresses import Gate
from receiver.jose import canonical_uuid
from receiver.keyring import Keyring
from receiver.problems import AddressRefused, Problem, StoreMisplaced
from receiver.routes import BASE, Receiver, called_path, calls, has_prefix, raw_path
from receiver.settings import Settings, SettingsMistakes
from receiver.settings import read as read_settings
from receiver.stores import Store
from receiver.stores.guarded import Guarded, slots_for
from receiver.stores.logins import Logins
from receiver.stores.residency import Residency
from receiver.stores.sealed import Sealed
from receiver.stores.urls import Place

_HEALTH = f"{calls.name}.health"


def configure() -> tuple[Settings, Keyring]:
    """Return settings and keys from the process's environment.

    Raises SettingsMistakes with every mistake in either, and in the places that they name for stores.
    """
    settings, ring, mistakes = _configured()
    _stop_at(mistakes + _misplaced(settings))
    return settings, ring


def configure_anew(trial: Path | None) -> tuple[Settings, Keyring]:
    """Return the same once more, whatever has become of the stores that are in use by now; and keys in ``trial``."""
    settings, ring, mistakes = _configured(trial)
    _stop_at(mistakes)
    return settings, ring


def _configured(trial: Path | None = None) -> tuple[Settings, Keyring, list[str]]:
    settings, mistakes = read_settings(os.environ)
    ring, key_mistakes = keyring.load(settings, trial)
    return settings, ring, mistakes + key_mistakes + tls.load(settings)[1]


def configure_stores() -> Settings:
    """Return the settings of the process's environment for work on stores alone, which needs no key."""
    settings, mistakes = read_settings(os.environ)
    _stop_at(mistakes + _misplaced(settings))
    logs.warn(settings.warnings)
    return settings


def configure_contents() -> tuple[Settings, Keyring]:
    """Return the settings of the process's environment and its sealing keys, for work on what states hold."""
    settings = configure_stores()
    ring, mistakes = keyring.load_sealing(settings)
    _stop_at(mistakes)
    return settings, ring


def _misplaced(settings: Settings) -> list[str]:
    mistakes = []
    for resident in settings.residents.values():
        try:
            stores.open_store(resident.place, settings.store_timeout).check_place()
        except StoreMisplaced as fault:
            mistakes.append(f"{resident.variable}: {fault.cause}")
    return mistakes


def _stop_at(mistakes: list[str]) -> None:
    if mistakes:
        raise SettingsMistakes(mistakes)


def open_place(
    place: Place,
    settings: Settings,
    ring: Keyring,
    create: bool = True,
    logins: Logins | None = None,
    guard: Callable[[Store], Store] = lambda store: store,
) -> Sealed:
    """Return the store at ``place``, its contents sealed as ``settings`` and ``ring`` say.

    Where it may not be made (``create``), it was prepared before, and the keys were found to fit. ``logins`` are those
    of database servers, as they change; ``guard`` wraps what is sealed.
    """
    inner = stores.open_store(place, settings.store_timeout, create, settings.pool_size, logins)
    return Sealed(guard(inner), ring, settings.clear_states, strict=create)


def open_residents(
    settings: Settings,
    ring: Keyring,
    may_create: Callable[[Place], bool] = lambda _place: True,
    logins: Logins | None = None,
    guarded: bool = False,
) -> dict[str | None, Sealed]:
    """Return the stores that ``settings`` name by tenant, that of the rest under None; one for each place.

    The sealing keys are those of ``ring``; ``may_create`` tells which stores may be made where they are missing.
    ``guarded`` ones are for the calls of the platform: one that hangs holds up no other.
    """
    opened: dict[tuple, Sealed] = {}
    slots = slots_for(len(settings.places), settings.threads)

    def guard(place: Place) -> Callable[[Store], Store]:
        name = f"the store {place}"
        return lambda store: Guarded(store, name, settings.store_timeout, slots, place.kind == "file")

    def once(place: Place) -> Sealed:
        if place.identity not in opened:
            more = {"guard": guard(place)} if guarded else {}
            opened[place.identity] = open_place(place, settings, ring, may_create(place), logins, **more)
        return opened[place.identity]

    return {tenant: once(resident.place) for tenant, resident in settings.residents.items()}


def as_one(residents: Mapping[str | None, Store]) -> Store:
    """Return the stores of ``open_residents`` as one, which knows the tenants that have one of their own."""
    own = {tenant: store for tenant, store in residents.items() if tenant is not None}
    return Residency(residents[None], own) if own else residents[None]


def open_configured(
    settings: Settings,
    ring: Keyring,
    may_create: Callable[[Place], bool] = lambda _place: True,
    logins: Logins | None = None,
    guarded: bool = False,
) -> Store:
    """Return the stores of ``open_residents`` as one."""
    return as_one(open_residents(settings, ring, may_create, logins, guarded))


def create_app(
    settings: Settings | None = None,
    ring: Keyring | None = None,
    store: Store | None = None,
    clock: Callable[[], float] = time.time,
) -> Flask:
    """Return the receiver as a WSGI application; ``gunicorn 'receiver.app:create_app()'`` works.

    What is not given comes from the environment; ``clock`` returns seconds since the epoch. Raises
    SettingsMistakes. A store that is down now is only logged: it is asked again with each request. One that is
    given is prepared by its first use, so that a silent one delays nobody else.
    """
    if settings is None or ring is None:
        standard_error.install()
        settings, ring = configure()
        logs.configure(settings.log_level, settings.log_format)
        logs.warn((*settings.warnings, *ring.exposed))
        if settings.tls_cert:
            logs.log.warning("STORAGE_TLS_CERT is for receiver serve; this server has options of its own for TLS")
    if store is None:
        store = open_configured(settings, ring, guarded=True)
        ring.uses.hand_to(store.note_key_uses)
        try:
            store.prepare()
        except Problem as cause:
            logs.log.error("the store is not ready: %s", cause)
    app = _Receiver("receiver", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # A redirect to a tidier spelling would answer before the signature is looked at.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    app.url_map.redirect_defaults = False
    app.gate = Gate(settings.allow_from, settings.trusted_proxies)
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
    """Flask as far as the four calls need it: no sessions, hooks, signals or hosts, which take a tenth of a load."""

    session_interface = _NoSessions()
    gate = Gate()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what finds the view for the path and method of ``request``, whatever host it was sent to."""
        if request is None:
            return None
        path, prefix = request.path, self.extensions["receiver"].settings.public_prefix
        if prefix and has_prefix(raw_path(request.environ), prefix):
            path = path.removeprefix(unquote(prefix))
        return self.url_map.bind("", path_info=path, default_method=request.method)

    def full_dispatch_request(self) -> Response:
        """Return the answer to the request, counted and logged."""
        environ = request.environ
        peer, forwarded = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", "")
        trace = g.trace = tracing.begin(environ.get("HTTP_X_REQUEST_ID") if self.gate.trusts(peer) else None)
        if request.endpoint:
            trace.call = request.endpoint.removeprefix(f"{calls.name}.")
            trace.tenant = canonical_uuid((request.view_args or {}).get("tenant"))
        try:
            if not self.gate.admits(peer, forwarded, request.endpoint == _HEALTH):
                raise AddressRefused("the address is not one of STORAGE_ALLOW_FROM")
            answer = self.make_response(self.dispatch_request())
        except Exception as error:
            answer = self.make_response(self.handle_user_exception(error))
        answer.headers["X-Request-ID"] = trace.request_id
        metrics.answered(trace, answer.status_code, answer.content_length or 0)
        asked = logs.Asked(self.gate.client(peer, forwarded), environ["REQUEST_METHOD"], called_path())
        logs.tell_request(asked, trace, answer.status_code)
        return answer

    def ensure_sync(self, func: Callable) -> Callable:
        """Return ``func``: no view is a coroutine."""
        return func

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        """There is nothing to tear down."""

    do_teardown_appcontext = do_teardown_request


def _on_problem(problem: Problem):
    g.trace.reason, g.trace.cause = problem.reason, problem.cause
    if problem.status in (500, 503, 507) and not problem.has_own_line:  # the receiver's own trouble, not the caller's
        logs.log.error("%s: %s", type(problem).__name__, problem.cause, extra={"request": g.trace.request_id})
    return problems.reply(problem.status, problem.message, called_path(), problem.headers)


def _on_http(error: HTTPException):
    status = error.code or 500
    g.trace.reason, g.trace.cause = problems.reason_of(status), error.name
    headers = {"Allow": ", ".join(sorted(error.valid_methods))} if getattr(error, "valid_methods", None) else {}
    message, path = problems.message_of(status), called_path()
    start = f"{current_app.extensions['receiver'].settings.public_prefix}{BASE}/"
    if status == 404 and not path.startswith(start):
        message += f" This is a receiver of External Storage: its API begins at {start}, try {start}health."
    return problems.reply(status, message, path, headers)


def _on_defect(error: Exception):
    g.trace.reason, g.trace.cause = "defect", type(error).__name__
    logs.log.exception("a defect", extra={"request": g.trace.request_id})
    return problems.reply(500, problems.message_of(500), called_path())
