"""How many models one loader may keep, and how large they may be together: which one goes before another comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """The limits of the models of one object; None: no limit."""

    models_max: int | None = None
    bytes_max: int | None = None

    def refusal(self, size: int) -> str:
        """Why a model of `size` bytes can never be loaded; empty if it can."""
        if self.bytes_max is None or size <= self.bytes_max:
            return ""
        return f"it has {size} bytes, more than max_bytes_per_replica={self.bytes_max}"

    def has_room(self, sizes: Mapping[str, int], size: int) -> bool:
        """Whether a model of `size` bytes fits beside those that are there, by id."""
        if self.models_max is not None and len(sizes) >= self.models_max:
            return False
        return self.bytes_max is None or sum(sizes.values()) + size <= self.bytes_max

    def next_victim(self, sizes: Mapping[str, int], size: int) -> str | None:
        """The model to unload next, so that one of `size` bytes fits. None if it fits, or no model is there.

        `sizes`: the bytes of those that are there, the least recently used first.
        """
        return None if self.has_room(sizes, size) else next(iter(sizes), None)
