"""State that a decorated method keeps for each object it is called on, without keeping the object alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class InstanceState(Generic[T]):
    """One `T` per owner; it goes when its owner goes. The owner `None` stands for a plain function's only state.

    Owners are distinguished by identity, so they need not be hashable, and nothing is written into them: they still
    pickle, copy and compare as before.
    """

    def __init__(self) -> None:
        self._states: dict[int, tuple[weakref.ref[object] | None, T]] = {}

    def get(self, owner: object | None, make: Callable[[], T]) -> T:
        """The owner's state, made on first use. An owner that cannot be weakly referenced is a TypeError."""
        found = self._states.get(id(owner))
        if found is None:
            found = self._states.setdefault(id(owner), (self._watch(owner), make()))
        return found[1]

    def values(self) -> Iterator[T]:
        return (state for _, state in list(self._states.values()))

    def _watch(self, owner: object | None) -> weakref.ref[object] | None:
        if owner is None:
            return None
        key = id(owner)
        try:
            return weakref.ref(owner, lambda _: self._forget(key))
        except TypeError as error:
            raise TypeError(
                f"{type(owner).__name__} objects cannot be weakly referenced. Add '__weakref__' to its __slots__, or "
                "weakref_slot=True to a dataclass with slots=True."
            ) from error

    def _forget(self, key: int) -> None:
        self._states.pop(key, None)
