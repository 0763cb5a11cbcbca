"""The options of `@mesh.multiplexed`, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mesh.multiplex.model_limits import ModelLimits
from mesh.options import option_checks

UNLIMITED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiplexOptions:
    limits: ModelLimits
    model_size_fn: Callable[..., Any] | None
    """Measures a model by its id before it is loaded, in bytes; None: models have no size."""
    preload: tuple[str, ...]
    """Loaded when a replica starts."""
    aliases: Mapping[str, str]
    """Other names of models."""
    copies_min: int
    """Replicas on which callers keep each model."""

    @property
    def needs_owner(self) -> bool:
        """Whether `model_size_fn` takes the object that a loader is a method of."""
        return self.model_size_fn is not None and len(inspect.signature(self.model_size_fn).parameters) == 2

    def with_aliases(self, aliases: Mapping[str, str]) -> MultiplexOptions:
        """Raises TypeError or ValueError for aliases that cannot be."""
        return replace(self, aliases=checked_aliases(aliases))

    def resolved(self, model_id: str) -> str:
        """The model that an id means."""
        return self.aliases.get(model_id, model_id)


def multiplex_options(
    max_num_models_per_replica: Any,
    max_bytes_per_replica: Any,
    model_size_fn: Any,
    preload: Any,
    aliases: Any,
    min_copies: Any,
) -> MultiplexOptions:
    """Raises TypeError or ValueError for unusable values."""
    limits = ModelLimits(_model_limit(max_num_models_per_replica), _byte_limit(max_bytes_per_replica))
    if model_size_fn is not None:
        _check_size_fn(model_size_fn)
    if (limits.bytes_max is None) != (model_size_fn is None):
        raise ValueError("max_bytes_per_replica and model_size_fn come together: a limit, and what measures a model.")
    names = checked_aliases({} if aliases is None else aliases)
    return MultiplexOptions(
        limits=limits,
        model_size_fn=model_size_fn,
        preload=_preload(preload, limits, names),
        aliases=names,
        copies_min=option_checks.whole_number("min_copies", min_copies, 1),
    )


def checked_aliases(aliases: Any) -> Mapping[str, str]:
    """A copy. Raises TypeError or ValueError for aliases that cannot be."""
    if not isinstance(aliases, Mapping):
        raise TypeError(f"aliases must be a mapping of aliases to model ids, not {aliases!r}.")
    for pair in aliases.items():
        if not all(isinstance(each, str) for each in pair):
            raise TypeError(f"aliases maps strings to strings, not {pair!r}.")
        if not all(pair):
            raise ValueError(f"An alias and its model id must not be empty: {pair!r}.")
        for each in pair:
            option_checks.name_text("A model id", each)
    for alias, model_id in aliases.items():
        if model_id in aliases:
            raise ValueError(f"Alias {alias!r} means {model_id!r}, which is an alias itself. Name the model.")
    return dict(aliases)


def model_size(value: object) -> int:
    """What a `model_size_fn` has returned. Raises TypeError or ValueError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"model_size_fn must return the size of a model in bytes, not {value!r}.")
    if value < 0:
        raise ValueError(f"model_size_fn returned {value} bytes.")
    return value


def _preload(model_ids: Any, limits: ModelLimits, aliases: Mapping[str, str]) -> tuple[str, ...]:
    if isinstance(model_ids, str) or not isinstance(model_ids, Sequence):
        raise TypeError(f"preload must be a list of model ids, not {model_ids!r}.")
    for model_id in model_ids:
        if not isinstance(model_id, str):
            raise TypeError(f"preload must be a list of model ids, which are strings, got {model_id!r} in it.")
        if not model_id:
            raise ValueError("A model id to preload is empty.")
        option_checks.name_text("A model id", model_id)
    distinct = {aliases.get(model_id, model_id) for model_id in model_ids}
    if limits.models_max is not None and len(distinct) > limits.models_max:
        raise ValueError(
            f"preload names {len(distinct)} models, and max_num_models_per_replica is {limits.models_max}: name fewer "
            "or raise it."
        )
    return tuple(model_ids)


def _check_size_fn(function: Any) -> None:
    if not callable(function):
        raise TypeError(f"model_size_fn must be a function of a model id, or of the object and one, not {function!r}.")
    count = len(inspect.signature(function).parameters)
    if count not in (1, 2):
        raise TypeError(
            f"model_size_fn must have one parameter, the model id, or two, the object and the id; it has {count}."
        )


def _model_limit(value: Any) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"max_num_models_per_replica must be an integer, not {value!r}.")
    if value == 0 or value < UNLIMITED:
        raise ValueError(f"max_num_models_per_replica must be positive, or -1 for no limit; not {value}.")
    return None if value == UNLIMITED else value


def _byte_limit(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"max_bytes_per_replica must be an integer, not {value!r}.")
    if value is not None and value < 1:
        raise ValueError(f"max_bytes_per_replica must be positive, not {value}.")
    return value
