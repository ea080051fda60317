"""Describes an answer: in words for people, and as facts by which a known deviation is recognised."""

import json
import re
from dataclasses import dataclass

from receiver.conformance.exchanges import masked
from receiver.mock_platform.client import Answer

_TAG = re.compile(r"<[^>]{0,200}>")
_MOST_MESSAGE, _MOST_TEXT, _MOST_SHOWN = 200, 80, 40  # characters of a message, of another body, of a content


@dataclass(frozen=True)
class Observation:
    """What a failing check observed: the answer's ``status`` (0 for none) and ``body``, and ``what`` it probed with.

    If the check compared contents, ``wanted`` and ``found`` are the two (``found`` is None for a 404).
    """

    status: int = 0
    body: bytes = b""
    what: str = ""
    wanted: str | None = None
    found: str | None = None


def observed(answer: Answer, what: str = "") -> Observation:
    """Return ``answer`` as an Observation."""
    return Observation(answer.status, answer.body[:2000], what)


def described(answer: Answer) -> str:
    """Return "<status> came" and the message of a problem body; describe any other body without quoting it."""
    came = f"{answer.status} came"
    if not answer.body:
        return came if answer.status == 204 else f"{came}, without a body"
    try:
        value = answer.json
    except (ValueError, RecursionError):
        return f"{came} with {len(answer.body):,} bytes of {_kind(answer)}: {_text(answer.body)}"
    message = value.get("message") if isinstance(value, dict) else None
    if isinstance(message, str):
        return f"{came}: {_one_line(message)[:_MOST_MESSAGE]}"
    return f"{came} with {_json_kind(value)}"


def _kind(answer: Answer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip() or "no declared type"


def _text(body: bytes) -> str:
    return _one_line(_TAG.sub(" ", body[:2000].decode("utf-8", "replace")))[:_MOST_TEXT]


def _one_line(text: str) -> str:
    return " ".join(masked(text).split())


def _json_kind(value: object) -> str:
    if isinstance(value, dict):
        names = ", ".join(_one_line(name)[:_MOST_SHOWN] for name in list(value)[:8])
        return f"a JSON object of {names}" if names else "an empty JSON object"
    kinds = {list: "a JSON array", str: "a JSON string", bool: "a JSON boolean", type(None): "null"}
    return kinds.get(type(value), "a JSON number")


def same_meaning(one: str, other: str) -> bool:
    """Return whether two contents are the same JSON value.

    The order of members, spaces, duplicate members and the spelling of numbers do not count, as they do not in a
    database column of type jsonb. Contents that are not JSON are compared as text.
    """
    if one == other:
        return True
    try:
        return _canonical(one) == _canonical(other)
    except (ValueError, RecursionError):
        return False


def _canonical(text: str) -> str:
    # Serialized again, because 1.0 == True in Python; + 0.0 in _number, because -0 is a spelling of 0.
    value = json.loads(text, parse_int=_number, parse_float=_number)
    return json.dumps(value, sort_keys=True)


def _number(text: str) -> float:
    return float(text) + 0.0


def shown(content: str | None) -> str:
    """Return how a report shows a content: a short one as it is, a longer one by its size, None as "404"."""
    if content is None:
        return "404"
    if len(content) <= _MOST_SHOWN:
        return json.dumps(content)
    return f"a content of {len(content):,} characters"


def difference(expected: str, found: str | None) -> str:
    """Return in words where two contents begin to differ; "" for short ones, which reports show whole."""
    if not found or len(expected) <= _MOST_SHOWN:
        return ""
    place = next((n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), None)
    return f", different from character {min(len(expected), len(found)) if place is None else place} on"
