"""What a replica tells each of its callers about itself, beside its load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mesh.link.parts import MalformedFrameError
from mesh.v1 import replica_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFacts:
    """The state as of its last frames. A change makes a new record."""

    model_ids: frozenset[str] = frozenset()
    """Models that it has or loads."""
    copies_min: int = 1
    """On how many replicas of its deployment callers keep each model, where there are as many."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the user's `record_replica_metadata` returned: JSON values by name."""
    routing_stats: Mapping[str, Any] = field(default_factory=dict)
    """What the user's `record_routing_stats` returned last: JSON values by name."""

    @classmethod
    def read(cls, welcome: replica_pb2.Welcome) -> ReplicaFacts:
        return cls(
            model_ids=frozenset(welcome.model_ids),
            copies_min=max(1, welcome.copies_min),
            metadata=_values(welcome.metadata_json),
            routing_stats=_values(welcome.routing_stats_json),
        )

    def changed_by(self, frame: replica_pb2.Frame) -> ReplicaFacts:
        """After a frame that tells all models, or the latest figures."""
        if frame.HasField("models"):
            return replace(self, model_ids=frozenset(frame.models.model_ids))
        return replace(self, routing_stats=_values(frame.routing_stats.json))

    def write(self, welcome: replica_pb2.Welcome) -> None:
        welcome.model_ids.extend(self.model_ids)
        if self.copies_min > 1:
            welcome.copies_min = self.copies_min
        if self.metadata:
            welcome.metadata_json = json.dumps(self.metadata)
        if self.routing_stats:
            welcome.routing_stats_json = json.dumps(self.routing_stats)


def _values(text: str) -> Mapping[str, Any]:
    """JSON values by name. Raises MalformedFrameError for any other text."""
    try:
        values = json.loads(text) if text else {}
    except ValueError as error:
        raise MalformedFrameError(f"what a replica says of itself is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise MalformedFrameError("what a replica says of itself is not a JSON object")
    return values
