"""Live runs of a declared flow, with a real clock and several users from several regions.

A run can be resumed from its content alone, as the platform does when only a store has it.
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
    """A tenant's flow: its ``name``, ``id``, ``version`` and map ``elements`` (id → name) in order."""

    name: str
    id: str
    version: str
    elements: dict[str, str] = field(repr=False)

    @classmethod
    def named(cls, tenant: str, name: str) -> "Flow":
        """Return the flow ``name`` of ``tenant``, always with the same ids."""
        id, version, *elements = (
            str(uuid.uuid5(_NAMESPACE, f"{tenant}/{name}/{part}")) for part in ("id", "version", *ELEMENTS)
        )
        return cls(name, id, version, dict(zip(elements, ELEMENTS, strict=True)))


class NotARun(ValueError):
    """A content that does not belong to a run of a known flow."""


class LiveRun(FlowRun):
    """A run of ``flow``. Each change uses the acting user and the UTC offset of their region."""

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
        """Return the run of one of ``flows`` (by id) that ``content`` describes; raises NotARun."""
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
            raise NotARun(f"the content does not belong to a run of a known flow ({type(cause).__name__})") from None
        return run

    def act(self, actor: str | None, offset_hours: int) -> None:
        """Set who makes the next change (None: the user who started the run) and the UTC offset of their region."""
        self.actor = actor
        self.offset_hours = offset_hours

    def step(self) -> None:
        """Fill in a page as the acting user and go to another one, but not to the last."""
        self._go_to(self.random.choice(list(self.elements)[:-1]))
        self.values[self._id()] = self._words(3, 12)

    def join(self, region: str) -> None:
        """Add the acting user, from ``region``; the page stays the same."""
        self.joined[self.actor or self.user] = region
        self._go_to(self.current)

    def vote(self, outcome: str) -> None:
        """Vote as the acting user; a second vote replaces the first."""
        self._go_to(next(id for id, name in self.elements.items() if name == "Vote"))
        voter = self.actor or self.user
        others = [vote for vote in self.votes if vote["userId"] != voter]
        self.votes = [*others, {"userId": voter, "outcome": outcome, "dateVoted": self.updated_at}]

    def finish(self) -> None:
        """Go to the last page."""
        self._go_to(list(self.elements)[-1])

    def expire(self) -> None:
        """Expire the run now."""
        self._go_to(self.current)
        self.expires_at = self.updated_at

    def grow(self, size: int) -> None:
        """Add a list value, like a service's result, until the content has about ``size`` bytes."""
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
        # The clock has microseconds; the platform writes one more digit.
        return ticks(self.moment, self.moment.microsecond * 10 + self.random.randrange(10), self.offset_hours)

    def _interaction(self) -> JSONObject:
        return super()._interaction() | {"manywhoUserId": self.actor or self.user}

    def document(self) -> JSONObject:
        """Return the content before serialization, with votes, joined users and an expiry if there are any."""
        more = {"votes": self.votes, "joinedUsers": self.joined, "dateExpired": self.expires_at}
        return super().document() | {name: value for name, value in more.items() if value}

    def state(self) -> JSONObject:
        """Return the claims of protocol, section 5.4, for the current run."""
        return super().state() | {"currentUser": self.actor or self.user, "expiresAt": self.expires_at}
