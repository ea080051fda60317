"""Handover: a large value on its way from one step to the next, which no name keeps alive meanwhile."""

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Handover(Generic[Value]):
    """Owns a ``value`` until ``take`` gives it out, once; after that nothing of it is kept here.

    A large content passes through many shapes. As long as a caller's variable holds an earlier one, both take memory.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Value) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<Handover>"  # the value may be a content

    def take(self) -> Value:
        """Return the value and let go of it; raises AttributeError if it was taken before."""
        value = self._value
        del self._value
        return value
