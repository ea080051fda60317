"""What each of the store's files may hold: a right checksum only proves that somebody wrote it.

Ids become paths: one that is no UUID could lead to another tenant's files.
"""

import re
from collections.abc import Callable
from typing import Any

UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TOKEN = re.compile("[0-9a-f]{16}")
_CRC32 = re.compile("[0-9a-f]{8}")
_DIGEST = re.compile("(?:[0-9a-f]{2})*")
_WORD = re.compile("[!-~]{1,100}")  # a role, or the id of a key
_OPTIONAL = ("parent", "currentMapElement", "currentUser")
_RECORD = {"token", "states", "deleted", "receipts"}
_RECEIPT = {"jti", "method", "digest", "expires"}


# What a line of JSON holds, before and after its shape was checked: as loose as JSON itself.
Fields = dict[str, Any]


def is_uuid(value: object) -> bool:
    """Return whether ``value`` is a UUID in lower case, and so cannot be a path."""
    return isinstance(value, str) and UUID.fullmatch(value) is not None


def is_record(fields: Fields) -> bool:
    """Return whether ``fields`` are the record of a change: its token, states by id, deleted ids, receipts."""
    if fields.keys() != _RECORD or not _is(_TOKEN, fields["token"]):
        return False
    states, deleted, receipts = fields["states"], fields["deleted"], fields["receipts"]
    return (
        isinstance(states, dict)
        and all(is_uuid(id) and _is_count(crc32) for id, crc32 in states.items())
        and isinstance(deleted, list)
        and all(map(is_uuid, deleted))
        and states.keys().isdisjoint(deleted)
        and isinstance(receipts, list)
        and all(map(_is_receipt, receipts))
    )


def _is_receipt(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == _RECEIPT
        and isinstance(value["jti"], str)
        and isinstance(value["method"], str)
        and _is(_DIGEST, value["digest"])
        and type(value["expires"]) is int
    )


def is_header(fields: Fields) -> bool:
    """Return whether ``fields`` are those of a state: of the right types, with UUIDs for ids.

    Its own id and tenant, and the syntax of times, are checked elsewhere. Raises KeyError for a missing field.
    """
    return (
        is_uuid(fields["flow"])
        and is_uuid(fields["flowVersion"])
        and all(
            fields[name] is None or is_uuid(fields[name]) for name in ("parent", "currentMapElement", "currentUser")
        )
        and isinstance(fields["isDone"], bool)
        and isinstance(fields["createdAt"], str)
        and isinstance(fields["updatedAt"], str)
        and isinstance(fields["expiresAt"], str | None)
        and _is_count(fields["contentBytes"])
        and _is(_CRC32, fields["contentCrc32"])
        and ("sealingKey" not in fields or _is(_WORD, fields["sealingKey"]))
    )


def are_uses(fields: Fields) -> bool:
    """Return whether ``fields`` say when keys were used: role → key id → seconds since the epoch."""
    return all(
        _is(_WORD, role)
        and isinstance(kids, dict)
        and all(_is(_WORD, kid) and _is_count(used) for kid, used in kids.items())
        for role, kids in fields.items()
    )


def _is(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def only(fields: Fields, is_right: Callable[[Fields], bool]) -> Fields:
    """Return ``fields``; raises ValueError unless ``is_right`` accepts them."""
    if not is_right(fields):
        raise ValueError("not of the right shape")
    return fields
