"""Resealing: seals every content of a store with another key, or for the first time, or opens it; also while in use.

What is done stays done, so a run may be interrupted and repeated.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from receiver.problems import StoreDamaged
from receiver.sealing import SealingKeys
from receiver.states import State, Summary, key_of
from receiver.stores.batches import batches
from receiver.stores.sealed import CLEAR, NOTED_AGAIN, ROLE, UNREAD, Sealed

_AT_ONCE = 100  # states of one tenant
_BYTES_AT_ONCE = 4 << 20
_WALKS = 3  # each finds what was saved with the old key during the one before
STILL_HELD = NOTED_AGAIN + 20.0  # seconds after its last note during which a receiver may still seal with a key


@dataclass(slots=True)
class Resealed:
    """The outcome: ``resealed`` counts the contents that have the key ``key`` now, its kid or "clear".

    ``sealed`` counts those of them that were in the clear before. ``damaged`` says why contents could not be opened, by
    (tenant, id). ``left`` counts undamaged contents of all tenants that still have another key, by key. ``held`` are
    keys that no content needs but that were in use a moment ago: they stay in the ledger.
    """

    key: str
    resealed: int = 0
    sealed: int = 0
    damaged: dict[tuple[str, str], str] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)


def reseal(store: Sealed, tenant: str | None, on_state: Callable[[], None], still_held: float = STILL_HELD) -> Resealed:
    """Reseal the contents of ``store``, or of ``tenant``, as a save would now; calls ``on_state`` for each.

    Forgets keys that no content needs any more, unless they were used less than ``still_held`` seconds ago: a receiver
    that used one then may seal with it once more before it notes it again.
    """
    keys = store.sealing_keys()
    done, began = Resealed(store.writes_with(keys)), store.clock()
    store.note_key_uses({(ROLE, done.key): int(began)})
    for walk in range(_WALKS):
        before = done.resealed
        found = _others(store, tenant, done, on_state if walk == 0 else lambda: None)
        for batch in batches(found, lambda one: one.size, _AT_ONCE, _BYTES_AT_ONCE):
            _reseal(store, keys, batch, done)
        if done.resealed == before:
            break
    others = [one for one in store.summaries(on_damage=lambda _damage: None) if _key_of(one) != done.key]
    needed = Counter(map(_key_of, others))
    done.left = dict(Counter(_key_of(one) for one in others if key_of(one) not in done.damaged))
    for (role, kid), used in store.key_uses().items():
        if role == ROLE and kid not in (done.key, UNREAD) and not needed[kid]:
            if used + still_held > began:
                done.held.append(kid)
            else:
                store.forget_key(role, kid)
    return done


def _key_of(one: Summary) -> str:
    return one.sealing_key or CLEAR


def _others(store: Sealed, tenant: str | None, done: Resealed, on_state: Callable[[], None]) -> Iterator[Summary]:
    def on_damage(damage: StoreDamaged) -> None:
        done.damaged[damage.cause, ""] = damage.cause

    for one in store.summaries(tenant, on_damage):
        on_state()
        if _key_of(one) != done.key:
            yield one


def _reseal(store: Sealed, keys: SealingKeys, batch: list[Summary], done: Resealed) -> None:
    pairs: list[tuple[State, State]] = []
    for one in batch:
        try:
            stored = store.inner.find(one.tenant, one.id)
            if stored is None:  # deleted since
                continue
            if (kid := stored.content.sealing_key) and kid not in keys:
                raise StoreDamaged(f"state {one.id} of tenant {one.tenant}: the key {kid:.36} is not configured")
            pairs.append((stored, store.shaped(store.opened(stored, keys), keys, done.key)))
        except StoreDamaged as fault:
            done.damaged[one.tenant, one.id] = fault.cause
    exchanged = store.replace_content(batch[0].tenant, pairs)
    done.resealed += exchanged
    done.sealed += min(exchanged, sum(old.content.sealing_key is None for old, _ in pairs))
