"""Defects of how changes are committed, in each kind of store."""

import contextlib
import os
import random

from receiver.idempotency import Effect
from receiver.problems import StoreUnavailable
from receiver.stores.filesystem import changes
from receiver.stores.group_commit import GroupCommit
from receiver.stores.sql import SqlStore
from receiver.stores.sqlite import SqliteStore
from tests.chaos.defects import defect


@defect(
    "lost-wake-up",
    "the group commit now and then forgets to wake one of those who wait",
    "none",
    "sqlite",
    {"in time", "converges", "refused"},
    seconds=20,
)
def _lost_wake_up() -> None:
    honest = GroupCommit._lead

    class Deaf:
        """A turn that nobody gives."""

        def __init__(self, turn):
            self.turn = turn

        def acquire(self, *args, **named):
            return self.turn.acquire(*args, **named)

        def release(self):
            """Forget to."""

    def lead(self, mine, deadline):
        with self._guard:
            for entry in self._queue:
                if entry is not mine and not entry.leads and random.random() < 0.3:
                    entry.turn = Deaf(entry.turn)
        honest(self, mine, deadline)

    GroupCommit._lead = lead


@defect(
    "failed-commit-is-success",
    "an error of the commit is swallowed: 204",
    "database-kill",
    "postgresql",
    {"lost", "stale"},
    seconds=20,
)
def _failed_commit_is_success() -> None:
    honest = SqlStore._change

    def change(self, work, receipt):
        try:
            return honest(self, work, receipt)
        except StoreUnavailable:
            return Effect(1, 0, "new")

    SqlStore._change = change


@defect(
    "deletes-half",
    "a delete of several states deletes all but the last",
    "none",
    "postgresql",
    {"resurrected", "stale"},
)
def _deletes_half() -> None:
    honest = SqlStore.delete

    def delete(self, tenant, ids, receipt):
        return honest(self, tenant, ids[:-1] if len(ids) > 1 else ids, receipt)

    SqlStore.delete = delete


@defect(
    "receipt-before-the-change",
    "the record of a request is committed before its change, in another transaction",
    "worker-kill",
    "sqlite",
    {"lost", "stale", "resurrected"},
    seconds=30,
)
def _receipt_before_the_change() -> None:
    honest = SqliteStore.save

    def save(self, tenant, states, receipt):
        effect = honest(self, tenant, [], receipt)
        return effect if effect.jti_was == "repeated" else honest(self, tenant, states, None)

    SqliteStore.save = save


@defect(
    "deletes-again",
    "recovery repeats the deletes of a change that was finished long ago",
    "none",
    "file",
    {"lost"},
    seconds=20,
)
def _deletes_again() -> None:
    honest = changes.TenantFolder._finish
    done: dict[str, list[str]] = {}

    def finish(self, record, *more):
        honest(self, record, *more)
        before = done.setdefault(self.tenant, [])
        if before and random.random() < 0.2:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file_of(random.choice(before)))
        before += record["deleted"]

    changes.TenantFolder._finish = finish
