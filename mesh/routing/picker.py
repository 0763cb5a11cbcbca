"""Owns the choice of a replica for one call: pure functions over what a caller knows of the candidates.

Power of two choices: of two random candidates the less loaded one. It needs no global view and does not herd when
reports are old. What it makes of old reports is `mesh.routing.locality`'s to better. Randomness is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Random = Callable[[], float]
"""Gives numbers in [0, 1)."""


class Candidate(Protocol):
    """A replica as its caller sees it."""

    @property
    def load(self) -> int:
        """Calls it has: what others had at the last report, and our own."""

    @property
    def limit(self) -> int:
        """Calls it accepts."""

    def holds(self, model_id: str) -> bool:
        """Whether the model is loaded or being loaded there."""

    @property
    def model_count(self) -> int: ...


C = TypeVar("C", bound=Candidate)


def pick(candidates: Sequence[C], random: Random) -> C | None:
    """A candidate with a free place, or None when all are full."""
    count = len(candidates)
    if count > 2:
        first = int(random() * count)
        second = int(random() * (count - 1))
        if second >= first:
            second += 1
        best = _less_loaded(candidates[first], candidates[second])
        if best.load < best.limit:
            return best
        return _least_loaded(candidates, random)
    if count == 2:
        best = _least_of_pair(candidates[0], candidates[1], random)
        return best if best.load < best.limit else _other_if_free(candidates, best)
    if count == 1 and candidates[0].load < candidates[0].limit:
        return candidates[0]
    return None


def pick_for_model(candidates: Sequence[C], model_id: str, random: Random, *, may_spill: bool) -> C | None:
    """A holder of the model if one is free.

    When all holders are full the call waits for one (None), until `may_spill` lets any free candidate take it: so a hot
    model spreads. A model that nobody holds goes to a candidate with the fewest models.
    """
    holders = [candidate for candidate in candidates if candidate.holds(model_id)]
    if holders:
        found = pick(holders, random)
        if found is not None or not may_spill:
            return found
    free = [candidate for candidate in candidates if candidate.load < candidate.limit]
    if not free:
        return None
    fewest = min(candidate.model_count for candidate in free)
    return pick([candidate for candidate in free if candidate.model_count == fewest], random)


def _less_loaded(first: C, second: C) -> C:
    return first if first.load <= second.load else second


def _least_of_pair(first: C, second: C, random: Random) -> C:
    if first.load == second.load:
        return first if random() < 0.5 else second
    return _less_loaded(first, second)


def _other_if_free(pair: Sequence[C], full: C) -> C | None:
    other = pair[0] if pair[1] is full else pair[1]
    return other if other.load < other.limit else None


def _least_loaded(candidates: Sequence[C], random: Random) -> C | None:
    """The least loaded of all that are free, from a random start so that equals share."""
    count = len(candidates)
    start = int(random() * count)
    best: C | None = None
    for offset in range(count):
        candidate = candidates[(start + offset) % count]
        if candidate.load < candidate.limit and (best is None or candidate.load < best.load):
            best = candidate
    return best
