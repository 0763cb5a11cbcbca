"""mesh.batching.batch_receiver: methods are known whatever their first parameter is called."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest
from ray import cloudpickle

from mesh.batching.batch_decorator import batch

_batched = batch(max_batch_size=4, batch_wait_timeout_s=0.01)


def _logged(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    async def logged(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return logged


async def _with_owner(owner: Any, values: list[int]) -> list[tuple[str, list[int]]]:
    return [(owner.name, values)] * len(values)


class Model:
    def __init__(self, name: str) -> None:
        self.name = name

    @_batched
    async def of_this(this, values: list[int]) -> list[tuple[str, list[int]]]:
        return [(this.name, values)] * len(values)

    @_logged
    @_batched
    async def decorated(this, values: list[int]) -> list[tuple[str, list[int]]]:
        return [(this.name, values)] * len(values)

    @classmethod
    @_batched
    async def of_class(klass, values: list[int]) -> list[tuple[str, list[int]]]:
        return [(klass.__name__, values)] * len(values)

    @staticmethod
    @_batched
    async def names(models: list[Any]) -> list[list[str]]:
        return [[model.name for model in models]] * len(models)

    added = _batched(_with_owner)


class Heir(Model):
    async def of_this(self, values: Any) -> Any:
        return await super().of_this(values)


@pytest.mark.parametrize("name", ["of_this", "decorated", "added"])
@pytest.mark.parametrize("cls", [Model, Heir])
def test_a_method_has_a_queue_for_each_object_whatever_its_first_parameter_is_called(
    name: str, cls: type[Model]
) -> None:
    """Objects never share a batch, and the method gets its object, not a list of them (item 134)."""
    a, b = cls("a"), cls("b")

    async def main() -> list[Any]:
        calls = (getattr(owner, name)(value) for value, owner in enumerate((a, b, a, b)))
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [("a", [0, 2]), ("b", [1, 3]), ("a", [0, 2]), ("b", [1, 3])]


class AnyName:
    """A descriptor with all attributes that it is asked for, as proxies have."""

    def __get__(self, instance: object, owner: type) -> str:
        return "any"

    def __getattr__(self, name: str) -> AnyName:
        return AnyName()


def test_what_else_a_class_has_does_not_matter() -> None:
    class Proxied(Model):
        proxy = AnyName()

    assert asyncio.run(Proxied("a").of_this(1)) == ("a", [1])


def test_a_class_method_is_called_on_its_class_and_a_static_one_on_nothing() -> None:
    """The class has the queue of the former; objects that the latter takes are arguments like others (item 134)."""
    a, b = Model("a"), Model("b")

    async def main() -> list[Any]:
        return await asyncio.gather(Model.of_class(1), Model.of_class(2), Model.names(a), Model.names(b))

    of_class, names = ("Model", [1, 2]), ["a", "b"]
    assert asyncio.run(main()) == [of_class, of_class, names, names]


def test_a_class_that_came_by_pickle_has_the_same_methods() -> None:
    """As in a replica (item 134)."""

    class Local:
        @_batched
        async def of_this(this, values: list[int]) -> list[int]:
            return [id(this)] * len(values)

    arrived = cloudpickle.loads(cloudpickle.dumps(Local))
    first, second = arrived(), arrived()

    async def main() -> list[int]:
        return await asyncio.gather(first.of_this(1), second.of_this(1))

    assert asyncio.run(main()) == [id(first), id(second)]
