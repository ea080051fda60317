"""Walking many states in lists that may be held together."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from receiver.states import State, Summary

One = TypeVar("One", State, Summary)


def batches(found: Iterable[One], size_of: Callable[[One], int], most: int, room: int) -> Iterator[list[One]]:
    """Yield ``found`` in lists of one tenant each: at most ``most`` of them, and ``room`` by ``size_of`` together.

    One that is larger than ``room`` comes by itself.
    """
    batch: list[One] = []
    size = 0
    for one in found:
        more = size_of(one)
        if batch and (batch[0].tenant != one.tenant or len(batch) == most or size + more > room):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += more
    if batch:
        yield batch
