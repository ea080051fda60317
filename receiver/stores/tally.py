"""What a store holds, by tenant: for people, auditors and metrics."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from receiver.states import Summary
from receiver.stores.contract import Store


@dataclass(slots=True)
class Tally:
    """What a store holds of ``tenant``: the number of ``states``, and how many of them have ``expired``.

    ``content_bytes`` is the size of the contents as the platform sent them; None when some are sealed, which hides it.
    ``stored_bytes`` is their size in the store. ``oldest`` and ``newest`` are the least and the greatest updatedAt, as
    the platform sent them.
    """

    tenant: str
    states: int
    content_bytes: int | None
    stored_bytes: int
    expired: int
    oldest: str
    newest: str


def tallies(store: Store, now: int, tenant: str | None = None) -> Iterator[Tally]:
    """Yield a Tally of each tenant in ``store``, or of ``tenant`` alone; ``now`` in nanoseconds since the epoch."""
    for name, summaries in groupby(store.summaries(tenant), key=lambda one: one.tenant):
        yield _tally(name, summaries, now)


def _tally(tenant: str, summaries: Iterator[Summary], now: int) -> Tally:
    states, size, expired, is_sealed = 0, 0, 0, False
    for one in summaries:
        if not states:
            oldest = newest = one.updated_at
        states += 1
        size += one.size
        is_sealed |= one.sealing_key is not None
        expired += one.expires_at is not None and one.expires_at.has_expired(now)
        oldest = min(oldest, one.updated_at, key=lambda instant: instant.nanoseconds)
        newest = max(newest, one.updated_at, key=lambda instant: instant.nanoseconds)
    return Tally(tenant, states, None if is_sealed else size, size, expired, oldest.text, newest.text)
