"""A state ↔ the values of a row, the same for every store that keeps rows: SQLite and the database servers.

Times are kept as they were sent. They are compared by whole seconds since 1970, UTC, and nanoseconds, since years 1 to
9999 do not fit into one 64-bit number of nanoseconds. Both are those of the text, or up to half a second earlier: that
difference marks a row adopted from the Java service, whose database rounded (Instant.rounded).

Without ``content_crc32``, a flipped bit or a content changed by someone else would be served as what was saved.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from receiver.problems import StoreDamaged
from receiver.states import NANOSECONDS, Content, Instant, State, Summary
from receiver.stores.contract import OnDamage

Made = TypeVar("Made", State, Summary)
Row = Sequence[Any]  # as a database answers it
FIELDS = (
    *("id", "tenant", "parent", "flow", "flow_version", "is_done", "current_map_element", "current_user"),
    *("created_at", "updated_at", "updated_nanosecond", "expires_at", "content", "content_crc32", "sealing_key"),
)
_MOST_ROUNDED = NANOSECONDS // 2
# The fields that a newer state replaces; the others keep their first values (protocol, section 5.7).
REPLACED = (
    *("flow", "flow_version", "is_done", "current_map_element", "current_user", "updated_at"),
    *("expires_at", "expires_second", "content", "content_crc32", "sealing_key"),
    *("updated_nanosecond", "updated_second"),
)


def readable(rows: Iterable[Row], make: Callable[[Row], Made], on_damage: OnDamage) -> Iterator[Made]:
    """Yield what ``make`` returns for each of ``rows``; calls ``on_damage`` for a damaged one instead."""
    for row in rows:
        try:
            yield make(row)
        except StoreDamaged as damage:
            on_damage(damage)


def row_of(tenant: str, state: State) -> dict[str, Any]:
    """Return the values of ``state`` of ``tenant``, by the names of the fields."""
    second, nanosecond = divmod(state.updated_at.earliest, NANOSECONDS)
    expires = state.expires_at
    return {
        "id": state.id,
        "tenant": tenant,
        "parent": state.parent,
        "flow": state.flow,
        "flow_version": state.flow_version,
        "is_done": state.is_done,
        "current_map_element": state.current_map_element,
        "current_user": state.current_user,
        "created_at": state.created_at.text,
        "updated_at": state.updated_at.text,
        "updated_second": second,
        "updated_nanosecond": nanosecond,
        "expires_at": expires.text if expires else None,
        "expires_second": expires.nanoseconds // NANOSECONDS if expires else None,
        **content_of(state),
    }


def content_of(state: State) -> dict[str, Any]:
    """Return the values of the content of ``state``, by the names of the fields."""
    text = state.content.text
    return {
        "content": text,
        "content_crc32": zlib.crc32(text.encode("utf-8")),
        "sealing_key": state.content.sealing_key,
    }


def replacement_of(tenant: str, old: State, new: State) -> dict[str, Any]:
    """Return the values that replace ``old``'s content by ``new``'s, and those that identify the old row."""
    row = row_of(tenant, old)
    names = ("tenant", "id", "updated_second", "updated_nanosecond")
    return {name: row[name] for name in names} | {"crc32_before": row["content_crc32"], **content_of(new)}


def _check(content: str, crc32: int | None) -> None:
    if crc32 is not None and zlib.crc32(content.encode("utf-8")) != crc32:
        raise ValueError("the content is not what was saved")


def state_of(row: Row) -> State:
    """Return the State in ``row`` (FIELDS); raises StoreDamaged when the row holds none.

    A row adopted from the Java service has no ``content_crc32``, so its content is not checked.
    """
    (
        id,
        tenant,
        parent,
        flow,
        flow_version,
        is_done,
        element,
        user,
        created,
        updated,
        nanosecond,
        expires,
        content,
        crc32,
        sealing_key,
    ) = row
    try:
        _check(content, crc32)
        return State(
            id,
            tenant,
            parent,
            flow,
            flow_version,
            bool(is_done),
            element,
            user,
            Instant.parse(created),
            _updated_at(updated, nanosecond),
            Instant.parse(expires) if expires else None,
            Content(content, sealing_key and str(sealing_key)),
        )
    except (AttributeError, TypeError, ValueError) as cause:
        raise StoreDamaged(f"state {id!s:.36} cannot be read back") from cause


def summary_of(row: Row) -> Summary:
    """Return the Summary in ``row`` (ids, times, the size, the sealing key); raises StoreDamaged."""
    tenant, id, updated, nanosecond, expires, size, sealing_key = row
    try:
        instants = _updated_at(updated, nanosecond), Instant.parse(expires) if expires else None
        return Summary(tenant, id, *instants, size, sealing_key and str(sealing_key))
    except (AttributeError, TypeError, ValueError) as cause:
        raise StoreDamaged(f"state {id!s:.36} cannot be read back") from cause


def _updated_at(text: str, nanosecond: int) -> Instant:
    """Return the instant of ``text``; rounded if ``nanosecond`` is that of an earlier time (see above)."""
    instant = Instant.parse(text)
    rounded = (instant.nanoseconds - nanosecond) % NANOSECONDS
    return Instant(text, instant.nanoseconds, rounded) if 0 < rounded <= _MOST_ROUNDED else instant
