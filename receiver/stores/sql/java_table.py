"""The Java service's table ``states``, as its migrations made it on each engine."""

from collections.abc import Mapping
from dataclasses import dataclass

IDS = ("id", "tenant_id", "parent_id", "flow_id", "flow_version_id", "current_map_element_id", "current_user_id")
TIMES = ("created_at", "updated_at", "expires_at")
COLUMNS = (*IDS, *TIMES, "is_done", "content")
NULLABLE = ("parent_id", "current_map_element_id", "current_user_id", "expires_at")
_NIL = "00000000-0000-0000-0000-000000000000"
_DIGITS = {"postgresql": 6, "mysql": 0, "sqlserver": 7}  # of a second's fraction, where the type names none
_SECOND = 1_000_000_000  # nanoseconds
_SENT = 7  # digits that the platform sends
# Fails while a state is sealed, which the Java service could not open: `receiver store reseal --open` comes first.
IN_THE_CLEAR = "alter table states add constraint states_in_the_clear check (sealing_key is null)"


@dataclass(frozen=True)
class JavaTable:
    """Its columns' types, as the engine ``kind`` writes them; its primary ``key``; which columns take no null."""

    kind: str
    types: Mapping[str, str]
    key: str
    not_null: frozenset[str] = frozenset()

    def digits(self, name: str) -> int:
        """Return how many digits of a second's fraction the column ``name`` holds."""
        _, opened, rest = self.types[name].partition("(")
        return int(rest.partition(")")[0]) if opened else _DIGITS[self.kind]

    @property
    def rounded(self) -> int:
        """The most nanoseconds by which an updatedAt was rounded up: half of the last digit that is kept."""
        digits = self.digits("updated_at")
        return 10 ** (9 - digits) // 2 if digits < _SENT else 0

    def earliest(self, second: str, nanosecond: str) -> tuple[str, str]:
        """Return the expressions ``second`` and ``nanosecond`` of an updatedAt, less the most that it was rounded up.

        The difference to the text of the time marks the row (Instant.rounded).
        """
        if not self.rounded:
            return second, nanosecond
        before = f"{second} - case when {nanosecond} < {self.rounded} then 1 else 0 end"
        return before, f"mod({nanosecond} + {_SECOND - self.rounded}, {_SECOND})"

    def utc(self, name: str) -> str:
        """Return the time in PostgreSQL's column ``name`` as one without a zone, which is UTC."""
        return f"({name} at time zone 'UTC')" if "WITH TIME ZONE" in self.types[name] else name

    def is_binary(self, name: str) -> bool:
        """Return whether the ids in the column ``name`` are 16 bytes."""
        return self.types[name].upper().startswith(("BINARY", "VARBINARY"))

    def nil(self, name: str) -> str:
        """Return the literal of a UUID of zeros for the column ``name``."""
        return "unhex(repeat('0', 32))" if self.is_binary(name) else f"'{_NIL}'"
