"""The Store contract: what every backend must do, tested for all of them in tests/stores/test_contract.py."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from receiver.idempotency import Effect, Receipt
from receiver.problems import StoreDamaged
from receiver.states import State, Summary
from receiver.stores.marker import Mark

OnDamage = Callable[[StoreDamaged], None]


def reraise(damage: StoreDamaged) -> None:
    """Raise ``damage``: the default of ``on_damage``."""
    raise damage


class Store(ABC):
    """Where states are kept. The key is always (tenant, id): no call sees or touches another tenant's ids.

    Many threads and processes may use a store at once. Every method raises StoreUnavailable when the store cannot be
    reached or stays locked, StoreFull when it has no free space, and StoreDamaged when what it holds cannot be read
    back. After any of them a change is either wholly done or not done at all.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Create or upgrade the schema. Safe to repeat, and for many processes that start at once."""

    @abstractmethod
    def check_location(self) -> None:
        """Raise StoreMisplaced when no store can lie where the URL says; changes nothing."""

    @abstractmethod
    def ping(self) -> None:
        """Return when the store answers; raise StoreUnavailable when it does not."""

    @abstractmethod
    def schema_version(self) -> str:
        """Return the version of the schema, or of the files; changes nothing.

        Raises StoreMisplaced when it is not the one that this program needs.
        """

    @abstractmethod
    def mark(self) -> Mark:
        """Return what identifies the store, and its last commit where it counts them; changes nothing."""

    @abstractmethod
    def init(self) -> Mark:
        """Make a new store, even where another one belongs, as STORAGE_STORE_ID or a marker says; return its mark.

        Its id is that of STORAGE_STORE_ID, if that is set. Raises StoreMisplaced, and changes nothing, when a store is
        there.
        """

    @abstractmethod
    def accept(self) -> Mark:
        """Take the store that is there as the one that belongs there, and return its mark; never makes a store."""

    @abstractmethod
    def find(self, tenant: str, id: str) -> State | None:
        """Return the state ``id`` of ``tenant`` (UUIDs in lower case), or None."""

    @abstractmethod
    def was_done(self, tenant: str, receipt: Receipt) -> bool:
        """Return whether the request of ``receipt`` was done before; changes nothing.

        Raises ReplayRefused when its ``jti`` was used for another request. So a used signature costs neither
        parsing nor decryption, and a retry is answered even if its tokens have expired since.
        """

    @abstractmethod
    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        """Save all ``states`` of ``tenant`` or none, durably, together with ``receipt``; return the Effect.

        A state replaces a stored one when the ``earliest`` of its ``updated_at`` is equal or later; ``tenant``, ``id``,
        ``parent`` and ``created_at`` keep their first values. The order of ``states`` counts.
        Raises ReplayRefused when ``receipt`` conflicts with the one kept under its ``jti``.
        """

    @abstractmethod
    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        """Delete all states ``ids`` of ``tenant`` or none, as ``save`` does; ids that do not exist are ignored."""

    @abstractmethod
    def replace_content(self, tenant: str, pairs: Sequence[tuple[State, State]]) -> int:
        """Replace the content of each pair's first state by that of the second, and change nothing else.

        A state that is no longer stored as the pair's first is left alone: it was saved or deleted meanwhile. Returns
        how many contents were replaced.
        """

    @abstractmethod
    def note_key_uses(self, uses: Mapping[tuple[str, str], int]) -> None:
        """Record when each key was last used: (role, kid) → seconds since the epoch. Earlier times change nothing."""

    @abstractmethod
    def key_uses(self) -> dict[tuple[str, str], int]:
        """Return what ``note_key_uses`` recorded for all receivers on this store."""

    @abstractmethod
    def forget_key(self, role: str, kid: str) -> None:
        """Delete the record of one key."""

    @abstractmethod
    def purge(self, before: int) -> int:
        """Delete states whose ``expires_at`` is earlier than ``before`` (nanoseconds since the epoch, UTC).

        Returns how many it deleted. A state without ``expires_at``, or with one in year 1, is never purged.
        """

    @abstractmethod
    def summaries(self, tenant: str | None = None, on_damage: OnDamage = reraise) -> Iterator[Summary]:
        """Yield a Summary of every state, or of those of ``tenant``, in the order of (tenant, id).

        Calls ``on_damage`` for each that cannot be read, and goes on when that returns.

        The walk may take its time: between two summaries it holds no lock, no transaction and few states. Each is
        as the state was when the walk reached it.
        """

    @abstractmethod
    def scan(
        self,
        tenant: str | None = None,
        wanted: Callable[[Summary], bool] | None = None,
        on_damage: OnDamage = reraise,
    ) -> Iterator[State]:
        """Yield every state, or those of ``tenant``, in the order of (tenant, id), without holding them all.

        With ``wanted``, only states whose Summary it accepts are read; it is called in that order. ``on_damage`` is
        that of ``summaries``. A database yields the states of one moment, a file system each as it was when the walk
        reached it.
        """

    def compact(self) -> None:
        """Overwrite the remains of earlier contents, where a store can do so by itself; changes wait meanwhile."""
        return

    @abstractmethod
    def close(self) -> None:
        """Close what this process holds open. The store may be used again afterwards."""
