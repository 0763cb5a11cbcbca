"""`@mesh.batch`: single calls of an async function or method are executed together, as lists."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import aclosing, suppress
from typing import Any, cast, overload

from mesh.batching.batch_call import AnyMember, BatchMember, BatchResult, BatchStream, Outlet, merge_arguments
from mesh.batching.batch_queue import BatchOptions, BatchQueue
from mesh.batching.batch_receiver import BatchReceiver
from mesh.batching.batch_stats import BatchStats
from mesh.batching.batched_function import Awaited, BatchDecorator, BatchedFunction, BatchedMethod, Owner, R, T
from mesh.context import get_replica_context, in_replica
from mesh.exceptions import MeshException
from mesh.multiplex.multiplex_decorator import get_multiplexed_model_id
from mesh.options import option_checks
from mesh.options.keyword_advice import with_keyword_advice
from mesh.tracing.span_maker import SpanMaker
from mesh.tracing.trace_export import span_maker
from mesh.usercode.instance_state import InstanceState

logger = logging.getLogger(__name__)


@overload
def batch(
    function: None = None,
    /,
    *,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
) -> BatchDecorator: ...
@overload
def batch(function: Callable[[list[T]], Awaited[Sequence[R]]], /) -> BatchedFunction[[T], Awaited[R]]: ...
@overload
def batch(function: Callable[[list[T]], AsyncIterator[Sequence[R]]], /) -> BatchedFunction[[T], AsyncIterator[R]]: ...
@overload
def batch(function: Callable[[list[Any], list[Any]], Any], /) -> BatchedFunction[..., Any]: ...
@overload
def batch(function: Callable[[Owner, list[T]], Awaited[Sequence[R]]], /) -> BatchedMethod[Owner, [T], Awaited[R]]: ...
@overload
def batch(
    function: Callable[[Owner, list[T]], AsyncIterator[Sequence[R]]], /
) -> BatchedMethod[Owner, [T], AsyncIterator[R]]: ...
@overload
def batch(function: Callable[..., Any], /) -> BatchedMethod[Any, ..., Any]: ...
@with_keyword_advice
def batch(
    function: Callable[..., Any] | None = None,
    /,
    *,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
) -> Any:
    """Let an `async def` take lists, one entry per caller, and return a list of as many results.

    Callers pass single values and get single results. An async generator yields lists with one item per caller; a
    `StopIteration` in a caller's place ends that caller's stream. A batch starts when `max_batch_size` callers wait, or
    `batch_wait_timeout_s` after the first of them came. Callers with different multiplexed model ids never share one.
    `batch_size_fn` measures a list of items where counting them is not enough; `max_batch_size` then limits its result.

    Each object has its own queue for a method. The decorated function has `set_max_batch_size` and
    `set_batch_wait_timeout_s`.

    Args:
        max_batch_size: callers per batch, or the largest result of `batch_size_fn`.
        batch_wait_timeout_s: how long the first caller waits for others, in seconds.
        max_concurrent_batches: batches that run at the same time, per object and event loop.
        batch_size_fn: measures a list of items; None counts them.

    Raises TypeError and ValueError for unusable options.

    Example:
        @mesh.batch(max_batch_size=8)
        async def square(numbers: list[int]) -> list[int]:
            return [number**2 for number in numbers]
    """
    if function is not None and not callable(function):
        raise TypeError(f"@mesh.batch decorates an async def function, not {function!r}.")
    if batch_size_fn is not None and not callable(batch_size_fn):
        raise TypeError(f"batch_size_fn must be a function that measures a list of items, got {batch_size_fn!r}.")
    options = BatchOptions(
        max_batch_size=_count("max_batch_size", max_batch_size),
        batch_wait_timeout_s=option_checks.number("batch_wait_timeout_s", batch_wait_timeout_s),
        max_concurrent_batches=_count("max_concurrent_batches", max_concurrent_batches),
        batch_size_fn=batch_size_fn,
    )

    def decorate(function: Callable[..., Any]) -> Any:
        return _wrap(Batcher(function, options))

    return decorate if function is None else decorate(function)


def _wrap(batcher: Batcher) -> Any:
    """A real function of the same kind, so that inspecting the method shows what it is."""
    function = batcher.function

    @functools.wraps(function)
    async def call_batched(*args: Any, **kwargs: Any) -> Any:
        return await batcher.call(args, kwargs)

    @functools.wraps(function)
    async def stream_batched(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with aclosing(batcher.stream(args, kwargs)) as items:  # type: ignore[type-var]
            async for item in items:
                yield item

    wrapped: Any = stream_batched if batcher.is_generator else call_batched
    wrapped.set_max_batch_size = batcher.set_max_batch_size
    wrapped.set_batch_wait_timeout_s = batcher.set_batch_wait_timeout_s
    return wrapped


class Batcher:
    """One batched function: its options, its figures and the queues of its objects.

    Each object that has the method has a queue of its own on each event loop; a function has one per loop.
    """

    def __init__(self, function: Callable[..., Any], options: BatchOptions) -> None:
        """`function` takes lists of equal length, one element for each caller. Raises TypeError if it is not async."""
        self.function = function
        self.is_generator = inspect.isasyncgenfunction(function)
        if not self.is_generator and not inspect.iscoroutinefunction(function):
            raise TypeError(f"@mesh.batch needs an `async def` function, got {function!r}. Declare it `async def`.")
        self._name = _name_of(function)
        self._options = options
        self._receiver = BatchReceiver(function)
        self._queues: InstanceState[dict[asyncio.AbstractEventLoop, BatchQueue]] = InstanceState()
        self._stats = BatchStats(self._name.rpartition(".")[2], self._queue_length)
        self._is_capacity_checked = False

    def __repr__(self) -> str:
        return f"<Batcher of {self._name}, {self._queue_length()} calls waiting>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Decorated classes are pickled by value into replicas. What waits here belongs to this process.
        return Batcher, (self.function, self._options)

    async def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The caller's element of the list that its batch returns.

        Raises what the function raises, TypeError for arguments that it does not take, and MeshException where the
        result does not have one element for each caller.
        """
        call = self._call(BatchResult(), args, kwargs)
        queue = self._queue_of(call.owner)
        queue.add(call)
        try:
            return await call.outlet.result()
        finally:
            queue.leave(call)

    async def stream(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """The caller's element of each list that its batch yields, until that is StopIteration. Raises as `call`."""
        call = self._call(BatchStream(), args, kwargs)
        queue = self._queue_of(call.owner)
        queue.add(call)
        try:
            async for item in call.outlet.items():
                yield item
        finally:
            queue.leave(call)
            call.outlet.end()

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Calls of a batch, from the next one on. Raises TypeError or ValueError unless it is a positive integer."""
        self._options.max_batch_size = _count("max_batch_size", max_batch_size)
        self._is_capacity_checked = False
        self._options_changed()

    def set_batch_wait_timeout_s(self, batch_wait_timeout_s: float) -> None:
        """How long the first call of a batch waits for others, in seconds. Raises TypeError, or ValueError below 0."""
        self._options.batch_wait_timeout_s = option_checks.number("batch_wait_timeout_s", batch_wait_timeout_s)
        self._options_changed()

    def _options_changed(self) -> None:
        for queues in self._queues.values():
            for loop, queue in list(queues.items()):
                with suppress(RuntimeError):  # it is closed
                    loop.call_soon_threadsafe(queue.options_changed)

    def _call(self, outlet: Outlet, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BatchMember[Outlet]:
        try:
            owner, arguments = self._receiver.bind(args, kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}") from None
        return BatchMember(owner, arguments, outlet, get_multiplexed_model_id(), asyncio.get_running_loop().time())

    def _queue_of(self, owner: object | None) -> BatchQueue:
        queues = self._queues.get(owner, dict)
        loop = asyncio.get_running_loop()
        queue = queues.get(loop)
        if not self._is_capacity_checked:
            self._check_capacity()
        if queue is None:
            for closed in [other for other in list(queues) if other.is_closed()]:
                queues.pop(closed, None)
            spans = span_maker()
            execute = self._execute if spans is None else functools.partial(self._execute_traced, spans)
            queue = queues[loop] = BatchQueue(self._options, self._stats, execute)
        return queue

    def _queue_length(self) -> int:
        return sum(len(queue) for queues in self._queues.values() for queue in list(queues.values()))

    def _check_capacity(self) -> None:
        """Warn of batches that can never fill because the replica takes fewer requests than they need.

        At the first call, and again when the size has changed.
        """
        if not in_replica():
            return
        self._is_capacity_checked = True
        needed = self._options.max_batch_size * self._options.max_concurrent_batches
        max_ongoing_requests = get_replica_context().max_ongoing_requests
        if self._options.batch_size_fn is None and needed > max_ongoing_requests:
            logger.warning(
                "%s: max_batch_size (%d) x max_concurrent_batches (%d) is more than max_ongoing_requests (%d), so "
                "batches cannot fill. Raise max_ongoing_requests of the deployment to at least %d.",
                self._name,
                self._options.max_batch_size,
                self._options.max_concurrent_batches,
                max_ongoing_requests,
                needed,
            )

    async def _execute(self, calls: Sequence[AnyMember]) -> None:
        arguments = merge_arguments(calls)
        receiver = () if calls[0].owner is None else (calls[0].owner,)
        outcome = self.function(*receiver, *arguments.args, **arguments.kwargs)
        if self.is_generator:
            async with aclosing(outcome):
                await _hand_out_streams(outcome, cast("Sequence[BatchMember[BatchStream]]", calls))
        else:
            _hand_out(await outcome, calls)

    async def _execute_traced(self, spans: SpanMaker, calls: Sequence[AnyMember]) -> None:
        name, attributes = f"batch {self._name}", {"mesh.batch_size": len(calls)}
        with spans.internal(name, attributes, [call.context for call in calls]):
            await self._execute(calls)


def _hand_out(results: Any, calls: Sequence[AnyMember]) -> None:
    _require_one_each(results, calls)
    for call, result in zip(calls, results, strict=True):
        call.outlet.deliver(result)


async def _hand_out_streams(generator: AsyncIterator[Any], calls: Sequence[BatchMember[BatchStream]]) -> None:
    """Give every caller its item of every yielded list, until the generator or the last caller is done."""
    async for items in generator:
        _require_one_each(items, calls)
        for call, item in zip(calls, items, strict=True):
            if _is_end(item):
                call.outlet.end()
            else:
                call.outlet.deliver(item)
        for call in calls:
            await call.outlet.room()
        if all(call.outlet.is_finished for call in calls):
            return
    for call in calls:
        call.outlet.end()


def _is_end(item: Any) -> bool:
    # Identity, not equality: arrays compare element by element.
    return isinstance(item, StopIteration | StopAsyncIteration) or item is StopIteration or item is StopAsyncIteration


def _require_one_each(results: Any, calls: Sequence[AnyMember]) -> None:
    count = _length(results)
    if count != len(calls):
        given = f"results: {count}" if count is not None else f"the result: one {type(results).__name__}"
        raise MeshException(
            f"Batched function doesn't preserve batch size: calls: {len(calls)}, {given}. "
            "Return a list with one entry per call, in their order."
        )


def _length(results: Any) -> int | None:
    """None for what is one result, and no list of them."""
    if isinstance(results, str | bytes | Mapping | Set) or getattr(results, "shape", None) == ():
        return None
    return len(results) if hasattr(results, "__len__") else None


def _name_of(function: Callable[..., Any]) -> str:
    """As tracebacks have it; of a partial function that of the whole one."""
    while isinstance(function, functools.partial):
        function = function.func
    return function.__qualname__


def _count(name: str, value: object) -> int:
    """Numbers from a `user_config` may be 8.0 where 8 is meant."""
    return option_checks.whole_number(name, int(value) if isinstance(value, float) and value.is_integer() else value, 1)
