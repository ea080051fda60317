"""Moves the states that the platform holds into a store, in batches. An interrupted migration can be resumed.

Each state records the updatedAt that a store has acknowledged. So no state moves twice, even after an interruption,
and a state that has changed since moves again. If the tenant keeps its states in the store only, the platform drops its
copy after the store has acknowledged it.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from receiver.mock_platform.delivery import StoreChannel, Undelivered
from receiver.mock_platform.model import Mode, Store, Tenant
from receiver.mock_platform.platform import Held, Platform

_MOST_BYTES = 8 << 20  # of content in a batch, well under what a receiver takes in one request
_running = threading.Lock()


@dataclass
class Report:
    """The result of a migration. ``failed`` maps a state's id to the reason; ``stopped`` says why it ended early."""

    store: str
    held: int = 0
    moved: int = 0
    already_there: int = 0
    batches: int = 0
    remaining: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return the report as the call's JSON."""
        return {{"already_there": "alreadyThere"}.get(name, name): value for name, value in asdict(self).items()}


def migrate(platform: Platform, tenant: Tenant, store: Store, batch_size: int, batches: int | None = None) -> Report:
    """Move all states that the platform holds for ``tenant`` into ``store``, in at most ``batches``; return the Report.

    If the store refuses a batch, its states are sent one by one, so that a bad state does not hold the others back. If
    the store does not answer, the migration ends and can be resumed.
    """
    with _running:  # two migrations at once would move states twice
        return _Migration(platform, tenant, store).run(batch_size, batches)


class _Migration:
    def __init__(self, platform: Platform, tenant: Tenant, store: Store) -> None:
        self.platform, self.tenant, self.store = platform, tenant, store
        self.channel: StoreChannel = platform.channel(store.id, tenant.id)
        self.report = Report(store.name)

    def run(self, batch_size: int, batches: int | None) -> Report:
        report = self.report
        waiting = self._waiting()
        try:
            for batch in _batches(waiting, batch_size):
                if batches is not None and report.batches >= batches:
                    report.stopped = f"after {batches} batches, as asked"
                    break
                self._move(batch)
                report.batches += 1
        except Undelivered as cause:
            report.stopped = str(cause)
        report.remaining = len(waiting) - report.moved - len(report.failed)
        return report

    def _waiting(self) -> list[Held]:
        found = [held for id in self.platform.held.ids(self.tenant.id) if (held := self._held(id))]
        waiting = [held for held in found if held.stored.get(self.store.id) != held.state["updatedAt"]]
        self.report.held, self.report.already_there = len(found), len(found) - len(waiting)
        for held in found:
            self._release(held)  # acknowledged earlier, in another mode: only drop the platform's copy
        return waiting

    def _held(self, id: str) -> Held | None:
        return self.platform.held.find(self.tenant.id, id)

    def _move(self, batch: Sequence[Held]) -> None:
        try:
            self.channel.save([held.state for held in batch])
        except Undelivered as cause:
            if cause.status is None or cause.status == 401:
                raise
            if len(batch) == 1:
                self.report.failed[batch[0].state["id"]] = str(cause)
                return
            for held in batch:
                self._move([held])
            return
        for held in batch:
            held.stored[self.store.id] = held.state["updatedAt"]
            self.report.moved += 1
            self._release(held)

    def _release(self, held: Held) -> None:
        at_home = self.tenant.storage
        if at_home.mode is Mode.EXTERNAL and at_home.global_store_id == self.store.id:
            state = held.state
            if held.stored.get(self.store.id) == state["updatedAt"]:
                self.platform.held.drop(state["tenant"], state["id"], unless_newer_than=state["updatedAt"])


def _batches(waiting: Sequence[Held], size: int) -> Iterator[list[Held]]:
    """Yield ``waiting`` in batches of ``size``, or smaller ones if the contents are large."""
    batch: list[Held] = []
    weight = 0
    for held in waiting:
        more = len(held.state["content"].encode("utf-8", "surrogatepass"))
        if batch and (len(batch) == size or weight + more > _MOST_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(held)
        weight += more
    if batch:
        yield batch
