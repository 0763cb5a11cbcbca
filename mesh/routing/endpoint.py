"""One listed replica as its caller knows it: its link, load, models, and how its calls go. I/O loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from mesh.link.caller_link import CallerLink
from mesh.routing.outlier_ejection import CallHealth
from mesh.routing.snapshot import ReplicaInfo

_EXPECTED_MODELS_MAX = 64


class Endpoint:
    """A listed replica and its current link; a Candidate for the picker."""

    __slots__ = (
        "_announced",
        "expected_models",
        "health",
        "info",
        "is_left_out",
        "is_load_fresh",
        "limit",
        "link",
        "starts_at_s",
        "task",
        "was_usable",
        "weight",
    )

    def __init__(self, info: ReplicaInfo, limit: int) -> None:
        self.info = info
        self.limit = limit
        self.link: CallerLink | None = None
        self.task: asyncio.Task[None] | None = None
        self.expected_models: dict[str, None] = {}
        """Models that we sent calls for, oldest first, until the replica announces them."""
        self.is_load_fresh = False
        """The load has been reported since the last tick of the pool."""
        self.health = CallHealth()
        self.is_left_out = False
        """Gets no calls for a while, because its calls failed."""
        self.was_usable = False
        """A link has been ready."""
        self._announced: frozenset[str] = frozenset()
        self.weight = 1.0
        self.starts_at_s: float | None = None
        """Since when its weight grows, a time.monotonic() instant; None at full weight."""

    def __repr__(self) -> str:
        phase = self.link.phase.value if self.link is not None else "without link"
        return f"<Endpoint {self.info.replica_id} at {self.info.address}, {phase}>"

    @property
    def load(self) -> int:
        """Ongoing calls of all callers, as far as this process knows; the limit where there is no link."""
        link = self.link
        return link.others_ongoing + link.ongoing if link is not None else self.limit

    @property
    def name(self) -> str:
        return self.info.replica_id

    def holds(self, model_id: str) -> bool:
        """The replica has the model, loads it, or has been sent a call for it."""
        return model_id in self.expected_models or (self.link is not None and model_id in self.link.facts.model_ids)

    @property
    def model_count(self) -> int:
        """Models that it holds or loads."""
        announced = len(self.link.facts.model_ids) if self.link is not None else 0
        return max(announced, len(self.expected_models))

    @property
    def copies_min(self) -> int:
        """On how many replicas of its deployment each model is to be."""
        return self.link.facts.copies_min if self.link is not None else 1

    @property
    def is_usable(self) -> bool:
        """New calls may be sent there."""
        return self.link is not None and self.link.is_usable

    def models(self) -> Iterator[str]:
        """The models that it holds or loads."""
        yield from self.expected_models
        if self.link is not None:
            yield from self.link.facts.model_ids

    def expect_model(self, model_id: str) -> Sequence[str]:
        """Note that a call for the model was sent there. Returns the models that it is now known or forgotten to hold.

        Bounded, because clients may name models that do not exist.
        """
        if self.holds(model_id):
            return ()
        self.expected_models[model_id] = None
        if len(self.expected_models) <= _EXPECTED_MODELS_MAX:
            return (model_id,)
        oldest = next(iter(self.expected_models))
        del self.expected_models[oldest]
        return (model_id, oldest)

    def age_load(self) -> bool:
        """Halve the calls of others, unless they were reported just now. Returns whether there is more to halve.

        Nothing ages while the replica is full, because a full replica reports its next free place.
        """
        link = self.link
        if link is None or not link.others_ongoing or self.load >= self.limit:
            return False
        if not self.is_load_fresh:
            link.others_ongoing //= 2
        self.is_load_fresh = False
        return link.others_ongoing > 0

    def note_announcement(self) -> frozenset[str]:
        """Read the models that its link has announced. Returns those that it has gained or lost since the last time."""
        link = self.link
        if link is None or link.facts.model_ids is self._announced:
            return frozenset()
        changed, self._announced = self._announced ^ link.facts.model_ids, link.facts.model_ids
        for model_id in link.facts.model_ids & self.expected_models.keys():
            del self.expected_models[model_id]
        return changed
