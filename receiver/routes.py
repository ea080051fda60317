"""The four calls. Read them top to bottom and you know the product.

A POST goes through stages 1 (signature), 2 (open) and 3 (store); a GET through 1, 3 and 4 (seal); a DELETE through 1
and 3. Each stage is handed what it needs and never calls back into the one before.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from flask import Blueprint, Response, current_app, g, request
from marshmallow import ValidationError

from receiver import body, envelope, signature, strictjson, wsgi
from receiver.encoding import canonical_uuid
from receiver.handover import Handover
from receiver.idempotency import Effect, Receipt
from receiver.keys.keyring import Keyring
from receiver.problems import BadRequest, NotFound, SignatureRefused, StoreFull, TooLarge
from receiver.protocol import BASE_PATH
from receiver.schemas import fault_of, ids_of, tokens_of
from receiver.settings import Settings
from receiver.signature import Caller
from receiver.states import State
from receiver.stores.contract import Store
from receiver.telemetry.logs import log
from receiver.telemetry.tracing import Trace

_CLOCK_AHEAD = 600  # seconds that a clock may have been ahead of the true time
_SMALL = 64 << 10  # bytes of a body that takes about as long to open as its signature takes to verify
calls = Blueprint("calls", __name__, url_prefix=BASE_PATH)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Receiver:
    """What the calls work with. ``clock`` returns seconds since the epoch."""

    settings: Settings
    keyring: Keyring
    store: Store
    clock: Callable[[], float]


@dataclass(frozen=True)
class ChangeRequest:
    """A request to save or delete: whose (UUID in lower case), its body, of ``size`` bytes, and what binds it.

    ``now`` is in seconds since the epoch.
    """

    tenant: str
    body: Handover[bytes] = field(repr=False)
    size: int
    receipt: Receipt | None
    now: float


@calls.get("/health")
def health() -> Response:
    """Answer 200 if the database answers; needs no signature and tells nothing else."""
    with _trace().stage("store"):
        _receiver().store.ping()
    return _json(strictjson.dumps({"status": "ok"}))


@calls.get("/states/<tenant>/<id>")
def load(tenant: str, id: str) -> Response:
    """Answer the sealed state ``id`` of ``tenant``; 404 if there is none."""
    now = _receiver().clock()
    caller = _caller(tenant, now)
    state = _stored(_uuid(tenant), _uuid(id))
    with _trace().stage("seal"):
        compression = _receiver().settings.reply_compression
        token = envelope.seal_state(state.take(), caller.platform_key, caller.receiver_key, now, compression)
    return _json(b'{"token":"%b"}' % token)  # nothing in a token needs an escape


@calls.post("/states/<tenant>")
def save(tenant: str) -> Response:
    """Save the states in the body, all or none; ignores a state that is older than the stored one."""
    change, settings = _change_request(tenant), _receiver().settings

    def do() -> Effect:
        with _trace().stage("open"):
            tokens = _drained(_items(change.body.take(), tokens_of))
            limits = settings.clock_skew, settings.max_inflated
            states = envelope.open_states(tokens, tenant, _receiver().keyring, change.now, *limits)
        with _trace().stage("store"):
            return _receiver().store.save(change.tenant, states, change.receipt)

    return _once(change, do)


@calls.delete("/states/<tenant>")
def delete(tenant: str) -> Response:
    """Delete the states that the body names, all or none; ids that do not exist are ignored."""
    change = _change_request(tenant)

    def do() -> Effect:
        with _trace().stage("open"):
            ids = _items(change.body.take(), ids_of)
        with _trace().stage("store"):
            return _receiver().store.delete(change.tenant, ids, change.receipt)

    return _once(change, do)


def called_path() -> str:
    """Return the path that the platform called and signed: that of the request, with STORAGE_PUBLIC_PREFIX."""
    return wsgi.public_path(wsgi.raw_path(request.environ), _receiver().settings.public_prefix)


def _receiver() -> Receiver:
    """Return what the calls of this application work with."""
    found: Receiver = current_app.extensions["receiver"]
    return found


def _trace() -> Trace:
    """Return the notes on the request that is being answered."""
    found: Trace = g.trace
    return found


def _caller(tenant: str, now: float) -> Caller:
    with _trace().stage("verify"):
        caller = _proven(tenant, now)
    request.environ[wsgi.TENANT] = _trace().tenant
    return caller


def _proven(tenant: str, now: float) -> Caller:
    settings, keyring = _receiver().settings, _receiver().keyring
    if not wsgi.is_routed_as_sent(request.environ):
        raise SignatureRefused("signature: the request URI has more than one path", reason="path")
    caller = signature.check(request.headers, called_path(), tenant, keyring, now, settings.clock_skew)
    if settings.tenants and canonical_uuid(tenant) not in settings.tenants:
        raise SignatureRefused("signature: of a tenant that STORAGE_TENANTS does not list", reason="tenant")
    return caller


def _uuid(text: str) -> str:
    found = canonical_uuid(text)
    if found is None:
        raise NotFound("the path holds what is not a UUID")
    return found


def _stored(tenant: str, state_id: str) -> Handover[State]:
    """Return the state, which may be large, to be handed on; raises NotFound."""
    with _trace().stage("store"):
        state = _receiver().store.find(tenant, state_id)
    if state is None:
        raise NotFound(message="There is no such state.")
    return Handover(state)


def _change_request(tenant: str) -> ChangeRequest:
    """Return what a proven caller asks to change; its body is read, not yet parsed."""
    settings, now = _receiver().settings, _receiver().clock()
    caller = _caller(tenant, now)
    own = _uuid(tenant)
    if caller.jti is None and settings.replay == "enforce":
        raise SignatureRefused("signature: a change without jti", reason="jti")
    if caller.jti is None and settings.replay == "observe":
        log.warning("a change without jti", extra={"request": _trace().request_id})
    with _trace().stage("body"):
        raw = body.read(request.environ, settings.max_body)
    _trace().received = len(raw)
    return ChangeRequest(own, Handover(raw), len(raw), _receipt(caller, raw, now), now)


def _once(change: ChangeRequest, do: Callable[[], Effect]) -> Response:
    """Answer ``change`` after ``do``, unless the very same request was done before.

    Looks that up before it works on a large body: a used signature must not buy much work. Does a small one again at
    once, to no effect, because the store itself detects the repetition. If that fails, the request may still have
    succeeded the first time: what is a fault now need not have been one then.
    """
    looks_first = change.size > _SMALL
    if looks_first and _was_done(change):
        return _done(Effect(jti_was="repeated"))
    try:
        return _done(do())
    except (BadRequest, TooLarge, StoreFull):
        if looks_first or not _was_done(change):
            raise
        return _done(Effect(jti_was="repeated"))


def _was_done(change: ChangeRequest) -> bool:
    receipt = change.receipt
    if receipt is None or not receipt.enforce:
        return False
    with _trace().stage("store"):
        return _receiver().store.was_done(change.tenant, receipt)


def _items(raw: bytes, schema: Callable[[Sequence[object]], list[Item]]) -> list[Item]:
    """Return what ``schema`` makes of the JSON array in the body ``raw``; raises BadRequest, TooLarge."""
    items = body.parse(raw, _receiver().settings.max_items)
    del raw
    try:
        return schema(items)
    except ValidationError as error:
        raise BadRequest(message=fault_of(error)) from None


def _drained(items: list[Item]) -> Iterator[Item]:
    """Yield each of ``items``, which nobody else holds, and let go of it: tokens may be large."""
    items.reverse()
    while items:
        yield items.pop()


def _receipt(caller: Caller, raw: bytes, now: float) -> Receipt | None:
    settings = _receiver().settings
    if settings.replay == "off" or caller.jti is None:
        return None
    # Twice the skew: another receiver's clock may be behind ours by as much as ours may be wrong. And longer: when a
    # clock was ahead and is set right, requests are valid again whose receipts would have expired and been dropped.
    expires = math.ceil(caller.expires + 2 * settings.clock_skew + _CLOCK_AHEAD)
    digest = hashlib.sha256(raw).digest()
    return Receipt(caller.jti, request.method, digest, int(now), expires, settings.replay == "enforce")


def _done(effect: Effect) -> Response:
    _trace().effect = effect
    response = Response(status=204)
    del response.headers["Content-Type"]  # there is no content
    return response


def _json(data: bytes) -> Response:
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    return Response(data, headers=headers, direct_passthrough=False)
