"""Owns which applications have metric series of their own: those that are deployed, and the last that were deleted.

What was counted for a deleted application can still be scraped for a while. But a gateway lives longer than most
applications, and what it keeps of each has to end.
"""

from __future__ import annotations

from collections.abc import Iterable

_DELETED_KEPT_MAX = 32


class KnownApplications:
    """I/O loop only; `names` is immutable and may be handed on."""

    def __init__(self) -> None:
        self._deployed: frozenset[str] = frozenset()
        self._deleted: dict[str, None] = {}
        """Longest gone first."""

    @property
    def names(self) -> frozenset[str]:
        return self._deployed.union(self._deleted)

    def update(self, deployed: Iterable[str]) -> None:
        """There are new routes."""
        before, self._deployed = self._deployed, frozenset(deployed)
        for name in before - self._deployed:
            self._deleted[name] = None
        for name in self._deployed & self._deleted.keys():
            del self._deleted[name]
        while len(self._deleted) > _DELETED_KEPT_MAX:
            del self._deleted[next(iter(self._deleted))]
