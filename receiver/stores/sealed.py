"""A store whose contents are sealed: it stands before any other store and hands it no content in the clear.

Which sealing keys a store's contents need is kept in the store itself, noted before the first content is sealed with
a key. So a receiver that lacks one of them, or has none, learns it before it writes anything.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from receiver.keyring import Keyring
from receiver.logs import log
from receiver.problems import StoreDamaged, StoreMisplaced, StoreUnavailable
from receiver.sealing import SealingKeys
from receiver.states import State, Summary
from receiver.stores import Effect, Receipt, Store

ROLE = "sealing"  # of the key uses that tell which keys contents need
CLEAR = "clear"  # in the place of a kid: there are contents in the clear
_NOTED_AGAIN = 60.0  # seconds after which a key that is in use is noted as such again


class Sealed(Store):
    """The store ``inner``, its contents sealed by the newest sealing key of ``ring``; in the clear if there is none.

    ``clear_states`` tells what becomes of contents that are in the clear although there is a key: "refuse" them,
    "read" them, or "write" them as well, so that they can all be opened for good. ``clock`` returns seconds.
    """

    def __init__(self, inner: Store, ring: Keyring, clear_states: str, clock: Callable[[], float] = time.time):
        self.inner = inner
        self.ring = ring
        self.clear_states = clear_states
        self.clock = clock
        self._admitted: SealingKeys | None = None
        self._unnoted: set[str] = set()
        self._noted: dict[str, float] = {}

    def prepare(self) -> None:
        self.inner.prepare()
        self.admit()

    def admit(self) -> SealingKeys:
        """Return the sealing keys, once it is known that the store's contents need no others.

        Raises StoreMisplaced, which names what is missing. When keys are exchanged while this runs, one that is
        missing takes only the contents with it that need it, as long as there is one to seal with.
        """
        keys = self.ring.sealing
        if keys is self._admitted:
            return keys
        used = {kid for role, kid in self.inner.key_uses() if role == ROLE}
        if not used and next(iter(self.inner.summaries()), None):
            used = {CLEAR}  # from before there were sealing keys
            self._unnoted.add(CLEAR)
        if fault := self._misfit(keys, used):
            if self._admitted is None or keys.newest is None:
                raise StoreMisplaced(fault)
            log.error("%s", fault)
        self._admitted = keys
        return keys

    def _misfit(self, keys: SealingKeys, used: set[str]) -> str | None:
        """Return why a receiver with ``keys`` cannot serve contents that need those of the kids ``used``, or None."""
        if missing := sorted(kid for kid in used if kid != CLEAR and kid not in keys):
            return (
                f"the store holds states sealed with the key {', '.join(missing)}, which is not configured:"
                " put it into STORAGE_SEALING_KEY, or its file into the directory of STORAGE_KEYS"
            )
        if CLEAR in used and self._refuses_clear(keys):
            return (
                "the store holds states in the clear, and there is a sealing key: run `receiver store reseal`, which"
                " seals them, or serve them meanwhile with STORAGE_CLEAR_STATES=read"
            )
        return None

    def _refuses_clear(self, keys: SealingKeys) -> bool:
        return keys.newest is not None and self.clear_states == "refuse"

    def writes_with(self, keys: SealingKeys) -> str:
        """Return the kid of the one of ``keys`` that new contents are sealed with, or CLEAR."""
        return CLEAR if keys.newest is None or self.clear_states == "write" else keys.newest.kid

    def shaped(self, state: State, keys: SealingKeys) -> State:
        """Return ``state``, whose content is in the clear, as it is to be stored."""
        return state if self.writes_with(keys) == CLEAR else keys.seal(state)

    def check_place(self) -> None:
        self.inner.check_place()

    def ping(self) -> None:
        self.inner.ping()

    def find(self, tenant: str, id: str) -> State | None:
        keys = self.admit()
        state = self.inner.find(tenant, id)
        return state and self.opened(state, keys)

    def repeated(self, tenant: str, receipt: Receipt) -> bool:
        return self.inner.repeated(tenant, receipt)

    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        keys = self.admit()
        self.note_writing(keys)
        return self.inner.save(tenant, [self.shaped(state, keys) for state in states], receipt)

    def note_writing(self, keys: SealingKeys) -> None:
        """Have it kept in the store which of ``keys`` its contents will need, before there are such."""
        kid, now = self.writes_with(keys), self.clock()
        if not self._unnoted and now - self._noted.get(kid, 0.0) < _NOTED_AGAIN:
            return
        noting = {kid, *self._unnoted}
        self.inner.note_key_uses({(ROLE, one): int(now) for one in noting})
        self._unnoted.difference_update(noting)
        self._noted[kid] = now

    def opened(self, state: State, keys: SealingKeys) -> State:
        """Return ``state``, which comes from the inner store, with its content in the clear.

        Raises StoreDamaged when it is not what was sealed, StoreUnavailable when its key is not among ``keys``.
        """
        kid = state.content.sealing_key
        if kid is None and self._refuses_clear(keys):
            raise StoreDamaged(f"{_name_of(state)} is in the clear, which STORAGE_CLEAR_STATES refuses")
        if kid is None:
            return state
        if kid not in keys:
            missing = f"{_name_of(state)} is sealed with the key {kid:.36}, which is not configured"
            raise StoreUnavailable(missing) if (ROLE, kid) in self.inner.key_uses() else StoreDamaged(missing)
        return keys.open(state)

    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        return self.inner.delete(tenant, ids, receipt)

    def exchange(self, tenant: str, pairs: Sequence[tuple[State, State]]) -> int:
        """Exchange contents as the inner store has them: this is what reseals them."""
        return self.inner.exchange(tenant, pairs)

    def note_key_uses(self, uses: Mapping[tuple[str, str], int]) -> None:
        self.inner.note_key_uses(uses)

    def key_uses(self) -> dict[tuple[str, str], int]:
        return self.inner.key_uses()

    def forget_key(self, role: str, kid: str) -> None:
        self.inner.forget_key(role, kid)

    def purge(self, before: int) -> int:
        return self.inner.purge(before)

    def summaries(self, tenant: str | None = None) -> Iterator[Summary]:
        return self.inner.summaries(tenant)

    def scan(self, tenant: str | None = None, wanted: Callable[[Summary], bool] | None = None) -> Iterator[State]:
        keys = self.admit()
        return (self.opened(state, keys) for state in self.inner.scan(tenant, wanted))

    def compact(self) -> None:
        self.inner.compact()

    def close(self) -> None:
        self.inner.close()


def _name_of(state: State) -> str:
    return f"state {state.id} of tenant {state.tenant}"
