"""What bodies and claims must look like: marshmallow schemas that turn JSON values into those of the program.

A message goes to the caller: it names a field and what would be valid, never the value. marshmallow's own fields accept
more spellings than the contract (UUIDs in braces, "on" for true, times without an offset), so the fields here are
exact.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from marshmallow import EXCLUDE, Schema, ValidationError, fields, missing

from receiver.encoding import canonical_uuid
from receiver.states import Instant

Value = TypeVar("Value")
Data = Mapping[str, Any] | None  # what a field's value is a member of


class _Exact(fields.Field[Value]):
    """A field that ``_deserialize`` says all about: no validators, and null only where that is allowed."""

    def deserialize(self, value: object, attr: str | None = None, data: Data = None, **kwargs: object) -> Any:  # noqa: ANN401 - Value, and None only where the field allows it
        """Return the value that ``value``, of JSON, stands for; raises ValidationError."""
        if value is None or value is missing:
            return super().deserialize(value, attr, data, **kwargs)
        return self._deserialize(value, attr, data, **kwargs)


class UniqueId(_Exact[str]):
    """A UUID in its 8-4-4-4-12 spelling, any letter case → lower case."""

    def _deserialize(self, value: object, attr: str | None, data: Data, **kwargs: object) -> str:
        found = canonical_uuid(value)
        if found is None:
            raise ValidationError("must be a UUID")
        return found


class EmptyIsNone(_Exact[Value | None]):
    """Wraps a field whose value may also be null or empty → None."""

    def __init__(self, inner: _Exact[Value], data_key: str | None = None) -> None:
        super().__init__(allow_none=True, load_default=None, data_key=data_key)
        self.inner = inner

    def _deserialize(self, value: object, attr: str | None, data: Data, **kwargs: object) -> Value | None:
        return None if value == "" else self.inner._deserialize(value, attr, data)


class Time(_Exact[Instant]):
    """ISO 8601 with an offset, up to 9 fraction digits → Instant."""

    def _deserialize(self, value: object, attr: str | None, data: Data, **kwargs: object) -> Instant:
        try:
            if isinstance(value, str):
                return Instant.parse(value)
        except ValueError:
            pass
        raise ValidationError("must be an ISO 8601 time with an offset")


class NumericDate(_Exact[float]):
    """Seconds since 1970-01-01T00:00:00Z as a finite JSON number (RFC 7519 section 2)."""

    def _deserialize(self, value: object, attr: str | None, data: Data, **kwargs: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValidationError("must be a number of seconds")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValidationError("must be a number of seconds")
        return value


class Text(_Exact[str]):
    """A text that every store can keep: well-formed Unicode without U+0000, of ``least`` to ``most`` characters."""

    def __init__(self, least: int = 0, most: int | None = None, **kwargs: Any) -> None:  # noqa: ANN401 - the base's
        super().__init__(**kwargs)
        self.least, self.most = least, most

    def _deserialize(self, value: object, attr: str | None, data: Data, **kwargs: object) -> str:
        if not isinstance(value, str):
            raise ValidationError("must be a string")
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            raise ValidationError("must be a string of another length")
        if "\0" in value or not _is_well_formed(value):
            raise ValidationError("must not hold U+0000 or lone surrogates")
        return value


def _is_well_formed(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Boolean(_Exact[bool]):
    """true or false, and nothing that resembles them."""

    def _deserialize(self, value: object, attr: str | None, data: Data, **kwargs: object) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class Audience(_Exact[list[str]]):
    """One text, or a list of texts → list (RFC 7519 section 4.1.3)."""

    def _deserialize(self, value: object, attr: str | None, data: Data, **kwargs: object) -> list[str]:
        audience = [value] if isinstance(value, str) else value
        if not isinstance(audience, list) or not all(isinstance(one, str) for one in audience):
            raise ValidationError("must be a string or a list of strings")
        return audience


class _Contract(Schema):
    """Ignores unknown members: new ones that the platform adds must not break customers."""

    class Meta:
        unknown = EXCLUDE


class RequestClaims(_Contract):
    """Claims of X-ManyWho-Signature (protocol, section 3.2)."""

    iss = Text(required=True)
    aud = Audience(required=True)
    sub = Text(least=1, required=True)
    exp = NumericDate(required=True)
    nbf = NumericDate(allow_none=True)
    path = Text(required=True)
    jti = Text(least=1, most=255, load_default=None, allow_none=True)


class StateClaims(_Contract):
    """Claims of a state's token (protocol, sections 5.3 and 5.4); attributes are those of State."""

    iss = Text(required=True)
    aud = Audience(required=True)
    sub = UniqueId(required=True)
    exp = NumericDate(required=True)
    nbf = NumericDate(allow_none=True)
    iat = NumericDate(allow_none=True)
    jti = Text(allow_none=True)
    id = UniqueId(required=True)
    tenant = UniqueId(required=True)
    parent = EmptyIsNone(UniqueId())
    flow = UniqueId(required=True)
    flow_version = UniqueId(required=True, data_key="flowVersion")
    is_done = Boolean(required=True, data_key="isDone")
    current_map_element = EmptyIsNone(UniqueId(), data_key="currentMapElement")
    current_user = EmptyIsNone(UniqueId(), data_key="currentUser")
    created_at = Time(required=True, data_key="createdAt")
    updated_at = Time(required=True, data_key="updatedAt")
    expires_at = EmptyIsNone(Time(), data_key="expiresAt")
    content = Text(required=True)


class SaveItem(_Contract):
    """One item of the body of a POST."""

    token = Text(least=1, required=True)


request_claims = RequestClaims()
state_claims = StateClaims()
_save_item = SaveItem()
_deleted_id = UniqueId()


def load_request_claims(claims: object) -> dict[str, Any]:
    """Return the ``claims`` of a request's signature by the names of RequestClaims; raises ValidationError."""
    return _load(request_claims, claims)


def load_state_claims(claims: object) -> dict[str, Any]:
    """Return the ``claims`` of a state's token by the names of StateClaims; raises ValidationError."""
    return _load(state_claims, claims)


def tokens_of(items: Sequence[object]) -> list[str]:
    """Return the tokens in the ``items`` of a POST's body; raises ValidationError at the first bad one."""
    return [item["token"] for item in _each(items, lambda item: _load(_save_item, item))]


def ids_of(items: Sequence[object]) -> list[str]:
    """Return the ids (UUIDs in lower case) in the ``items`` of a DELETE's body; raises ValidationError likewise."""
    return list(_each(items, _deleted_id.deserialize))


def _load(schema: Schema, value: object) -> dict[str, Any]:
    # marshmallow itself refuses what is no object; its types ask for one.
    return cast("dict[str, Any]", schema.load(cast("Mapping[str, Any]", value)))


def _each(items: Sequence[object], load: Callable[[object], Value]) -> Iterator[Value]:
    # marshmallow's own lists collect an error for every item: gigabytes for a body of bad ones.
    for index, item in enumerate(items):
        try:
            yield load(item)
        except ValidationError as error:
            raise ValidationError({index: error.messages}) from None


def fault_of(error: ValidationError) -> str:
    """Return one line about the first fault in ``error``: the item's index, the field, and what is valid."""
    where: list[str] = []
    messages: Any = error.messages
    while isinstance(messages, dict):
        name = min(messages, key=lambda key: (isinstance(key, str), key))
        if name != "_schema":
            where.append(f"item {name}" if isinstance(name, int) else str(name))
        messages = messages[name]
    return ": ".join([*where, messages[0].rstrip(".").replace("Missing data for required field", "is missing")])
