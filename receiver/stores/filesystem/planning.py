"""The plan of a group of changes, before any of it is written: each change sees the effect of those before it.

A change is a function that takes the Plan, adds all of itself to it and returns the Effect for its caller. A change
that raises has added nothing, so it does not fail the others.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from receiver.idempotency import Effect, Receipt
from receiver.problems import StoreDamaged
from receiver.states import NANOSECONDS, State
from receiver.stores.filesystem.formats import StateFile
from receiver.stores.filesystem.receipts import Receipts

_log = logging.getLogger("receiver")


class OnDisk(Protocol):
    """What a plan needs of the tenant's folder."""

    receipts: Receipts

    def open(self, id: str) -> StateFile: ...
    def held(self, ids: Iterable[str]) -> list[str]: ...


class Plan:
    """What a group of changes does to ``folder``; made and carried out under the folder's lock.

    ``states`` are the states to store, by id, and ``deleted`` the ids to delete: no id is in both. ``receipts`` are the
    receipts to keep, by jti.
    """

    def __init__(self, folder: OnDisk) -> None:
        self._folder = folder
        self.states: dict[str, State] = {}
        self.deleted: dict[str, None] = {}
        self.receipts: dict[str, Receipt] = {}

    def outcome_of(self, change: "Change") -> Effect | Exception:
        """Return the effect of ``change``, the next one, or the exception that its own caller gets."""
        try:
            return change(self)
        except Exception as cause:  # noqa: BLE001 - its own caller gets it
            return cause

    def known(self, id: str) -> State | None:
        """Return the state ``id`` after the changes so far, perhaps without content; raises StoreDamaged."""
        if id in self.deleted:
            return None
        return self.states.get(id) or stored(self._folder, id)

    def whole(self, id: str) -> State | None:
        """Return the state ``id`` after the changes so far, with its content; raises StoreDamaged."""
        return None if id in self.deleted else self.states.get(id) or stored(self._folder, id, StateFile.whole)

    def held(self, ids: Iterable[str]) -> list[str]:
        """Return those of ``ids`` that have a state after the changes so far, damaged or not; in any order."""
        ids = list(dict.fromkeys(ids))
        elsewhere = self._folder.held(id for id in ids if id not in self.states and id not in self.deleted)
        return [id for id in ids if id in self.states] + elsewhere

    def bind(self, receipt: Receipt | None) -> tuple[str, Receipt | None]:
        """Return what the jti of ``receipt`` was (Effect.jti_was), and ``receipt`` itself if it must be kept.

        Raises ReplayRefused, StoreDamaged.
        """
        if receipt is None:
            return "new", None
        self._folder.receipts.drop_expired(receipt.now)
        earlier = self.receipts.get(receipt.jti)
        if earlier is None:
            first = self._folder.receipts.first_use(receipt)
        else:
            first = None if earlier.expires < receipt.now else (earlier.method, earlier.digest)
        return receipt.compare(first), receipt if first is None else None

    def add(self, states: Mapping[str, State], deleted: Collection[str], receipt: Receipt | None) -> None:
        """Store ``states``, delete the ids ``deleted`` (others) and keep ``receipt``; cannot fail."""
        for id in states:
            self.deleted.pop(id, None)
        for id in deleted:
            self.states.pop(id, None)
        self.states |= states
        self.deleted |= dict.fromkeys(deleted)
        if receipt:
            self.receipts[receipt.jti] = receipt


Change = Callable[[Plan], Effect]


def saving(states: Sequence[State], receipt: Receipt | None) -> Change:
    """Return the change that saves ``states``, all or none (Store.save)."""

    def save(plan: Plan) -> Effect:
        was, unkept = plan.bind(receipt)
        if was == "repeated":
            return Effect(jti_was=was)
        newest: dict[str, State] = {}
        stored = 0
        for state in states:
            known = newest.get(state.id) or _replaceable(plan, state.id)
            if known is None:
                newest[state.id] = state
            elif state.updated_at.earliest >= known.updated_at.earliest:
                newest[state.id] = replace(state, parent=known.parent, created_at=known.created_at)
            else:
                continue
            stored += 1
        plan.add(newest, (), unkept)
        return Effect(stored, len(states) - stored, was)

    return save


def _replaceable(plan: Plan, id: str) -> State | None:
    """Return the state ``id``, or None when there is none, or one whose age cannot be read: any save replaces that."""
    try:
        return plan.known(id)
    except StoreDamaged as damage:
        _log.warning("%s: the save that has come replaces it, whatever its updatedAt", damage.cause)
        return None


def deleting(ids: Sequence[str], receipt: Receipt | None) -> Change:
    """Return the change that deletes the states ``ids`` (Store.delete)."""

    def delete(plan: Plan) -> Effect:
        was, unkept = plan.bind(receipt)
        if was == "repeated":
            return Effect(jti_was=was)
        there = plan.held(ids)
        plan.add({}, there, unkept)
        return Effect(len(there), 0, was)

    return delete


def replacing_content(pairs: Sequence[tuple[State, State]]) -> Change:
    """Return the change that replaces contents (Store.replace_content)."""

    def replace_contents(plan: Plan) -> Effect:
        changed = {old.id: replace(old, content=new.content) for old, new in pairs if plan.whole(old.id) == old}
        plan.add(changed, (), None)
        return Effect(len(changed))

    return replace_contents


def purging(ids: Sequence[str], before: int) -> Change:
    """Return the change that deletes those of the states ``ids`` that still expire before ``before`` (nanoseconds).

    Its effect counts them as stored.
    """

    def purge(plan: Plan) -> Effect:
        expired = [id for id in ids if has_expired(plan.known, id, before)]
        plan.add({}, expired, None)
        return Effect(len(expired))

    return purge


def stored(folder: OnDisk, id: str, read: Callable[[StateFile], State] = StateFile.state) -> State | None:
    """Return the state ``id`` in ``folder``, read by ``read``, or None; raises StoreDamaged."""
    try:
        with folder.open(id) as file:
            return read(file)
    except FileNotFoundError:
        return None


def has_expired(known: Callable[[str], State | None], id: str, before: int) -> bool:
    """Return whether ``known`` has the state ``id`` and it expires before ``before`` (nanoseconds since 1970)."""
    try:
        state = known(id)
    except StoreDamaged:  # its time is unknown
        return False
    # Whole seconds on both sides: a state is purged a second late rather than early.
    expires = state.expires_at if state else None
    return expires is not None and expires.has_expired(before // NANOSECONDS * NANOSECONDS)
