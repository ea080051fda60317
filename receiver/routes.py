"""The four calls. Read them top to bottom and you know the product.

POST goes through rooms 1 (signature), 2 (open) and 3 (store); GET through 1, 3 and 4 (seal); DELETE through
1 and 3. Each room is handed what it needs and never calls back into the one before.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from flask import Blueprint, Response, current_app, g, request
from marshmallow import ValidationError

from receiver import body, envelope, signature, strictjson
from receiver.idempotency import Effect, Receipt
from receiver.jose.compact import canonical_uuid
from receiver.keys.keyring import Keyring
from receiver.problems import BadRequest, NotFound, SignatureRefused, StoreFull, TooLarge
from receiver.schemas import fault_of, ids_of, tokens_of
from receiver.settings import Settings
from receiver.signature import Caller
from receiver.stores.contract import Store
from receiver.telemetry.logs import log

_SMALL = 64 << 10  # bytes of a body that is opened in about the time that its signature takes
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]+")  # what absolute-form has before the path
BASE = "/api/storage/1"
calls = Blueprint("calls", __name__, url_prefix=BASE)


@dataclass(frozen=True)
class Receiver:
    """What the calls work with. ``clock`` returns seconds since the epoch."""

    settings: Settings
    keyring: Keyring
    store: Store
    clock: Callable[[], float]


@dataclass
class Change:
    """A state-changing request: whose (UUID in lower case), its ``body`` and what binds it; ``now`` in seconds."""

    tenant: str
    body: bytes = field(repr=False)
    receipt: Receipt | None
    now: float

    def take_body(self) -> bytes:
        """Return the body and let go of it: what is made of a large one shall take its place in memory."""
        body, self.body = self.body, b""
        return body


@calls.get("/health")
def health() -> Response:
    """Answer 200 when the database does; needs no signature and tells nothing else."""
    with g.trace.room("store"):
        _receiver().store.ping()
    return _json(strictjson.dumps({"status": "ok"}))


@calls.get("/states/<tenant>/<id>")
def load(tenant: str, id: str) -> Response:
    """Answer the sealed state ``id`` of ``tenant``; 404 when there is none."""
    receiver, now = _receiver(), _receiver().clock()
    caller = _caller(tenant, now)
    with g.trace.room("store"):
        found = [receiver.store.find(_uuid(tenant), _uuid(id))]
    if found == [None]:
        raise NotFound(message="There is no such state.")
    with g.trace.room("seal"):
        # Popped, so that nothing here holds a large content while the token of it is made.
        token = envelope.seal_state(
            found.pop(), caller.platform_key, caller.receiver_key, now, receiver.settings.reply_compression
        )
    return _json(b'{"token":"%b"}' % token)  # nothing in a token needs an escape


@calls.post("/states/<tenant>")
def save(tenant: str) -> Response:
    """Save the states in the body, all or none; an older one than is stored is ignored."""
    change, receiver = _change(tenant), _receiver()
    limits = receiver.settings.clock_skew, receiver.settings.max_inflated

    def do() -> Effect:
        with g.trace.room("open"):
            tokens = _items(change.take_body(), tokens_of)
            states = envelope.open_states(tokens, tenant, receiver.keyring, change.now, *limits)
        with g.trace.room("store"):
            return receiver.store.save(change.tenant, states, change.receipt)

    return _once(change, do)


@calls.delete("/states/<tenant>")
def delete(tenant: str) -> Response:
    """Delete the states that the body names, all or none; ids that do not exist are no fault."""
    change = _change(tenant)

    def do() -> Effect:
        with g.trace.room("open"):
            ids = _items(change.take_body(), ids_of)
        with g.trace.room("store"):
            return _receiver().store.delete(change.tenant, ids, change.receipt)

    return _once(change, do)


def called_path() -> str:
    """Return the path that the platform called and signed: that of the request, with STORAGE_PUBLIC_PREFIX."""
    return public_path(raw_path(request.environ), _receiver().settings.public_prefix)


def public_path(path: str, prefix: str) -> str:
    """Return ``path``, as it was received, with the ``prefix`` that a proxy may have taken off."""
    return path if has_prefix(path, prefix) else prefix + path


def has_prefix(path: str, prefix: str) -> bool:
    """Tell whether ``path`` still has the ``prefix`` that a proxy takes off, before what the calls begin with."""
    return path.startswith(f"{prefix}{BASE}/")


def raw_path(environ: Mapping) -> str:
    """Return the path of the request URI in the WSGI ``environ`` exactly as it was sent; "/" if there is none."""
    uri = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    path = uri.partition("#")[0].partition("?")[0]  # first of all: a query may hold anything
    if not path.startswith("/"):  # absolute-form, RFC 9112 section 3.2.2
        origin = _ORIGIN.match(path)
        path = path[origin.end() :] if origin else ""
    return path or "/"


def is_routed_as_sent(environ: Mapping) -> bool:
    """Tell whether the server routes the request in the WSGI ``environ`` by its raw path, and no other reading of it.

    The signature is of the raw path; where the server read the request URI in another way, it is of another call.
    """
    mounted, rest = (environ.get(name, "").encode("latin-1") for name in ("SCRIPT_NAME", "PATH_INFO"))
    return unquote_to_bytes(raw_path(environ).encode("latin-1")) == unquote_to_bytes(mounted) + rest


def _receiver() -> Receiver:
    return current_app.extensions["receiver"]


def _caller(tenant: str, now: float) -> Caller:
    with g.trace.room("verify"):
        caller = _proven(tenant, now)
    request.environ[body.TENANT] = g.trace.tenant
    return caller


def _proven(tenant: str, now: float) -> Caller:
    receiver = _receiver()
    settings = receiver.settings
    if not is_routed_as_sent(request.environ):
        raise SignatureRefused("signature: the request URI has more than one path", reason="path")
    caller = signature.check(request.headers, called_path(), tenant, receiver.keyring, now, settings.clock_skew)
    if settings.tenants and canonical_uuid(tenant) not in settings.tenants:
        raise SignatureRefused("signature: of a tenant that STORAGE_TENANTS does not list", reason="tenant")
    return caller


def _uuid(text: str) -> str:
    found = canonical_uuid(text)
    if found is None:
        raise NotFound("the path holds what is not a UUID")
    return found


def _change(tenant: str) -> Change:
    """Return what a proven caller asks to change; its body is read, not yet parsed."""
    receiver, now = _receiver(), _receiver().clock()
    caller = _caller(tenant, now)
    own = _uuid(tenant)
    if caller.jti is None and receiver.settings.replay == "enforce":
        raise SignatureRefused("signature: a change without jti", reason="jti")
    if caller.jti is None and receiver.settings.replay == "observe":
        log.warning("a change without jti", extra={"request": g.trace.request_id})
    with g.trace.room("body"):
        raw = body.read(request.environ, receiver.settings.max_body)
    g.trace.received = len(raw)
    return Change(own, raw, _receipt(caller, raw, now), now)


def _once(change: Change, do: Callable[[], Effect]) -> Response:
    """Answer ``change`` after ``do``, unless the very same request was done before.

    Of a large body nothing is made before that was looked up: a used signature must not buy much. A small one is done
    again at once, to no effect, which the store tells anyway; and what may be a fault by now was none the first time.
    """
    looks_first = len(change.body) > _SMALL
    if looks_first and _was_done(change):
        return _done(Effect(jti_was="repeated"))
    try:
        return _done(do())
    except (BadRequest, TooLarge, StoreFull):
        if looks_first or not _was_done(change):
            raise
        return _done(Effect(jti_was="repeated"))


def _was_done(change: Change) -> bool:
    receipt = change.receipt
    if receipt is None or not receipt.enforce:
        return False
    with g.trace.room("store"):
        return _receiver().store.was_done(change.tenant, receipt)


def _items(raw: bytes, schema: Callable[[list], list]) -> list:
    """Return what ``schema`` makes of the JSON array in the body ``raw``; raises BadRequest, TooLarge."""
    items = body.parse(raw, _receiver().settings.max_items)
    del raw
    try:
        return schema(items)
    except ValidationError as error:
        raise BadRequest(message=fault_of(error)) from None


def _receipt(caller: Caller, raw: bytes, now: float) -> Receipt | None:
    settings = _receiver().settings
    if settings.replay == "off" or caller.jti is None:
        return None
    # Twice the skew: another receiver's clock may be behind ours by as much as ours may be wrong.
    expires = math.ceil(caller.expires + 2 * settings.clock_skew)
    digest = hashlib.sha256(raw).digest()
    return Receipt(caller.jti, request.method, digest, int(now), expires, settings.replay == "enforce")


def _done(effect: Effect) -> Response:
    g.trace.effect = effect
    response = Response(status=204)
    del response.headers["Content-Type"]  # there is no content
    return response


def _json(body: bytes) -> Response:
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    return Response(body, headers=headers, direct_passthrough=False)
