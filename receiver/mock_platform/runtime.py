"""Runs flows: users start, step, join, vote and finish, and the state goes where the tenant keeps its states.

As on the platform, only one call at a time changes a state; calls for different states do not wait for each other.
"""

import random
import threading
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from receiver.mock_platform import sizes
from receiver.mock_platform.delivery import StoreChannel, Undelivered
from receiver.mock_platform.json_values import JSONObject
from receiver.mock_platform.live_runs import LiveRun, NotARun
from receiver.mock_platform.model import Mode, Refusal, Tenant
from receiver.mock_platform.platform import Platform
from receiver.mock_platform.regions import Region, nearest

ACTIONS = ("step", "join", "vote", "finish", "expire")
_REMEMBERED = 5_000  # runs that the page may show
_T = TypeVar("_T")


@dataclass(frozen=True)
class Visitor:
    """The caller: a ``user`` (None: the one who started the run) in a ``country``."""

    country: str
    user: str | None = None

    @property
    def region(self) -> Region:
        """The region that serves the visitor."""
        return nearest(self.country)


class Runtime:
    """The runs of all tenants of ``platform``."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.chance = random.Random(platform.seed())  # noqa: S311 - made-up data, not a secret
        self._locks = [threading.Lock() for _ in range(256)]
        self._known: OrderedDict[tuple[str, str], JSONObject] = OrderedDict()
        self._known_lock = threading.Lock()

    def start(
        self, tenant: Tenant, flow: str, visitor: Visitor, size: int | None = None, drawn: bool = False
    ) -> JSONObject:
        """Start a run of the flow ``flow`` and save its first state; raises Refusal.

        The content has about ``size`` bytes, or a size drawn from the distribution of sizes if ``drawn``.
        """
        declared = tenant.flow(flow)
        tenant.check_access(flow, visitor.region, visitor.country)
        run = LiveRun(tenant.id, declared, self.platform.seed(), self.platform.clock, visitor.region.offset_hours)
        run.user = visitor.user or run.user
        run.grow(sizes.draw(self.chance) if drawn else size or 0)
        with self._lock_of(run.id):
            return self._keep(tenant, run, visitor)

    def act(self, tenant: Tenant, id: str, action: str, visitor: Visitor, outcome: str = "yes") -> JSONObject:
        """Perform one of ACTIONS in the run ``id``; ``outcome`` is for a vote. Raises Refusal."""
        with self._lock_of(id):
            run = self._fetch(tenant, id)
            tenant.check_access(run.declared.name, visitor.region, visitor.country)
            if run.expires_at is not None:
                raise Refusal(410, "the run has expired")
            if run.is_done:
                raise Refusal(409, "the run is finished")
            run.act(visitor.user, visitor.region.offset_hours)
            arguments = {"join": (visitor.region.code,), "vote": (outcome,)}.get(action, ())
            getattr(run, action)(*arguments)
            return self._keep(tenant, run, visitor)

    def look(self, tenant: Tenant, id: str) -> JSONObject:
        """Return what is known about the run ``id``, read from where its state is kept; raises Refusal."""
        with self._lock_of(id):
            run = self._fetch(tenant, id)
            known = self._remembered(tenant, id)
            return known | _summary(run, len(run.content().encode()))

    def delete(self, tenant: Tenant, id: str) -> None:
        """Delete the state ``id`` wherever it is kept; raises Refusal."""
        with self._lock_of(id):
            if tenant.storage.mode is not Mode.PLATFORM:
                self._delivered(lambda: self._channel(tenant).delete([id]))
            self.platform.held.drop(tenant.id, id)
            with self._known_lock:
                self._known.pop((tenant.id, id), None)

    def latest(self, tenant: Tenant, most: int = 20) -> list[JSONObject]:
        """Return the most recently changed runs, latest first."""
        with self._known_lock:
            found = [known for (owner, _), known in reversed(self._known.items()) if owner == tenant.id]
        return found[:most]

    def regions(self, tenant: Tenant) -> Counter[str]:
        """Return how many of the known runs were last changed from each region."""
        with self._known_lock:
            return Counter(known["region"] for (owner, _), known in self._known.items() if owner == tenant.id)

    def _keep(self, tenant: Tenant, run: LiveRun, visitor: Visitor) -> JSONObject:
        """Save the state where the tenant's settings say, and return a summary."""
        state, mode, behind = run.state(), tenant.storage.mode, ""
        held = self.platform.held
        if mode is Mode.EXTERNAL:
            self._delivered(lambda: self._channel(tenant).save([state]))
            held.drop(tenant.id, run.id)
        else:
            copy = held.put(state)
        if mode is Mode.BOTH:
            try:
                self._channel(tenant).save([state])
                copy.stored[tenant.storage.store_id] = state["updatedAt"]
            except Undelivered as cause:
                behind = str(cause)  # the platform has its copy; the next save or a migration catches up
        return self._remember(tenant, _summary(run, len(state["content"].encode())), visitor, behind)

    def _fetch(self, tenant: Tenant, id: str) -> LiveRun:
        content = self._content(tenant, id)
        flows = {flow.id: flow for flow in tenant.flows.values()}
        try:
            return LiveRun.resumed(tenant.id, flows, content, self.platform.seed(), self.platform.clock)
        except NotARun as cause:
            raise Refusal(502, str(cause)) from None

    def _content(self, tenant: Tenant, id: str) -> str:
        held = self.platform.held.find(tenant.id, id)
        if tenant.storage.mode is Mode.EXTERNAL:
            # A state that has not been migrated yet is still here, and only then is the store without it.
            stored = self._delivered(lambda: self._channel(tenant).load(id))
            if stored is not None:
                return stored
        if held is not None:
            content: str = held.state["content"]
            return content
        if tenant.storage.mode is Mode.BOTH:
            stored = self._delivered(lambda: self._channel(tenant).load(id))
            if stored is not None:
                return stored
        raise Refusal(404, "there is no such state")

    def _channel(self, tenant: Tenant) -> StoreChannel:
        return self.platform.channel(tenant.storage.store_id, tenant.id)

    def _delivered(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except Undelivered as cause:
            raise Refusal(502, str(cause)) from None

    def _lock_of(self, id: str) -> threading.Lock:
        return self._locks[uuid.UUID(id).int % len(self._locks)]

    def _remembered(self, tenant: Tenant, id: str) -> JSONObject:
        with self._known_lock:
            return self._known.get((tenant.id, id), {})

    def _remember(self, tenant: Tenant, summary: JSONObject, visitor: Visitor, behind: str) -> JSONObject:
        storage, region = tenant.storage, visitor.region
        kept = [] if storage.mode is Mode.EXTERNAL else ["platform"]
        if storage.mode is not Mode.PLATFORM and not behind:
            kept.append(self.platform.store(storage.store_id).name)
        summary |= {"region": region.code, "host": region.host, "keptBy": kept} | ({"behind": behind} if behind else {})
        with self._known_lock:
            self._known[tenant.id, summary["stateId"]] = summary
            self._known.move_to_end((tenant.id, summary["stateId"]))
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return summary


def _summary(run: LiveRun, size: int) -> JSONObject:
    return {
        "stateId": run.id,
        "flow": run.declared.name,
        "currentMapElement": run.elements[run.current],
        "isDone": run.is_done,
        "expired": run.expires_at is not None,
        "updatedAt": run.updated_at,
        "users": sorted({run.user, *run.joined}),
        "votes": {vote["userId"]: vote["outcome"] for vote in run.votes},
        "bytes": size,
    }
