"""create_app: the wiring, nothing else."""

import os
import time
from collections.abc import Callable
from urllib.parse import unquote

from flask import Flask, Request, Response, g, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from receiver import keyring, logs, problems, stores, tls
from receiver.addresses import Gate
from receiver.keyring import Keyring
from receiver.problems import AddressRefused, Problem, StoreMisplaced
from receiver.routes import Receiver, called_path, calls, has_prefix, raw_path
from receiver.settings import Settings, SettingsMistakes
from receiver.settings import read as read_settings
from receiver.stores import Store
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


def configure_anew() -> tuple[Settings, Keyring]:
    """Return the same once more, whatever has become of the stores that are in use by now."""
    settings, ring, mistakes = _configured()
    _stop_at(mistakes)
    return settings, ring


def _configured() -> tuple[Settings, Keyring, list[str]]:
    settings, mistakes = read_settings(os.environ)
    ring, key_mistakes = keyring.load(settings)
    return settings, ring, mistakes + key_mistakes + tls.load(settings)[1]


def configure_stores() -> Settings:
    """Return the settings of the process's environment for work on stores alone, which needs no key."""
    settings, mistakes = read_settings(os.environ)
    _stop_at(mistakes + _misplaced(settings))
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


def open_place(place: Place, settings: Settings, ring: Keyring, create: bool = True) -> Sealed:
    """Return the store at ``place``, its contents sealed as ``settings`` and ``ring`` say.

    Where it may not be made (``create``), it was prepared before, and the keys were found to fit.
    """
    inner = stores.open_store(place, settings.store_timeout, create, settings.pool_size)
    return Sealed(inner, ring, settings.clear_states, strict=create)


def open_configured(
    settings: Settings, ring: Keyring, may_create: Callable[[Place], bool] = lambda _place: True
) -> Store:
    """Return the store that ``settings`` name, with the tenants that have one of their own in theirs.

    The sealing keys are those of ``ring``; ``may_create`` tells which stores may be made where they are missing.
    """
    opened: dict[tuple, Store] = {}

    def once(place: Place) -> Store:
        if place.identity not in opened:
            opened[place.identity] = open_place(place, settings, ring, may_create(place))
        return opened[place.identity]

    others, *own = [once(resident.place) for resident in settings.residents.values()]
    return Residency(others, dict(zip(settings.tenant_stores, own, strict=True))) if own else others


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
        settings, ring = configure()
        logs.configure(settings.log_level)
        logs.warn(ring.exposed)
        if settings.tls_cert:
            logs.log.warning("STORAGE_TLS_CERT is for receiver serve; this server has options of its own for TLS")
    if store is None:
        store = open_configured(settings, ring)
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
        """Return the answer to the request, logged."""
        logs.start_request()
        peer, forwarded = request.environ.get("REMOTE_ADDR", ""), request.environ.get("HTTP_X_FORWARDED_FOR", "")
        try:
            if not self.gate.admits(peer, forwarded, request.endpoint == _HEALTH):
                raise AddressRefused("the address is not one of STORAGE_ALLOW_FROM")
            answer = self.make_response(self.dispatch_request())
        except Exception as error:
            answer = self.make_response(self.handle_user_exception(error))
        return logs.finish_request(answer, called_path(), self.gate.client(peer, forwarded))

    def ensure_sync(self, func: Callable) -> Callable:
        """Return ``func``: no view is a coroutine."""
        return func

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        """There is nothing to tear down."""

    do_teardown_appcontext = do_teardown_request


def _on_problem(problem: Problem):
    g.cause = problem.cause
    if problem.status in (500, 503, 507):  # the receiver's own trouble, not the caller's
        logs.log.error("%s: %s", type(problem).__name__, problem.cause, extra={"request": g.request_id})
    return problems.reply(problem.status, problem.message, called_path(), problem.headers)


def _on_http(error: HTTPException):
    g.cause = error.name
    status = error.code or 500
    headers = {"Allow": ", ".join(sorted(error.valid_methods))} if getattr(error, "valid_methods", None) else {}
    return problems.reply(status, problems.message_of(status), called_path(), headers)


def _on_defect(error: Exception):
    g.cause = type(error).__name__
    logs.log.exception("a defect", extra={"request": g.request_id})
    return problems.reply(500, problems.message_of(500), called_path())
