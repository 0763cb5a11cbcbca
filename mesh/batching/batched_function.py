"""For type checkers: what `mesh.batch` makes of functions and methods that take lists. At run time these are functions.

A parameter that is a list becomes one of its items, and so does the list that is returned or yielded. With several such
parameters callers may pass anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import CodeType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, overload

Items = ParamSpec("Items")
"""What one caller passes."""
Result_co = TypeVar("Result_co", covariant=True)
Owner_contra = TypeVar("Owner_contra", contravariant=True)
"""The object that a method is called on."""
Owner = TypeVar("Owner")
T = TypeVar("T")
R = TypeVar("R")

Awaited: TypeAlias = Coroutine[Any, Any, R]


class BatchedFunction(Protocol[Items, Result_co]):
    @property
    def __code__(self) -> CodeType: ...
    def __call__(self, *args: Items.args, **kwargs: Items.kwargs) -> Result_co: ...
    def set_max_batch_size(self, max_batch_size: int) -> None: ...
    def set_batch_wait_timeout_s(self, batch_wait_timeout_s: float) -> None: ...


class BatchedMethod(Protocol[Owner_contra, Items, Result_co]):
    @overload
    def __get__(
        self, instance: None, owner: type[Any]
    ) -> BatchedFunction[Concatenate[Owner_contra, Items], Result_co]: ...
    @overload
    def __get__(self, instance: Owner_contra, owner: type[Any]) -> BatchedFunction[Items, Result_co]: ...
    def __call__(self, owner: Owner_contra, /, *args: Items.args, **kwargs: Items.kwargs) -> Result_co: ...


class BatchDecorator(Protocol):
    """What `mesh.batch` returns when it is called with options only."""

    @overload
    def __call__(self, function: Callable[[list[T]], Awaited[Sequence[R]]], /) -> BatchedFunction[[T], Awaited[R]]: ...
    @overload
    def __call__(
        self, function: Callable[[list[T]], AsyncIterator[Sequence[R]]], /
    ) -> BatchedFunction[[T], AsyncIterator[R]]: ...
    @overload
    def __call__(self, function: Callable[[list[Any], list[Any]], Any], /) -> BatchedFunction[..., Any]: ...
    @overload
    def __call__(
        self, function: Callable[[Owner, list[T]], Awaited[Sequence[R]]], /
    ) -> BatchedMethod[Owner, [T], Awaited[R]]: ...
    @overload
    def __call__(
        self, function: Callable[[Owner, list[T]], AsyncIterator[Sequence[R]]], /
    ) -> BatchedMethod[Owner, [T], AsyncIterator[R]]: ...
    @overload
    def __call__(self, function: Callable[..., Any], /) -> BatchedMethod[Any, ..., Any]: ...
