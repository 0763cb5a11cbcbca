"""What `@mesh.multiplexed` makes of a loader, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar, overload

Model = TypeVar("Model")
Model_co = TypeVar("Model_co", covariant=True)


class ModelLoader(Protocol[Model_co]):
    """A function, or a method of an object."""

    def __call__(self, model_id: str) -> Coroutine[Any, Any, Model_co]: ...

    def set_aliases(self, aliases: Mapping[str, str]) -> None:
        """Replace all aliases, for every object of this process. Raises TypeError or ValueError."""


class ModelLoaderMethod(Protocol[Model_co]):
    """A method, of its class."""

    def __get__(self, instance: Any, owner: type | None = None) -> ModelLoader[Model_co]: ...


class LoaderDecorator(Protocol):
    @overload
    def __call__(self, function: Callable[[str], Coroutine[Any, Any, Model]]) -> ModelLoader[Model]: ...
    @overload
    def __call__(self, function: Callable[[Any, str], Coroutine[Any, Any, Model]]) -> ModelLoaderMethod[Model]: ...
