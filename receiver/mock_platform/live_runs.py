"""Runs that go on while one watches: of a declared flow, at a clock's time, by several users from several regions.

A run can be taken up again from its content alone, as the platform does when a store keeps it.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from receiver.mock_platform.flow_states import ELEMENTS, FlowRun, ticks
from receiver.mock_platform.json_values import JSONObject

Clock = Callable[[], datetime]

_LEAST_STEP = timedelta(microseconds=1)
_NAMESPACE = uuid.UUID("5f0a3c86-6f55-4d6e-9d53-6f1f7a4d8a11")


@dataclass(frozen=True)
class Flow:
    """A flow of a tenant: its ``name``, ``id``, ``version`` and map ``elements`` (id → name), in their order."""

    name: str
    id: str
    version: str
    elements: dict[str, str] = field(repr=False)

    @classmethod
    def named(cls, tenant: str, name: str) -> "Flow":
        """Return the flow called ``name`` of ``tenant``; the same ids each time."""
        id, version, *elements = (
            str(uuid.uuid5(_NAMESPACE, f"{tenant}/{name}/{part}")) for part in ("id", "version", *ELEMENTS)
        )
        return cls(name, id, version, dict(zip(elements, ELEMENTS, strict=True)))


class NotARun(ValueError):
    """A content that is not that of a run of this flow."""


class LiveRun(FlowRun):
    """A run of ``flow``. Every change takes the acting user and the offset that their region writes times with."""

    def __init__(self, tenant: str, flow: Flow, seed: int, clock: Clock, offset_hours: int = 0) -> None:
        self.declared, self.clock, self.offset_hours = flow, clock, offset_hours
        self.actor: str | None = None
        self.expires_at: str | None = None
        self.votes: list[JSONObject] = []
        self.joined: dict[str, str] = {}
        super().__init__(tenant, seed)

    def _begin(self) -> None:
        self.flow, self.flow_version, self.elements = self.declared.id, self.declared.version, self.declared.elements
        self.moment = self.clock()

    @classmethod
    def resumed(cls, tenant: str, flows: Mapping[str, Flow], content: str, seed: int, clock: Clock) -> "LiveRun":
        """Return the run of one of ``flows`` (by id) that ``content`` tells; raises NotARun."""
        try:
            document = json.loads(content)
            run = cls(tenant, flows[document["log"]["flowId"]], seed, clock)
            run.id, run.user = document["compositeId"]["guid"], document["userCreated"]
            run.created_at, run.updated_at = document["dateCreated"], document["dateModified"]
            run.entries, run.values = document["stateEntries"], document["valueElementValues"]
            run.votes, run.joined = document.get("votes", []), document.get("joinedUsers", {})
            run.expires_at = document.get("dateExpired")
            run.current = run.entries[-1]["mapElementId"]["guid"]
            run.moment = datetime.fromisoformat(run.updated_at)
            run.elements[run.current]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as cause:
            raise NotARun(f"the content is not that of a run of a known flow ({type(cause).__name__})") from None
        return run

    def act(self, actor: str | None, offset_hours: int) -> None:
        """Let ``actor`` (the user that began, if None) do what comes next, at the offset of their region."""
        self.actor = actor
        self.offset_hours = offset_hours

    def step(self) -> None:
        """Let the acting user fill in a page and go on to another one, but not to the last."""
        self._go_to(self.random.choice(list(self.elements)[:-1]))
        self.values[self._id()] = self._words(3, 12)

    def join(self, region: str) -> None:
        """Let the acting user come in from ``region``; the page stays where it is."""
        self.joined[self.actor or self.user] = region
        self._go_to(self.current)

    def vote(self, outcome: str) -> None:
        """Let the acting user vote; a second vote of theirs replaces the first."""
        self._go_to(next(id for id, name in self.elements.items() if name == "Vote"))
        voter = self.actor or self.user
        others = [vote for vote in self.votes if vote["userId"] != voter]
        self.votes = [*others, {"userId": voter, "outcome": outcome, "dateVoted": self.updated_at}]

    def finish(self) -> None:
        """Go to the last page."""
        self._go_to(list(self.elements)[-1])

    def expire(self) -> None:
        """Let the run be of no use from now on."""
        self._go_to(self.current)
        self.expires_at = self.updated_at

    def grow(self, size: int) -> None:
        """Add a list value, as a service would return it, until the content has about ``size`` bytes."""
        missing = size - len(self.content().encode())
        rows: list[JSONObject] = []
        while missing > 0:
            row = {"externalId": self._id(), "developerName": "Row", "order": len(rows), "properties": self._cells()}
            missing -= len(json.dumps(row, ensure_ascii=False).encode()) + 2
            rows.append(row)
        if rows:
            self.values[self._id()] = rows

    def _cells(self) -> list[JSONObject]:
        return [{"developerName": name, "contentValue": self._words(1, 9)} for name in ("Title", "Text", "Remark")]

    def _go_to(self, element: str) -> None:
        self.moment = max(self.clock(), self.moment + _LEAST_STEP)
        self.updated_at = self._now()
        self.current = element
        self.entries.append(self._entry())

    def _now(self) -> str:
        # The clock gives microseconds, the platform writes a digit more.
        return ticks(self.moment, self.moment.microsecond * 10 + self.random.randrange(10), self.offset_hours)

    def _interaction(self) -> JSONObject:
        return super()._interaction() | {"manywhoUserId": self.actor or self.user}

    def document(self) -> JSONObject:
        """Return what the content holds; votes, joined users and an expiry only where there are any."""
        more = {"votes": self.votes, "joinedUsers": self.joined, "dateExpired": self.expires_at}
        return super().document() | {name: value for name, value in more.items() if value}

    def state(self) -> JSONObject:
        """Return the claims of protocol, section 5.4, for the run as it is now."""
        return super().state() | {"currentUser": self.actor or self.user, "expiresAt": self.expires_at}
