"""The log: fields of its JSON lines, and the messages that the receiver writes."""

import json
import logging
import re

from docs.generate.markdown import described, exactly, table
from docs.generate.package import called, calls_in, field_dicts, texts
from docs.generate.sources import PACKAGE, logs

FIELDS = described("logs", "fields")
EVENTS = described("logs", "events")
_LEVELS = ("debug", "info", "warning", "error", "critical", "exception", "say")


def fields() -> str:
    """Return the table of fields; raises LookupError when the code writes one that is not described."""
    exactly(FIELDS, written_fields(), "FIELDS of logs")
    return table(("field", "in", "meaning"), ((f"`{name}`", *told.values()) for name, told in FIELDS.items()))


def written_fields() -> list[str]:
    """Return every field that a line of JSON can have: of any record, then of those with fields of their own."""
    record = logging.LogRecord("receiver", logging.ERROR, "", 0, "a text", (), (ValueError, ValueError(), None))
    record.request = "an id"
    found = list(json.loads(logs.JsonFormatter().format(record)))
    for one in field_dicts():
        found += [key.value for key in one.keys if key.value not in found]
    return found


def events() -> str:
    """Return the table of messages; raises LookupError when the code writes one that is not described."""
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    indirect = [text for text in EVENTS if all(part in source for part in re.split("%[sg]", text))]
    exactly(EVENTS, dict.fromkeys([*written_messages(), *indirect]), "EVENTS of logs")
    return table(("message", "meaning, and what to do"), ((f"`{_shown(text)}`", told) for text, told in EVENTS.items()))


def written_messages() -> list[str]:
    """Return every message that is written as a text of its own; those of a variable are described as well."""
    found = []
    for call in calls_in():
        if called(call) in _LEVELS and (named := texts(call)) and any(c.isalpha() for c in named[0].replace("%s", "")):
            found.append(named[0])
    return sorted({text for text in found if text != "%s at %s:%d"})


def _shown(text: str) -> str:
    return text.replace("%s", "…").replace("%g", "…")
