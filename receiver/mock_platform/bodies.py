"""Schemas for the bodies of the simulator's calls. Callers may send anything; only this module checks it."""

import json

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from receiver.mock_platform.json_values import JSONObject
from receiver.mock_platform.model import Refusal
from receiver.mock_platform.regions import COUNTRIES, REGIONS
from receiver.mock_platform.runtime import ACTIONS

_NAME = validate.Regexp(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}\Z", error="1 to 80 letters, digits, spaces and ._-")
_REGION = validate.OneOf(sorted(REGIONS), error="must be one of {choices}")
_COUNTRY = validate.OneOf(COUNTRIES, error="must be a country's two capital letters")


class Body(Schema):
    """An object with the declared fields only; this base class declares none."""

    class Meta:  # noqa: D106 - marshmallow's own
        unknown = RAISE


class RestrictionBody(Body):
    """Regions and countries; an empty list restricts nothing."""

    regions = fields.List(fields.String(validate=_REGION), load_default=list)
    countries = fields.List(fields.String(validate=_COUNTRY), load_default=list)


class StorageBody(Body):
    """The tenant's externalStorageSettings."""

    enableStates = fields.Boolean(required=True)
    enableReplication = fields.Boolean(load_default=False)
    globalStoreId = fields.String(load_default=None, allow_none=True)


class FlowBody(Body):
    """A tenant's settings for one of its flows."""

    restrictions = fields.Nested(RestrictionBody, required=True)


class TenantBody(Body):
    """Changes to a tenant. Fields that are missing stay as they are."""

    developerName = fields.String(validate=_NAME)
    externalStorageSettings = fields.Nested(StorageBody)
    restrictions = fields.Nested(RestrictionBody)
    flows = fields.Dict(keys=fields.String(), values=fields.Nested(FlowBody))


class StoreBody(Body):
    """A store to register, with keys only if they already exist."""

    name = fields.String(required=True, validate=_NAME)
    endpoint = fields.String(required=True, validate=validate.Length(max=300))
    location = fields.String(validate=_COUNTRY, load_default=None)
    platformKey = fields.Dict()
    receiverKey = fields.Dict()


class KeysBody(Body):
    """New keys: returned in the answer, or exported to the folder that the receiver reads."""

    export = fields.Boolean(load_default=False)


class MigrationBody(Body):
    """The size of a batch and the number of batches."""

    batchSize = fields.Integer(strict=True, load_default=50, validate=validate.Range(1, 1000))
    batches = fields.Integer(strict=True, load_default=None, validate=validate.Range(1, 1_000_000))


class StartBody(Body):
    """One or several runs to start."""

    flow = fields.String(required=True)
    country = fields.String(required=True, validate=_COUNTRY)
    user = fields.UUID(load_default=None)
    runs = fields.Integer(strict=True, load_default=1, validate=validate.Range(1, 1000))
    bytes = fields.Integer(strict=True, load_default=None, validate=validate.Range(0, 8 << 20))
    drawn = fields.Boolean(load_default=False)


class ActionBody(Body):
    """What a user does in a run."""

    action = fields.String(required=True, validate=validate.OneOf(ACTIONS, error="must be one of {choices}"))
    country = fields.String(required=True, validate=_COUNTRY)
    user = fields.UUID(load_default=None)
    outcome = fields.String(load_default="yes", validate=_NAME)


class CrowdBody(Body):
    """How many users act at once, and for how long."""

    users = fields.Integer(strict=True, load_default=4, validate=validate.Range(1, 32))
    seconds = fields.Integer(strict=True, load_default=10, validate=validate.Range(1, 600))


def parse(data: bytes, schema: type[Schema]) -> JSONObject:
    """Return the JSON in ``data``, validated by ``schema``; raises a Refusal that names each wrong field."""
    try:
        parsed: JSONObject = schema().load(json.loads(data))
    except ValidationError as cause:
        raise Refusal(400, "; ".join(_lines(cause.messages, ""))) from None
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    return parsed


def _lines(messages: object, where: str) -> list[str]:
    """Return a line for each error in marshmallow's tree of ``messages``; the field names come from the caller."""
    if isinstance(messages, dict):
        found = [line for name, inner in messages.items() for line in _lines(inner, f"{where}.{str(name)[:60]}")]
        return found[:20]
    texts = messages if isinstance(messages, list) else [messages]
    return [f"{where.removeprefix('.')}: {text}" for text in texts]
