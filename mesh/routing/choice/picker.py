"""The choice of a replica for one call: pure functions over what a caller knows of the candidates.

Power of two choices: of two random candidates, the less loaded one. Each caller can do it with its own view, and
callers do not all pick the same replica when load reports are old. See Michael Mitzenmacher, "The Power of Two Choices
in Randomized Load Balancing" (1996), and the chapter on load balancing of Finagle's client guide.
`mesh.routing.choice.locality` improves on it when load reports are stale. Randomness is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

Random = Callable[[], float]
"""Returns numbers in [0, 1)."""


class Candidate(Protocol):
    """A replica as its caller sees it."""

    @property
    def load(self) -> int:
        """Ongoing calls: those of other callers at the last report, and our own."""

    @property
    def limit(self) -> int:
        """Most ongoing calls that it accepts."""

    @property
    def weight(self) -> float:
        """The chance that it gets a call that it would get at weight 1."""

    @property
    def model_count(self) -> int: ...


class NamedCandidate(Candidate, Protocol):
    """A candidate that all callers know by one name."""

    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Candidate)
N = TypeVar("N", bound=NamedCandidate)


def pick(candidates: Sequence[C], random: Random) -> C | None:
    """A candidate with a free place, or None when all are full."""
    count = len(candidates)
    if count > 2:
        first = int(random() * count)
        second = int(random() * (count - 1))
        if second >= first:
            second += 1
        best = _less_loaded(candidates[first], candidates[second])
        return best if best.load < best.limit else _least_loaded_free(candidates, random)
    if count == 2:
        one, other = candidates
        # With more candidates the indices are random already. Of two equals the first would always win.
        best = other if one.load == other.load and random() >= 0.5 else _less_loaded(one, other)
        return best if best.load < best.limit else _least_loaded_free(candidates, random)
    return candidates[0] if count and candidates[0].load < candidates[0].limit else None


def pick_for_model(
    holders: Sequence[C], candidates: Sequence[C], random: Random, *, may_spill: bool, copies_min: int = 1
) -> C | None:
    """A holder of the model if one is free; while it has fewer than `copies_min`, a free candidate that is none.

    When all holders are full the call waits for one of them (None), unless `may_spill` allows any free candidate: so a
    model in demand spreads. A model without a holder goes to a free candidate with the fewest models.
    """
    if 0 < len(holders) < copies_min:
        other = _fewest_models([candidate for candidate in candidates if candidate not in holders], random)
        if other is not None:
            return other
    if holders:
        found = pick(holders, random)
        if found is not None or not may_spill:
            return found
    return _fewest_models(candidates, random)


def pick_for_session(session_id: str, candidates: Sequence[N]) -> N | None:
    """The free candidate that the session prefers, or None when all are full.

    Every caller knows the order of preference from the names alone (rendezvous hashing): a candidate that comes or goes
    moves only the sessions that it gets or had.
    """
    free = [candidate for candidate in candidates if candidate.load < candidate.limit]
    if not free:
        return None
    return max(free, key=lambda candidate: blake2b(f"{session_id}\0{candidate.name}".encode(), digest_size=8).digest())


def _fewest_models(candidates: Sequence[C], random: Random) -> C | None:
    """A free candidate with the fewest models."""
    free = [candidate for candidate in candidates if candidate.load < candidate.limit]
    if not free:
        return None
    fewest = min(candidate.model_count for candidate in free)
    return pick([candidate for candidate in free if candidate.model_count == fewest], random)


def _less_loaded(first: C, second: C) -> C:
    return first if first.load <= second.load else second


def _least_loaded_free(candidates: Sequence[C], random: Random) -> C | None:
    """The least loaded candidate that has a free place. A random start, so that equals take turns."""
    count = len(candidates)
    start = int(random() * count)
    best: C | None = None
    for offset in range(count):
        candidate = candidates[(start + offset) % count]
        if candidate.load < candidate.limit and (best is None or candidate.load < best.load):
            best = candidate
    return best


# ---- Slow start ------------------------------------------------------------------------------------------------------

WEIGHT_MIN = 0.1


def start_weight(age_s: float, duration_s: float) -> float:
    """The weight of a replica of this age, from `WEIGHT_MIN` to 1.

    A new replica has no calls, so it would be the least loaded of all and get every call at once, while its caches are
    cold and its code has not run yet. The weight is the chance that a replica gets a call that it would get at full
    weight; if the others are full, it gets the call anyhow.
    """
    return 1.0 if age_s >= duration_s else max(WEIGHT_MIN, age_s / duration_s)
