"""The replicas of one locality (same node, same zone, all), and a memory of the latest load reports among them.

Power of two choices is only as good as the loads it compares. With many callers and many replicas, a caller rarely gets
a result from one given replica, so most loads it knows are old. But every result carries the load of its replica. So
the replicas that sent the last few results are remembered, and the least loaded of them is preferred to the better of
two random ones, unless that one is clearly less loaded. A report is used once, because the call that follows it makes
it old. A result goes to one caller, so callers do not all pick the same replica. docs/load-balancing.md has figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from mesh.routing.choice.picker import C, Random, pick

_REMEMBERED_MAX = 8
_MEMORY_PAYS_ABOVE = 2
"""With no more candidates than this, the two random ones are all there are."""
_SMOOTHING = 1 / 16
_BUSY_FACTOR = 2
_BUSY_ABOVE = 2
"""A candidate is clearly more loaded than another one with more than this many times its load, plus this many calls."""


class Locality(Generic[C]):
    """Candidates to pick from. I/O loop only."""

    __slots__ = ("_members", "_recent", "_steady", "_typical_load", "candidates", "remembers")

    def __init__(self, candidates: Iterable[C] = (), previous: Locality[C] | None = None) -> None:
        """`previous`: its memory of these candidates is kept."""
        self.candidates = tuple(candidates)
        self.remembers = len(self.candidates) > _MEMORY_PAYS_ABOVE
        self._members = frozenset(candidate for candidate in self.candidates if candidate.weight >= 1)
        """Those at full weight: news of others attracts no calls."""
        self._steady = tuple(filter(self._members.__contains__, self.candidates))
        self._recent: dict[C, None] = {}
        """Oldest report first, so that equals take turns."""
        self._typical_load = 0.0
        if previous is not None:
            self._recent = {candidate: None for candidate in previous._recent if candidate in self._members}
            self._typical_load = previous._typical_load

    def record_load(self, candidate: C) -> None:
        """Remember that the candidate has just reported its load."""
        if not self.remembers or candidate not in self._members:
            return
        self._typical_load += (candidate.load - self._typical_load) * _SMOOTHING
        recent = self._recent
        recent.pop(candidate, None)
        recent[candidate] = None
        if len(recent) > _REMEMBERED_MAX:
            del recent[next(iter(recent))]

    def forget(self, candidate: C) -> None:
        """Use no news of the candidate: it came with a failure."""
        self._recent.pop(candidate, None)

    def pick(self, random: Random) -> C | None:
        """A candidate with a free place, or None when all are full."""
        found = pick(self.candidates, random)
        if found is not None and found.weight < 1 and random() >= found.weight:
            found = pick(self._steady, random) or found
        if not self._recent or found is None:
            return found
        remembered, load = self._least_loaded_recent()
        # The load of the random one is old: by now it is probably closer to the typical load.
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
    """A candidate of the nearest locality that has a free place, unless one farther away is clearly less loaded."""
    found: C | None = None
    for locality in localities:
        if found is None:
            found = locality.pick(random)
        elif found.load > _BUSY_ABOVE:
            farther = pick(locality.candidates, random)
            if farther is not None and found.load > _BUSY_FACTOR * farther.load + _BUSY_ABOVE:
                found = farther
    return found
