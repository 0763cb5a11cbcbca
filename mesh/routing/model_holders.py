"""Which replicas hold which models: looked up once per model, until one of them gains or loses it. I/O loop only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesh.routing.endpoint import Endpoint

_KNOWN_MAX = 4096
"""Models that are remembered: clients may name any number of them."""


class ModelHolders:
    """An index of the replicas that calls may be sent to."""

    def __init__(self) -> None:
        self._candidates: Sequence[Endpoint] = ()
        self._holders: dict[str, list[Endpoint]] = {}

    def of(self, model_id: str) -> Sequence[Endpoint]:
        """The candidates that hold the model or load it."""
        holders = self._holders.get(model_id)
        if holders is None:
            if len(self._holders) >= _KNOWN_MAX:
                self._holders.clear()
            holders = self._holders[model_id] = [each for each in self._candidates if each.holds(model_id)]
        return holders

    def reset(self, candidates: Sequence[Endpoint]) -> None:
        """These are the candidates now."""
        self._candidates = candidates
        self._holders.clear()

    def forget(self, model_ids: Iterable[str]) -> None:
        """A replica has gained or lost these models."""
        for model_id in model_ids:
            self._holders.pop(model_id, None)
