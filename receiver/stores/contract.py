"""The Store contract: what every backend must do, tested for all of them in tests/stores/test_contract.py."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from receiver.idempotency import Effect, Receipt
from receiver.problems import StoreDamaged
from receiver.states import State, Summary

OnDamage = Callable[[StoreDamaged], None]


def reraise(damage: StoreDamaged) -> None:
    """Raise ``damage``: what becomes of it where nobody says otherwise."""
    raise damage


class Store(ABC):
    """Where states are kept. Keys are (tenant, id), always: no call sees or touches another tenant's ids.

    Safe to use from many threads and processes at once. Every method raises StoreUnavailable when the store
    cannot be reached or stays locked, StoreFull when it has no room, StoreDamaged when what it holds cannot
    be read back; after any of them a change is either wholly done or not done at all.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Create or upgrade the schema. Idempotent, and safe when many processes start at once."""

    @abstractmethod
    def check_location(self) -> None:
        """Raise StoreMisplaced when what the URL names can be no place for a store; changes nothing."""

    @abstractmethod
    def ping(self) -> None:
        """Return when the database answers; raise StoreUnavailable when it does not."""

    @abstractmethod
    def schema_version(self) -> str:
        """Return the version of the schema, or of the files; changes nothing.

        Raises StoreMisplaced when it is not the one that this program needs.
        """

    @abstractmethod
    def find(self, tenant: str, id: str) -> State | None:
        """Return the state ``id`` of ``tenant`` (UUIDs in lower case), or None."""

    @abstractmethod
    def was_done(self, tenant: str, receipt: Receipt) -> bool:
        """Tell whether the very request of ``receipt`` was done before; changes nothing.

        Raises ReplayRefused when its ``jti`` was used for another one. So a used signature buys neither
        parsing nor decryption, and a retry is answered even when its tokens have expired meanwhile.
        """

    @abstractmethod
    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        """Save all ``states`` of ``tenant`` or none, durably, together with ``receipt``; return the Effect.

        A state replaces a stored one when its ``updated_at`` is equal or later, by ``earliest``; ``tenant``, ``id``,
        ``parent`` and ``created_at`` keep their first values. Within ``states`` the order is that of the
        sequence. Raises ReplayRefused when ``receipt`` conflicts with the one kept under its ``jti``.
        """

    @abstractmethod
    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        """Delete the states ``ids`` of ``tenant``, or none; ids that do not exist are no fault. As ``save``."""

    @abstractmethod
    def replace_content(self, tenant: str, pairs: Sequence[tuple[State, State]]) -> int:
        """Put the content of each pair's second state in the place of the first one's, and change nothing else.

        Only where the first is still what is stored: one that was saved or deleted meanwhile stays as it is. Returns
        how many were exchanged.
        """

    @abstractmethod
    def note_key_uses(self, uses: Mapping[tuple[str, str], int]) -> None:
        """Keep when each key was last used: (role, kid) → seconds since the epoch. An earlier time changes nothing."""

    @abstractmethod
    def key_uses(self) -> dict[tuple[str, str], int]:
        """Return what ``note_key_uses`` kept, of all receivers on this store."""

    @abstractmethod
    def forget_key(self, role: str, kid: str) -> None:
        """Delete what is kept of one key."""

    @abstractmethod
    def purge(self, before: int) -> int:
        """Delete states whose ``expires_at`` is earlier than ``before`` (nanoseconds since the epoch, UTC).

        Returns how many there were. A state without ``expires_at``, or with one in year 1, is never purged.
        """

    @abstractmethod
    def summaries(self, tenant: str | None = None, on_damage: OnDamage = reraise) -> Iterator[Summary]:
        """Yield a Summary of all states, or of those of ``tenant``, in the order of (tenant, id).

        One that cannot be read is told to ``on_damage``; the walk goes on when that returns.

        Nothing is held between two of them, neither many states nor a lock nor a transaction, so that it may
        take its time: each is as it was when its turn came.
        """

    @abstractmethod
    def scan(
        self,
        tenant: str | None = None,
        wanted: Callable[[Summary], bool] | None = None,
        on_damage: OnDamage = reraise,
    ) -> Iterator[State]:
        """Yield all states, or those of ``tenant``, in the order of (tenant, id), without holding them all.

        With ``wanted``, only those whose Summary it accepts are read; it is asked in that order. ``on_damage`` as for
        ``summaries``. A database
        answers with the states of one moment, a file system with each as it was when its turn came.
        """

    def compact(self) -> None:
        """Overwrite what earlier contents left behind, where a store can do so by itself; changes wait meanwhile."""
        return

    @abstractmethod
    def close(self) -> None:
        """Close what this process holds open. The store can be used again afterwards."""
