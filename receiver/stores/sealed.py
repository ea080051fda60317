"""A store whose contents are sealed: it wraps any other store and gives it no content in the clear.

The store itself keeps a *ledger* of the sealing keys that its contents need. A key is noted there before the first
content is sealed with it, so a receiver that lacks the key finds out before it writes anything.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from receiver.idempotency import Effect, Receipt
from receiver.problems import Problem, StoreDamaged, StoreMisplaced, StoreUnavailable
from receiver.sealing import SealingKeys
from receiver.states import State, Summary
from receiver.stores.contract import OnDamage, Store, reraise
from receiver.stores.wrapper import Wrapper

ROLE = "sealing"  # marks the key uses that form the ledger
CLEAR = "clear"  # instead of a kid: there are contents in the clear
UNREAD = "unread"  # instead of a kid: not all contents have been looked at since the ledger was lost
_LOOKED_AT = 200  # states that are looked at without delay where there is no ledger
_PAUSE = 0.05  # seconds between two lists of so many, which leave the processor to requests
NOTED_AGAIN = 10.0  # seconds after which the use of a key is noted again


class Sealed(Wrapper):
    """The store ``inner``, its contents sealed with the key of ``sealing_keys()`` that is in force; clear without keys.

    ``clear_states`` says how contents in the clear are treated although there is a key: "refuse" them, "read" them, or
    "write" them too, so that all can be opened for good. Without ``strict``, the keys were found to fit at the start: a
    key that is missing later costs only the contents that need it. ``clock`` returns seconds since the epoch.
    """

    def __init__(
        self,
        inner: Store,
        sealing_keys: Callable[[], SealingKeys],
        clear_states: str,
        clock: Callable[[], float] = time.time,
        strict: bool = True,
    ) -> None:
        super().__init__(inner)
        self.sealing_keys = sealing_keys
        self.clear_states = clear_states
        self.clock = clock
        self.strict = strict
        self._checked: SealingKeys | None = None
        self._noted: dict[str, float] = {}
        self._reading = threading.Lock()

    def prepare(self) -> None:
        self.inner.prepare()
        self.check_keys()

    def check_keys(self) -> SealingKeys:
        """Return the sealing keys, after checking that the store's contents need no others.

        Raises StoreMisplaced, which names the missing keys.
        """
        keys = self.sealing_keys()
        if keys is self._checked:
            return keys
        if fault := self.misfit(keys):
            if self.strict or self.writes_with(keys) == CLEAR:
                raise StoreMisplaced(fault)
            logging.getLogger("receiver").error("%s", fault)
        self._checked, self.strict = keys, False
        return keys

    def misfit(self, keys: SealingKeys) -> str | None:
        """Return why a receiver with ``keys`` cannot serve this store, and the remedy; None when it can."""
        return self._misfit(keys, self._ledger())

    def is_clear(self) -> bool:
        """Return whether there are, or may be, contents in the clear, according to the ledger."""
        return not {CLEAR, UNREAD}.isdisjoint(self._ledger())

    def writes_in_the_clear(self, within: float) -> bool:
        """Return whether a receiver noted in the last ``within`` seconds that it stores contents in the clear."""
        return self.inner.key_uses().get((ROLE, CLEAR), 0) + within > self.clock()

    def announce(self, keys: SealingKeys) -> None:
        """Note the first of ``keys`` in an empty ledger: no receiver without it then begins to write in the clear."""
        if keys.first and not self._ledger():
            self.inner.note_key_uses({(ROLE, keys.first.kid): int(self.clock())})

    def _ledger(self) -> set[str]:
        """Return the kids of the keys that contents need, with CLEAR and UNREAD.

        An empty ledger is rebuilt from the contents: at once from some of them, later from all (``_read_all``).
        """
        noted = {kid for role, kid in self.inner.key_uses() if role == ROLE}
        if noted:
            return noted
        some = list(itertools.islice(self._kids(), _LOOKED_AT))
        found = {*some, UNREAD} if len(some) == _LOOKED_AT else set(some)
        if found:
            with suppress(Problem):  # a full store still serves loads
                self.inner.note_key_uses({(ROLE, kid): int(self.clock()) for kid in found})
        return found

    def _kids(self) -> Iterator[str]:
        """Yield the kid of each content's key, or CLEAR."""
        return (one.sealing_key or CLEAR for one in self.inner.summaries(on_damage=lambda _damage: None))

    def _read_in_background(self) -> None:
        """Complete the ledger in a thread, unless one does so."""
        if self._reading.acquire(blocking=False):
            try:
                threading.Thread(target=self._read_all, name="sealing ledger", daemon=True).start()
            except RuntimeError:  # the system has no thread left; a later save tries again
                self._reading.release()

    def _read_all(self) -> None:
        try:
            kids, found = self._kids(), set[str]()
            while some := list(itertools.islice(kids, _LOOKED_AT)):
                found.update(some)
                time.sleep(_PAUSE)
            missed = found - self._ledger()
            if missed:
                self.inner.note_key_uses({(ROLE, kid): int(self.clock()) for kid in missed})
                self._noted = {}  # the next save checks again whether this receiver may write
            self.inner.forget_key(ROLE, UNREAD)
            if missed and (fault := self.misfit(self.sealing_keys())):
                logging.getLogger("receiver").error("%s", fault)
        except Problem as cause:
            logging.getLogger("receiver").info("the ledger of sealing keys is completed later: %s", cause)
        finally:
            self._reading.release()

    def _misfit(self, keys: SealingKeys, needed: set[str]) -> str | None:
        """Return why a receiver with ``keys`` cannot serve contents that need the kids ``needed``, or None."""
        if missing := sorted(kid for kid in needed if kid not in (CLEAR, UNREAD) and kid not in keys):
            return (
                f"the store holds states sealed with the key {', '.join(missing)}, which is not configured: put it into"
                " STORAGE_SEALING_KEY, or its file into the directory of STORAGE_KEYS; `receiver store reseal` says"
                " whether any is left"
            )
        if CLEAR in needed and self._refuses_clear(keys):
            return (
                "the store holds states in the clear, and there is a sealing key: start every receiver with"
                " STORAGE_CLEAR_STATES=read and the key, run `receiver store reseal`, then remove the setting; or"
                " run `receiver store reseal --stopped` while no receiver runs"
            )
        return None

    def _refuses_clear(self, keys: SealingKeys) -> bool:
        return bool(keys) and self.clear_states == "refuse"

    def writes_with(self, keys: SealingKeys) -> str:
        """Return the kid of the key among ``keys`` that seals now, or CLEAR."""
        if not keys or self.clear_states == "write":
            return CLEAR
        key = keys.at(self.clock())
        if key is None and self.clear_states == "refuse":
            key = keys.first  # contents in the clear would be refused, so the key seals before its time
        return CLEAR if key is None else key.kid

    def shaped(self, state: State, keys: SealingKeys, kid: str) -> State:
        """Return ``state``, whose content is in the clear, sealed with the key ``kid``; unchanged for CLEAR."""
        return state if kid == CLEAR else keys.seal(state, kid)

    def ping(self) -> None:
        self.inner.ping()
        self.check_keys()

    def find(self, tenant: str, id: str) -> State | None:
        keys = self.check_keys()
        state = self.inner.find(tenant, id)
        return state and self.opened(state, keys)

    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        keys = self.check_keys()
        kid = self.writes_with(keys)
        self.note_writing(keys, kid)
        return self.inner.save(tenant, [self.shaped(state, keys, kid) for state in states], receipt)

    def note_writing(self, keys: SealingKeys, kid: str) -> None:
        """Note in the ledger that contents need the key ``kid``, before there are any, and again at intervals.

        A receiver that writes in the clear checks before and after its note whether others have begun to seal: of two
        that start at once on an empty store, at least one sees the other. Raises StoreMisplaced.
        """
        now = self.clock()
        if now - self._noted.get(kid, 0.0) < NOTED_AGAIN:
            return
        before = self._ledger()
        if UNREAD in before:
            self._read_in_background()
        self._check_still_clear(keys, kid, before)
        self.inner.note_key_uses({(ROLE, kid): int(now)})
        try:
            self._check_still_clear(keys, kid, self._ledger())
        except StoreMisplaced:
            if kid not in before:
                self.inner.forget_key(ROLE, kid)
            raise
        self._noted[kid] = now

    def _check_still_clear(self, keys: SealingKeys, kid: str, needed: set[str]) -> None:
        if kid == CLEAR and (fault := self._misfit(keys, needed)):
            raise StoreMisplaced(fault)

    def opened(self, state: State, keys: SealingKeys) -> State:
        """Return ``state``, as the inner store has it, with its content in the clear.

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

    def scan(
        self,
        tenant: str | None = None,
        wanted: Callable[[Summary], bool] | None = None,
        on_damage: OnDamage = reraise,
    ) -> Iterator[State]:
        keys = self.check_keys()
        for state in self.inner.scan(tenant, wanted, on_damage):
            try:
                clear = self.opened(state, keys)
            except StoreDamaged as damage:
                on_damage(damage)
            else:
                yield clear


def _name_of(state: State) -> str:
    return f"state {state.id} of tenant {state.tenant}"
