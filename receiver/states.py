"""State: a frozen value with its identity, its times and its content (protocol, section 5)."""

import re
from dataclasses import dataclass
from datetime import date

NANOSECONDS = 1_000_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
# Seconds since 1970. An expiry before year 2 means never: .NET's unset time is 0001-01-01T00:00:00, with any offset.
EXPIRY_FROM = (date(2, 1, 1).toordinal() - _EPOCH_DAY) * 24 * 3600
_ISO_8601 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:Z|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Instant:
    """A point in time: the ISO 8601 ``text`` that the platform sent, and its value.

    ``nanoseconds`` is an int, UTC, since 1970-01-01T00:00:00Z. Instants are compared by that number. It
    has no bounds: years 1 to 9999 do not fit into 64 bits of nanoseconds.

    ``rounded`` marks a time that the Java service's database rounded: the platform's own may be that many nanoseconds
    earlier. "Newer wins" compares ``earliest``, so the platform's own time, sent again, counts as equal.
    """

    text: str
    nanoseconds: int
    rounded: int = 0

    @property
    def earliest(self) -> int:
        """The earliest time that this one may stand for, in nanoseconds since 1970, UTC."""
        return self.nanoseconds - self.rounded

    def has_expired(self, now: int) -> bool:
        """Return whether this expiry is before ``now`` (nanoseconds since 1970, UTC); one in year 1 means never."""
        return EXPIRY_FROM * NANOSECONDS <= self.nanoseconds < now

    @classmethod
    def parse(cls, text: str) -> "Instant":
        """Return the instant of ``text``, extended ISO 8601 with an offset and up to 9 fraction digits.

        Raises ValueError for any other spelling, and for a date or time that does not exist. Leap seconds count as
        such: the platform's clock has none.
        """
        match = _ISO_8601.fullmatch(text)
        if match is None:
            raise ValueError("not an ISO 8601 time with an offset")
        year, month, day, hour, minute, second, fraction, sign, off_hours, off_minutes = match.groups()
        if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
            raise ValueError("no such time of day")
        offset = 60 * int(off_hours or 0) + int(off_minutes or 0)
        if int(off_minutes or 0) > 59 or offset > 18 * 60:
            raise ValueError("no such offset")
        if sign == "-":
            offset = -offset
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
        seconds = ((days * 24 + int(hour)) * 60 + int(minute) - offset) * 60 + int(second or 0)
        return cls(text, seconds * NANOSECONDS + int((fraction or "").ljust(9, "0")))


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """The content of a state: ``text`` as the platform sent it, or sealed by the key with the kid ``sealing_key``.

    str(), repr() and format() show only its length, so that no log can hold a content.
    """

    text: str
    sealing_key: str | None = None

    @property
    def size(self) -> int:
        """The size of ``text`` in UTF-8, in bytes."""
        return len(self.text) if self.text.isascii() else len(self.text.encode("utf-8"))

    def __repr__(self) -> str:
        return f"<{'sealed ' if self.sealing_key else ''}content of {len(self.text)} characters>"


@dataclass(frozen=True, slots=True)
class State:
    """One saved state of a flow. Ids are UUIDs in lower case."""

    id: str
    tenant: str
    parent: str | None
    flow: str
    flow_version: str
    is_done: bool
    current_map_element: str | None
    current_user: str | None
    created_at: Instant
    updated_at: Instant
    expires_at: Instant | None
    content: Content


def metadata_of(state: State) -> dict[str, object]:
    """Return every field of ``state`` but its content, by the names of the wire contract and in its order."""
    return {
        "id": state.id,
        "tenant": state.tenant,
        "parent": state.parent,
        "flow": state.flow,
        "flowVersion": state.flow_version,
        "isDone": state.is_done,
        "currentMapElement": state.current_map_element,
        "currentUser": state.current_user,
        "createdAt": state.created_at.text,
        "updatedAt": state.updated_at.text,
        "expiresAt": state.expires_at.text if state.expires_at else None,
    }


@dataclass(frozen=True, slots=True)
class Summary:
    """A stored state without its content.

    ``size`` is that of the content as it is stored, in bytes of UTF-8. ``sealing_key`` is the kid of the key that
    sealed it, or None for one in the clear.
    """

    tenant: str
    id: str
    updated_at: Instant
    expires_at: Instant | None
    size: int
    sealing_key: str | None = None


def key_of(one: State | Summary) -> tuple[str, str]:
    """Return (tenant, id): the key of every store, and the order in which it is walked."""
    return one.tenant, one.id
