"""One caller of a batched function: its arguments, and the future of its result or its items."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from mesh.wire.outcome import describe

STREAM_BUFFER_ITEMS = 256
"""Items one caller of a batched generator may lag behind before the generator waits for it."""


_NOT_FOR_TASKS = (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration)
"""What means something to event loops, futures and generators when it passes through them."""


def deliverable(error: BaseException) -> BaseException:
    """The error of a batch as its callers may get it: one that would end their event loop is the cause of another."""
    if not isinstance(error, _NOT_FOR_TASKS):
        return error
    told = RuntimeError(f"Code of the batch raised {describe(error)}")
    told.__cause__ = error
    return told


class BatchResult:
    """Where the caller of a unary batched function waits for its result."""

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def is_finished(self) -> bool:
        """Whether the caller got its outcome; one that was cancelled did not."""
        return self._future.done() and not self._future.cancelled()

    async def result(self) -> Any:
        return await self._future

    def deliver(self, value: Any) -> None:
        if not self._future.done():
            self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        if not self._future.done():
            self._future.set_exception(deliverable(error))


class BatchStream:
    """Where the caller of a batched generator reads its items."""

    def __init__(self) -> None:
        self.is_finished = False
        self._items: deque[Any] = deque()
        self._error: BaseException | None = None
        self._is_ready = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def deliver(self, item: Any) -> None:
        if self.is_finished:
            return
        self._items.append(item)
        self._is_ready.set()
        if len(self._items) >= STREAM_BUFFER_ITEMS:
            self._has_room.clear()

    def end(self) -> None:
        self.is_finished = True
        self._is_ready.set()
        self._has_room.set()

    def fail(self, error: BaseException) -> None:
        if not self.is_finished:
            self._error = deliverable(error)
            self.end()

    async def room(self) -> None:
        """Wait until the caller has taken enough, or no longer takes anything."""
        await self._has_room.wait()

    async def items(self) -> AsyncIterator[Any]:
        while True:
            while self._items:
                yield self._pop()
            if self.is_finished:
                break
            self._is_ready.clear()
            await self._is_ready.wait()
        if self._error is not None:
            raise self._error

    def _pop(self) -> Any:
        item = self._items.popleft()
        if len(self._items) < STREAM_BUFFER_ITEMS:
            self._has_room.set()
        return item


Outlet = TypeVar("Outlet", BatchResult, BatchStream)


@dataclass(eq=False, slots=True)
class BatchMember(Generic[Outlet]):
    """One caller, queued or in a running batch."""

    owner: object | None
    arguments: inspect.BoundArguments
    outlet: Outlet
    model_id: str
    enqueued_s: float
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    @property
    def size_item(self) -> Any:
        """What `batch_size_fn` sees of this call: its argument, or a tuple of them if there are several."""
        values = (*self.arguments.args, *self.arguments.kwargs.values())
        return values[0] if len(values) == 1 else values


AnyMember: TypeAlias = BatchMember[BatchResult] | BatchMember[BatchStream]


def merge_arguments(calls: Sequence[AnyMember]) -> inspect.BoundArguments:
    """The arguments of one call for all: every argument becomes the list of the callers' values.

    A parameter that only some callers gave has its default in the places of the others; one that no caller gave is
    left to the function.
    """
    signature = calls[0].arguments.signature
    given = {name for call in calls for name in call.arguments.arguments}
    merged = {
        name: _merge_parameter(parameter, [call.arguments.arguments.get(name, parameter.default) for call in calls])
        for name, parameter in signature.parameters.items()
        if name in given
    }
    return inspect.BoundArguments(signature, merged)


def _merge_parameter(parameter: inspect.Parameter, values: list[Any]) -> Any:
    match parameter.kind:
        case inspect.Parameter.VAR_POSITIONAL:
            rows = [() if value is parameter.default else value for value in values]
            _require_same_shape(parameter, {len(row) for row in rows})
            return tuple(list(column) for column in zip(*rows, strict=True))
        case inspect.Parameter.VAR_KEYWORD:
            tables = [{} if value is parameter.default else value for value in values]
            _require_same_shape(parameter, {frozenset(table) for table in tables})
            return {name: [table[name] for table in tables] for name in tables[0]}
        case _:
            return values


def _require_same_shape(parameter: inspect.Parameter, shapes: set[Any]) -> None:
    if len(shapes) > 1:
        raise TypeError(f"Calls of one batch disagree in what they pass as {parameter}; give these parameters names.")
