"""States as the load writes them: each content is unique, so that what a load returns names the save that wrote it."""

import hashlib
import json
import random
import uuid
from datetime import UTC, datetime, timedelta

from receiver.mock_platform.flow_states import ticks
from receiver.mock_platform.json_values import JSONObject
from tests.chaos.journal import Item

_START = datetime(2026, 1, 5, 8, 30, tzinfo=UTC)
_FLOW, _VERSION, _USER, _ELEMENT = (str(uuid.UUID(int=number)) for number in (100, 101, 102, 103))
# Share up to which a content has so many bytes more than what names it.
SIZES = {
    "small": ((0.93, 0), (0.995, 7_000), (1.0, 500_000)),
    "large": ((0.5, 0), (0.8, 7_000), (0.97, 500_000), (1.0, 3_000_000)),
}
_STEP = 1000  # microseconds between two times of a state; those between are for older saves


def digest_of(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def time_text(updated: int) -> str:
    """Return the time that is ``updated`` microseconds after the first one, as the platform writes it."""
    moment = _START + timedelta(microseconds=updated)
    return ticks(moment, moment.microsecond * 10)


class State:
    """One state of a client: its ``id`` and the newest ``updated`` that the client has sent."""

    def __init__(self, id: str, sizes: str = "small") -> None:
        self.id, self.updated, self.saves, self.sizes = id, 0, 0, SIZES[sizes]

    def next(self, client: int, tenant: str, chance: random.Random, older: bool = False) -> tuple[Item, JSONObject]:
        """Return the next save of it, with a newer time, or with an older one that nothing had before."""
        if older:
            updated = self.updated - _STEP + 1 + self.saves % (_STEP - 1)
        else:
            self.updated += _STEP
            updated = self.updated
        return self._save(updated, client, tenant, chance)

    def refused(self, client: int, tenant: str, chance: random.Random) -> tuple[Item, JSONObject]:
        """Return a save that would win if it were stored; it is to be refused, and its time to be used again."""
        return self._save(self.updated + _STEP // 2, client, tenant, chance)

    def deleted(self) -> Item:
        return Item(self.id)

    def _save(self, updated: int, client: int, tenant: str, chance: random.Random) -> tuple[Item, JSONObject]:
        self.saves += 1
        share = chance.random()
        size = next(size for most, size in self.sizes if share <= most)
        content = json.dumps({"secretOfClient": client, "id": self.id, "save": self.saves} | _filled(size, chance))
        return Item(self.id, updated, digest_of(content)), _claims(self.id, tenant, time_text(updated), content)


def _filled(size: int, chance: random.Random) -> dict:
    return {"more": chance.randbytes(size // 2).hex()} if size else {}


def _claims(id: str, tenant: str, updated: str, content: str) -> JSONObject:
    return {
        "id": id,
        "tenant": tenant,
        "parent": None,
        "flow": _FLOW,
        "flowVersion": _VERSION,
        "isDone": False,
        "currentMapElement": _ELEMENT,
        "currentUser": _USER,
        "createdAt": time_text(0),
        "updatedAt": updated,
        "expiresAt": None,
        "content": content,
    }
