"""Copying one store into another, and proof that what arrived is what was sent.

Both are walked in the order of (tenant, id). States that the target already has are not read again: a copy that broke
off resumes where it was, and one that is repeated while the source is in use brings only what is new.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from receiver.states import State, Summary, key_of
from receiver.stores.batches import batches
from receiver.stores.contract import OnDamage, Store, reraise

_STATES_PER_SAVE = 200
_BYTES_PER_SAVE = 4 << 20


@dataclass(slots=True)
class Copied:
    """How the states of ``tenant`` in the target compare with those in the source, as counts.

    ``copied`` by this run; ``equal`` in both; ``newer`` in the target, which kept its own; ``behind`` or missing
    in the target; ``differing`` although their updatedAt is the same; ``only`` in the target. The digests are
    SHA-256 over all fields of the equal and the differing ones, read back from each side.
    """

    tenant: str
    copied: int = 0
    equal: int = 0
    newer: int = 0
    behind: int = 0
    differing: int = 0
    only: int = 0
    source: "hashlib._Hash" = field(default_factory=hashlib.sha256, repr=False)
    target: "hashlib._Hash" = field(default_factory=hashlib.sha256, repr=False)

    @property
    def states(self) -> int:
        """The number of states in the source."""
        return self.equal + self.newer + self.behind + self.differing

    @property
    def is_complete(self) -> bool:
        """Whether the target holds every state of the source, equal or newer, and both digests are the same."""
        return not self.behind and not self.differing and self.source.digest() == self.target.digest()


def copy(
    source: Store, target: Store, tenant: str | None, on_state: Callable[[], None], on_damage: OnDamage = reraise
) -> dict[str, int]:
    """Copy every state of ``source``, or those of ``tenant``, to ``target``; the newer one wins there.

    Calls ``on_state`` for each state of ``source``, and ``on_damage`` for each that cannot be read. Returns how many
    were copied, by tenant.
    """
    copied: dict[str, int] = {}
    is_missing = _missing_in(target.summaries(tenant))

    def wanted(one: Summary) -> bool:
        on_state()
        return is_missing(one)

    found = source.scan(tenant, wanted, on_damage)
    for batch in batches(found, lambda one: len(one.content.text), _STATES_PER_SAVE, _BYTES_PER_SAVE):
        effect = target.save(batch[0].tenant, batch, None)
        copied[batch[0].tenant] = copied.get(batch[0].tenant, 0) + effect.stored
    return copied


def compare(
    source: Store, target: Store, tenant: str | None, on_state: Callable[[], None], on_damage: OnDamage = reraise
) -> Iterator[Copied]:
    """Read every state of both stores, or those of ``tenant``, and yield a comparison for each tenant of either.

    Calls ``on_state`` for each state of ``source``, and ``on_damage`` for each that cannot be read.
    """
    verdict: Copied | None = None
    for found, here, there in _side_by_side(source.scan(tenant, None, on_damage), target.scan(tenant)):
        if verdict is None or verdict.tenant != found:
            if verdict:
                yield verdict
            verdict = Copied(found)
        _judge(verdict, here, there)
        if here:
            on_state()
    if verdict:
        yield verdict


def _judge(verdict: Copied, here: State | None, there: State | None) -> None:
    if here is None:
        verdict.only += 1
    elif there is None or there.updated_at.earliest < here.updated_at.earliest:
        verdict.behind += 1
    elif there.updated_at.earliest > here.updated_at.earliest:
        verdict.newer += 1
    else:
        verdict.source.update(_bytes_of(here))
        verdict.target.update(_bytes_of(there))
        verdict.equal += here == there
        verdict.differing += here != there


def _bytes_of(state: State) -> bytes:
    """Return every field of ``state`` in one spelling, the times as they were sent."""
    instants = (state.created_at, state.updated_at, state.expires_at)
    fields = (
        *(state.tenant, state.id, state.parent, state.flow, state.flow_version, state.is_done),
        *(state.current_map_element, state.current_user),
        *(one and one.text for one in instants),
        state.content.text,
    )
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _missing_in(target: Iterator[Summary]) -> Callable[[Summary], bool]:
    """Return a function for walking in order: whether ``target`` lacks a state, or has an older one."""
    ahead = next(target, None)

    def is_missing(one: Summary) -> bool:
        nonlocal ahead
        while ahead is not None and key_of(ahead) < key_of(one):
            ahead = next(target, None)
        if ahead is None or key_of(ahead) != key_of(one):
            return True
        return ahead.updated_at.earliest < one.updated_at.earliest

    return is_missing


def _side_by_side(left: Iterator[State], right: Iterator[State]) -> Iterator[tuple[str, State | None, State | None]]:
    """Yield (tenant, left, right) for two walks in the same order; None where one has no such state."""
    here, there = next(left, None), next(right, None)
    while here or there:
        if here and (there is None or key_of(here) < key_of(there)):
            yield here.tenant, here, None
            here = next(left, None)
        elif there and (here is None or key_of(there) < key_of(here)):
            yield there.tenant, None, there
            there = next(right, None)
        elif here and there:
            yield here.tenant, here, there
            here, there = next(left, None), next(right, None)
