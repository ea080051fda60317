"""Splits a walk through many states into lists small enough for memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from receiver.states import State, Summary

One = TypeVar("One", State, Summary)


def batches(found: Iterable[One], size_of: Callable[[One], int], most: int, most_bytes: int) -> Iterator[list[One]]:
    """Yield ``found`` in lists of one tenant each: at most ``most`` items and ``most_bytes``, by ``size_of``, in each.

    An item larger than ``most_bytes`` forms a list of its own.
    """
    batch: list[One] = []
    size = 0
    for one in found:
        more = size_of(one)
        if batch and (batch[0].tenant != one.tenant or len(batch) == most or size + more > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += more
    if batch:
        yield batch
