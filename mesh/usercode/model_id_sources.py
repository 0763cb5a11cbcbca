"""Where requests to a class name the multiplexed model, for gateways: they prefer replicas that have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_ATTRIBUTE = "__mesh_model_ids__"


@dataclass(frozen=True, slots=True)
class ModelIdSources:
    """What a class carries in its attribute `__mesh_model_ids__`. Several parts of an id are joined by ":"."""

    fields: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By full name of a gRPC method: the numbers of string fields of its request. Empty ones are left out."""
    paths: tuple[str, ...] = ()
    """Beginnings of paths below the route prefix, with "{}" for a segment; of two that fit the first counts."""


_NONE = ModelIdSources()


def model_ids_of(code: object) -> ModelIdSources:
    """What a deployed class says; nothing for functions and all other classes."""
    found = getattr(code, _ATTRIBUTE, None)
    return found if isinstance(found, ModelIdSources) else _NONE
