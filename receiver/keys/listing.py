"""What is known of each key, for people and programs; no key material."""

from collections.abc import Callable
from typing import Any, NamedTuple

from receiver.keys.keyring import Keyring
from receiver.keys.usage import Uses

_UNITS = {"d": 86400, "h": 3600, "min": 60}


class _Known(NamedTuple):
    role: str
    kid: str
    tenants: frozenset[str] | None
    made: int | None
    thumbprint: str | None
    source: str


def key_rows(ring: Keyring, uses: Uses | None, time_text: Callable[[int | None], str | None]) -> list[dict[str, Any]]:
    """Return a row for each key in ``ring``, sorted by role and kid; ``time_text`` formats its times.

    ``uses`` holds when each key was last used: (role, kid in lower case) → seconds since the epoch. Without it, no row
    has "lastUsedAt".
    """
    known = [_Known(key.role, key.kid, key.tenants, key.made, key.thumbprint, key.source) for key in ring]
    known += [_Known("sealing", key.kid, None, key.issued or None, None, key.source) for key in ring.sealing]
    return [
        {
            "role": key.role,
            "kid": key.kid,
            "tenants": sorted(key.tenants) if key.tenants else None,
            "madeAt": time_text(key.made),
            **({} if uses is None else {"lastUsedAt": time_text(uses.get((key.role, key.kid.lower())))}),
            "thumbprint": key.thumbprint,
            "protected": key.source in ring.protected,
            "from": key.source,
        }
        for key in sorted(known, key=lambda key: key[:2])
    ]


def ago(moment: int | None, now: float) -> str:
    """Return how long before ``now`` the ``moment`` was, in days, hours or minutes; "-" if it is unknown."""
    if moment is None:
        return "-"
    seconds = max(0, int(now) - moment)
    unit = next((unit for unit in _UNITS if seconds >= _UNITS[unit]), "min")
    return f"{seconds // _UNITS[unit]} {unit}"
