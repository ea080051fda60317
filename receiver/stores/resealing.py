"""Resealing: every content of a store sealed with another key, or for the first time, or opened for good; while in use.

What was done stays done, so it may be broken off and run again.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from receiver.problems import StoreDamaged
from receiver.sealing import SealingKeys
from receiver.states import State, Summary
from receiver.stores.sealed import CLEAR, ROLE, Sealed

_AT_ONCE = 100  # states of one tenant
_BYTES_AT_ONCE = 4 << 20
_WALKS = 3  # what was saved with the old key meanwhile is found by the next one


@dataclass(slots=True)
class Resealed:
    """What came of it: ``key`` is the kid that contents have now, or "clear"; ``resealed`` counts them.

    ``sealed`` counts those of them that were in the clear before; ``damaged`` tells of contents that could not be
    opened. ``left`` counts those that have another key still.
    """

    key: str
    resealed: int = 0
    sealed: int = 0
    damaged: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)


def reseal(store: Sealed, tenant: str | None, on_state: Callable[[], None]) -> Resealed:
    """Reseal what ``store`` holds, or holds of ``tenant``, as it would be saved now; calls ``on_state`` for each state.

    Raises StoreMisplaced when a key is missing. Keys that no content needs any more are forgotten.
    """
    keys = store.admit()
    done, began = Resealed(store.writes_with(keys)), int(store.clock())
    store.note_writing(keys)
    for walk in range(_WALKS):
        before = done.resealed
        others = _others(store, tenant, done.key, on_state if walk == 0 else lambda: None)
        for batch in _batches(others):
            _reseal(store, keys, batch, done)
        if done.resealed == before:
            break
    done.left = Counter(one.sealing_key or CLEAR for one in store.summaries() if (one.sealing_key or CLEAR) != done.key)
    for (role, kid), used in store.key_uses().items():
        # One that was used since is in the hands of a receiver that does not know the new key yet.
        if role == ROLE and kid != done.key and not done.left[kid] and used <= began:
            store.forget_key(role, kid)
    return done


def _others(store: Sealed, tenant: str | None, key: str, on_state: Callable[[], None]) -> Iterator[Summary]:
    for one in store.summaries(tenant):
        on_state()
        if (one.sealing_key or CLEAR) != key:
            yield one


def _batches(summaries: Iterator[Summary]) -> Iterator[list[Summary]]:
    """Yield ``summaries`` in lists of one tenant each, neither long nor large."""
    batch: list[Summary] = []
    size = 0
    for one in summaries:
        if batch and (batch[0].tenant != one.tenant or len(batch) == _AT_ONCE or size + one.size > _BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += one.size
    if batch:
        yield batch


def _reseal(store: Sealed, keys: SealingKeys, batch: list[Summary], done: Resealed) -> None:
    pairs: list[tuple[State, State]] = []
    for one in batch:
        try:
            stored = store.inner.find(one.tenant, one.id)
            if stored is not None:
                pairs.append((stored, store.shaped(store.opened(stored, keys), keys)))
        except StoreDamaged as damage:
            done.damaged.append(damage.cause)
    exchanged = store.exchange(batch[0].tenant, pairs)
    done.resealed += exchanged
    done.sealed += min(exchanged, sum(old.content.sealing_key is None for old, _ in pairs))
