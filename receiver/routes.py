"""The four calls. Read them top to bottom and you know the product.

POST goes through rooms 1 (signature), 2 (open) and 3 (store); GET through 1, 3 and 4 (seal); DELETE through
1 and 3. Each room is handed what it needs and never calls back into the one before.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

from flask import Blueprint, Response, current_app, g, request
from marshmallow import ValidationError
from marshmallow.fields import Field
from marshmallow.schema import Schema

from receiver import body, envelope, signature, strictjson
from receiver.jose import canonical_uuid
from receiver.keyring import Keyring
from receiver.problems import BadRequest, NotFound, SignatureRefused
from receiver.schemas import delete_body, fault_of, save_body
from receiver.settings import Settings
from receiver.signature import Caller
from receiver.stores import Effect, Receipt, Store

calls = Blueprint("calls", __name__, url_prefix="/api/storage/1")


@dataclass(frozen=True)
class House:
    """What the calls work with. ``clock`` returns seconds since the epoch."""

    settings: Settings
    keyring: Keyring
    store: Store
    clock: Callable[[], float]


@calls.get("/health")
def health() -> Response:
    """Answer 200 when the database does; needs no signature and tells nothing else."""
    _house().store.ping()
    return _json({"status": "ok"})


@calls.get("/states/<tenant>/<id>")
def load(tenant: str, id: str) -> Response:
    """Answer the sealed state ``id`` of ``tenant``; 404 when there is none."""
    house, now = _house(), _house().clock()
    caller = _caller(tenant, now)
    state = house.store.find(_tenant_of(caller), _uuid(id))
    if state is None:
        raise NotFound(message="There is no such state.")
    token = envelope.seal_state(state, caller.platform_key, caller.receiver_key, now)
    return _json({"token": token})


@calls.post("/states/<tenant>")
def save(tenant: str) -> Response:
    """Save the states in the body, all or none; an older one than is stored is ignored."""
    house, now = _house(), _house().clock()
    caller = _caller(tenant, now)
    own = _tenant_of(caller)
    receipt, items = _change(caller, save_body, now)
    tokens = [item["token"] for item in items]
    limits = house.settings.clock_skew, house.settings.max_inflated
    states = envelope.open_states(tokens, tenant, house.keyring, now, *limits)
    return _done(house.store.save(own, states, receipt))


@calls.delete("/states/<tenant>")
def delete(tenant: str) -> Response:
    """Delete the states that the body names, all or none; ids that do not exist are no fault."""
    house, now = _house(), _house().clock()
    caller = _caller(tenant, now)
    own = _tenant_of(caller)
    receipt, ids = _change(caller, delete_body, now)
    return _done(house.store.delete(own, ids, receipt))


def raw_path() -> str:
    """Return the path of the request URI exactly as it was sent, without query: what the platform signed."""
    uri = request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or ""
    if not uri.startswith("/"):  # absolute-form, RFC 9112 section 3.2.2
        uri = "/" + uri.partition("://")[2].partition("/")[2]
    return uri.partition("?")[0]


def _house() -> House:
    return current_app.extensions["receiver"]


def _caller(tenant: str, now: float) -> Caller:
    house = _house()
    g.tenant = canonical_uuid(tenant)
    skew = house.settings.clock_skew
    return signature.check(request.headers, raw_path(), tenant, house.keyring, now, skew)


def _tenant_of(caller: Caller) -> str:
    return _uuid(caller.tenant)


def _uuid(text: str) -> str:
    found = canonical_uuid(text)
    if found is None:
        raise NotFound("the path holds what is not a UUID")
    return found


def _change(caller: Caller, schema: Schema | Field, now: float) -> tuple[Receipt | None, list]:
    """Return the receipt and the checked items of a state-changing request; reads and parses the body."""
    settings = _house().settings
    if settings.replay == "enforce" and caller.jti is None:
        raise SignatureRefused("signature: a change without jti")
    raw = body.read(request.environ, settings.max_body)
    value = body.parse(raw)
    if not isinstance(value, list):
        raise BadRequest(message="The body must be a JSON array.")
    try:
        items = schema.load(value) if isinstance(schema, Schema) else schema.deserialize(value)
    except ValidationError as error:
        raise BadRequest(message=fault_of(error)) from None
    return _receipt(caller, raw, now), items


def _receipt(caller: Caller, raw: bytes, now: float) -> Receipt | None:
    settings = _house().settings
    if settings.replay == "off" or caller.jti is None:
        return None
    # Twice the skew: another receiver's clock may be behind ours by as much as ours may be wrong.
    expires = math.ceil(caller.expires + 2 * settings.clock_skew)
    digest = hashlib.sha256(raw).digest()
    return Receipt(caller.jti, request.method, digest, int(now), expires, settings.replay == "enforce")


def _done(effect: Effect) -> Response:
    g.effect = effect
    return Response(status=204)


def _json(value: object) -> Response:
    response = Response(strictjson.dumps(value), mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
