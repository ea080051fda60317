"""Invented runs of a flow: a state whose content looks real and grows with every step.

The seed determines everything, so a run can be repeated. For runs with several users and real times, see live_runs.py.
"""

import json
import random
import uuid
from datetime import UTC, datetime, timedelta, timezone

from receiver.mock_platform.json_values import JSONObject

_START = datetime(2026, 1, 5, 8, 30, tzinfo=UTC)
ELEMENTS = (
    "Welcome",
    "Your details",
    "Upload a document",
    "Check the data",
    "Approval",
    "Vote",
    "Summary",
    "Done",
)
_WORDS = (
    *("claim", "policy", "address", "renewal", "invoice", "approval", "customer", "note", "amount", "due"),
    *("période", "größe", "住所"),
)


def ticks(moment: datetime, fraction: int, offset_hours: int = 1) -> str:
    """Return ``moment`` as the platform writes it: 7 fraction digits (100 ns ``fraction``) and an offset."""
    local = moment.astimezone(timezone(timedelta(hours=offset_hours)))
    return f"{local:%Y-%m-%dT%H:%M:%S}.{fraction:07d}{local:%z}"[:-2] + ":00"


class FlowRun:
    """One user's run through a flow. ``step`` advances it; ``state`` returns what the platform then saves."""

    def __init__(self, tenant: str, seed: int = 0) -> None:
        self.random = random.Random(seed)  # noqa: S311 - made-up data, not a secret
        self.tenant = tenant
        self.id, self.flow, self.flow_version, self.user = (self._id() for _ in range(4))
        self.elements = {self._id(): name for name in ELEMENTS}
        self._begin()
        self.current = next(iter(self.elements))
        self.created_at = self.updated_at = self._now()
        self.entries: list[JSONObject] = []
        self.values: dict[str, object] = {}
        for _ in range(6):
            self.step()

    def _begin(self) -> None:
        self.moment = _START + timedelta(seconds=self.random.randrange(86_400 * 200))

    def _id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _now(self) -> str:
        return ticks(self.moment, self.random.randrange(10_000_000))

    def step(self) -> None:
        """Fill in a page and go to the next one."""
        self.moment += timedelta(seconds=self.random.randrange(2, 240))
        self.updated_at = self._now()
        self.current = self.random.choice(list(self.elements))
        self.values[self._id()] = self._words(3, 12)
        self.entries.append(self._entry())

    def _words(self, least: int, below: int) -> str:
        return " ".join(self.random.choices(_WORDS, k=self.random.randrange(least, below)))

    def _entry(self) -> JSONObject:
        return {
            "guid": self._id(),
            "flowId": {
                "guid": self.flow,
                "versionId": self.flow_version,
                "isVersionless": False,
            },
            "mapElementId": {
                "guid": self.current,
                "typeElementPropertyId": str(uuid.UUID(int=0)),
            },
            "dateCommitted": self.updated_at,
            "userInteractions": [self._interaction() for _ in range(self.random.randrange(1, 3))],
        }

    def _interaction(self) -> JSONObject:
        places = dict.fromkeys(("speed", "heading", "accuracy", "altitude", "latitude", "longitude"), 0)
        return places | {
            "timeStamp": self._now(),
            "manywhoUserId": self.user,
            "altitudeAccuracy": 0,
        }

    def content(self) -> str:
        """Return the current content, as JSON text."""
        return json.dumps(self.document(), ensure_ascii=False)

    def document(self) -> JSONObject:
        """Return the current content, before serialization."""
        return {
            "compositeId": {"guid": self.id, "versionId": str(uuid.UUID(int=0))},
            "isDone": self.is_done,
            "dateCreated": self.created_at,
            "dateModified": self.updated_at,
            "userCreated": self.user,
            "runningUserExternalId": "PUBLIC_USER",
            "currentMapElementDeveloperName": self.elements[self.current],
            "stateEntries": self.entries,
            "valueElementValues": self.values,
            "authorizationContext": {
                self.flow: {"ownerManyWhoUserId": self.user, "ownerExternalUserId": "PUBLIC_USER"}
            },
            "log": {
                "flowId": self.flow,
                "stateId": self.id,
                "tenantId": self.tenant,
                "entries": {},
                "isEnabled": False,
            },
        }

    @property
    def is_done(self) -> bool:
        """Whether the run has reached its last page."""
        return self.elements[self.current] == ELEMENTS[-1]

    def state(self) -> JSONObject:
        """Return the claims of protocol, section 5.4, for the current state."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "parent": None,
            "flow": self.flow,
            "flowVersion": self.flow_version,
            "isDone": self.is_done,
            "currentMapElement": self.current,
            "currentUser": self.user,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "expiresAt": None,
            "content": self.content(),
        }
