"""What may stand in the bodies of the simulator's calls. Anybody may send anything: it is checked here only."""

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
    """An object of nothing but the declared fields; of none here."""

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
    """What a tenant says of one of its flows."""

    restrictions = fields.Nested(RestrictionBody, required=True)


class TenantBody(Body):
    """What is given is changed, the rest stays."""

    developerName = fields.String(validate=_NAME)
    externalStorageSettings = fields.Nested(StorageBody)
    restrictions = fields.Nested(RestrictionBody)
    flows = fields.Dict(keys=fields.String(), values=fields.Nested(FlowBody))


class StoreBody(Body):
    """A store to register; with keys only where they exist already."""

    name = fields.String(required=True, validate=_NAME)
    endpoint = fields.String(required=True, validate=validate.Length(max=300))
    location = fields.String(validate=_COUNTRY, load_default=None)
    platformKey = fields.Dict()
    receiverKey = fields.Dict()


class KeysBody(Body):
    """New keys: answered, or written where the receiver reads them."""

    export = fields.Boolean(load_default=False)


class MigrationBody(Body):
    """How many states go at once, and how many times."""

    batchSize = fields.Integer(strict=True, load_default=50, validate=validate.Range(1, 1000))
    batches = fields.Integer(strict=True, load_default=None, validate=validate.Range(1, 1_000_000))


class StartBody(Body):
    """A run, or several, to start."""

    flow = fields.String(required=True)
    country = fields.String(required=True, validate=_COUNTRY)
    user = fields.UUID(load_default=None)
    runs = fields.Integer(strict=True, load_default=1, validate=validate.Range(1, 1000))
    bytes = fields.Integer(strict=True, load_default=None, validate=validate.Range(0, 8 << 20))
    drawn = fields.Boolean(load_default=False)


class ActionBody(Body):
    """What happens in a run."""

    action = fields.String(required=True, validate=validate.OneOf(ACTIONS, error="must be one of {choices}"))
    country = fields.String(required=True, validate=_COUNTRY)
    user = fields.UUID(load_default=None)
    outcome = fields.String(load_default="yes", validate=_NAME)


class CrowdBody(Body):
    """Users at once, for a while."""

    users = fields.Integer(strict=True, load_default=4, validate=validate.Range(1, 32))
    seconds = fields.Integer(strict=True, load_default=10, validate=validate.Range(1, 600))


def parse(data: bytes, schema: type[Schema]) -> JSONObject:
    """Return what ``data``, JSON, holds as ``schema`` says; raises a Refusal that names each wrong field."""
    try:
        parsed: JSONObject = schema().load(json.loads(data))
    except ValidationError as cause:
        raise Refusal(400, "; ".join(_lines(cause.messages, ""))) from None
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    return parsed


def _lines(messages: object, where: str) -> list[str]:
    """Return a line for each mistake in marshmallow's tree of ``messages``; names of fields are what a caller sent."""
    if isinstance(messages, dict):
        found = [line for name, inner in messages.items() for line in _lines(inner, f"{where}.{str(name)[:60]}")]
        return found[:20]
    texts = messages if isinstance(messages, list) else [messages]
    return [f"{where.removeprefix('.')}: {text}" for text in texts]
