"""`EqualHeads`: what is read out of header fields, once for all requests that send the same. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.requests.exchange import HttpHead

T = TypeVar("T")


class EqualHeads(Generic[T]):
    """Results of a function that depend on the fields of a head only. Errors are not kept."""

    KEPT_MAX = 256
    FIELDS_MAX = 32

    def __init__(self, read: Callable[[HttpHead], T]) -> None:
        self._read = read
        self._kept: dict[tuple[tuple[bytes, bytes], ...], T] = {}

    def read(self, head: HttpHead) -> T:
        """Like the function."""
        if len(head.fields) > self.FIELDS_MAX:
            return self._read(head)
        key = tuple(head.fields)
        known = self._kept.get(key)
        if known is None:
            if len(self._kept) >= self.KEPT_MAX:
                self._kept.clear()
            known = self._kept[key] = self._read(head)
        return known
