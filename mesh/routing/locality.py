"""Owns one locality of replicas (same node, same zone, all) and the memory of who told its load lately.

Power of two choices is as good as what is known of the two. With many callers and many replicas a caller hears of one
replica once in a while, and what it heard is old. But every result brings news of the replica it comes from, for free.
So the last few of them are remembered, and one is preferred to the better of two random ones unless that one is known
to be clearly less loaded. News is used once: the call that follows it makes it old. As a replica tells one caller at a
time, callers do not herd. docs/load-balancing.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from mesh.routing.picker import C, Random, pick

_REMEMBERED_MAX = 8
_MEMORY_PAYS_ABOVE = 2
"""Of so few candidates the two random ones are all."""
_SMOOTHING = 1 / 16


class Locality(Generic[C]):
    """Picks among its candidates. I/O loop only."""

    __slots__ = ("_members", "_recent", "_typical_load", "candidates", "remembers")

    def __init__(self, candidates: Iterable[C] = (), previous: Locality[C] | None = None) -> None:
        """`previous`: what it remembers of these candidates is taken over."""
        self.candidates = tuple(candidates)
        self.remembers = len(self.candidates) > _MEMORY_PAYS_ABOVE
        self._members = frozenset(self.candidates)
        self._recent: dict[C, None] = {}
        """Oldest news first: so equals take turns."""
        self._typical_load = 0.0
        if previous is not None:
            self._recent = {candidate: None for candidate in previous._recent if candidate in self._members}
            self._typical_load = previous._typical_load

    def record_load(self, candidate: C) -> None:
        """Its load is news: it has just told it."""
        if not self.remembers or candidate not in self._members:
            return
        self._typical_load += (candidate.load - self._typical_load) * _SMOOTHING
        recent = self._recent
        recent.pop(candidate, None)
        recent[candidate] = None
        if len(recent) > _REMEMBERED_MAX:
            del recent[next(iter(recent))]

    def pick(self, random: Random) -> C | None:
        """A candidate with a free place, or None when all are full."""
        found = pick(self.candidates, random)
        if not self._recent or found is None:
            return found
        remembered, load = self._least_loaded_recent()
        # What is known of the random one is old: it has probably come closer to what is usual.
        if load < remembered.limit and load < found.load + self._typical_load:
            del self._recent[remembered]
            return remembered
        return found

    def _least_loaded_recent(self) -> tuple[C, int]:
        candidates = iter(self._recent)
        best = next(candidates)
        least = best.load
        for candidate in candidates:
            if not least:
                break
            load = candidate.load
            if load < least:
                best, least = candidate, load
        return best, least


def pick_nearest(localities: Iterable[Locality[C]], random: Random) -> C | None:
    """The first locality with a free place wins."""
    for locality in localities:
        found = locality.pick(random)
        if found is not None:
            return found
    return None
