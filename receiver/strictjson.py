"""JSON as RFC 8259 has it, where the standard library is more liberal (protocol, section 7.2).

Two parsers that read one text differently make a check that can be bypassed. So a text with two readings (a member
twice, ``NaN``, another character set) is refused here, for all callers. So is a byte order mark, which the readers of
files and bodies take off first.
"""

import json
from typing import NoReturn

import orjson

_BEGINNING = 64  # bytes


class NotJson(ValueError):
    """The bytes are not one unambiguous JSON text."""


class MemberTwice(NotJson):
    """An object holds a member twice."""


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MemberTwice("a member occurs twice")
    return members


def _constant(_name: str) -> NoReturn:
    raise NotJson("NaN and Infinity are not JSON")


def loads(data: bytes | bytearray) -> object:
    """Return the value of ``data``, one JSON text in UTF-8.

    Raises NotJson for anything else, also for a text that is too deep or holds a number too long to read.
    """
    # orjson is quick, but accepts a member twice. A text that it would write in the very same bytes has none; compact
    # tokens are of that kind. Any other text, which mostly shows by its first space, goes to the strict parser.
    if b'": ' not in data[:_BEGINNING]:
        try:
            value: object = orjson.loads(data)
            same = orjson.dumps(value) == data
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - it refuses more than we do, and writes less deep than it reads
            same = False
        if same:
            return value
    try:
        parsed: object = json.loads(data.decode("utf-8"), object_pairs_hook=_members, parse_constant=_constant)
    except (NotJson, MemoryError):
        raise
    except Exception as cause:  # noqa: BLE001 - whatever it stumbles over is no JSON
        # A JSONDecodeError carries the document with it: drop it, and say only what kind of fault it was.
        raise NotJson(type(cause).__name__) from None
    return parsed


def dumps(value: object) -> bytes:
    """Return ``value`` as JSON in UTF-8, without spaces."""
    return orjson.dumps(value)
