"""What the loaders of a deployment want of its replicas: models to load before they take calls, and copies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mesh.multiplex.multiplex_decorator import MultiplexedLoader


async def preload_models(target: object) -> None:
    """Load what the loaders of an object are to preload, one after the other. Raises what a loader raises."""
    for loader in _loaders(type(target)):
        for model_id in loader.options.preload:
            await loader.get((target, model_id))


def copies_min_of(target: object) -> int:
    """On how many replicas each model of an object's loaders is to be."""
    return max((loader.options.copies_min for loader in _loaders(type(target))), default=1)


def _loaders(cls: type[Any]) -> Iterator[MultiplexedLoader]:
    """Those that the methods of a class have; not those that a subclass has replaced."""
    names = dict.fromkeys(name for each in cls.__mro__ for name in vars(each))
    for name in names:
        loader = getattr(getattr(cls, name, None), "multiplexed_loader", None)
        if isinstance(loader, MultiplexedLoader) and loader.is_method:
            yield loader
