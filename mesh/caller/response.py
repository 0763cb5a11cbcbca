"""What `handle.remote()` returns: DeploymentResponse and DeploymentResponseGenerator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

from mesh.caller.call_future import CallFuture, ItemStream
from mesh.caller.not_a_value import NotAValue
from mesh.cluster import ray_objects
from mesh.exceptions import MeshException
from mesh.options.calls.metadata_option import CallMetadata
from mesh.options.keyword_advice import with_keyword_advice
from mesh.wire.outcome import Trailers, to_exception
from mesh.wire.payload import decode

R = TypeVar("R")

_SYNC_IN_LOOP = (
    "Sync methods should not be called from within an `asyncio` event loop. Use `await response` "
    "(or `async for` on a generator) instead."
)
_UNSET: Any = object()


class _Response(NotAValue):
    """What both kinds of responses share."""

    _future: CallFuture
    _is_cancelled = False
    _read = staticmethod(decode)
    """Reads a payload; calls of typed methods have a reader of their own."""
    _to_get_it: ClassVar[str]
    """What to write, for those who take the response for what the method returned."""

    def __init__(self, future: CallFuture, request_id: str) -> None:
        self._future = future
        self._request_id = request_id

    @property
    def request_id(self) -> str:
        return self._request_id

    @property
    def by_reference(self) -> bool:
        """False: results travel by value. `_to_object_ref()` works with them."""
        return False

    def cancel(self) -> None:
        """Cancel the call and the calls made for it. Best effort, idempotent, from any thread."""
        self._is_cancelled = True
        self._future.cancel()

    def cancelled(self) -> bool:
        """Whether `cancel` was called, even if the call had completed."""
        return self._is_cancelled

    def __repr__(self) -> str:
        state = "in progress" if self._future.outcome is None else "completed"
        return f"<{type(self).__name__} of request {self.request_id}, {state}: {self._to_get_it}>"

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> NoReturn:
            advice = "" if name.startswith("_") else f". For what the method returned, {self._to_get_it}"
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{advice}")

    async def initial_metadata(self) -> CallMetadata:
        """What the method has sent ahead of its first response, waiting for it; empty if it sends none."""
        await self._future.wait_headers()
        return _decoded(self._future.initial_metadata or ())

    async def trailing_metadata(self) -> CallMetadata:
        """What the method has sent behind its last response, waiting for the end of the call, however it ends."""
        outcome = await self._future.wait(is_shielded=True)
        return _decoded(outcome.trailers)

    def initial_metadata_sync(self, *, timeout_s: float | None = None) -> CallMetadata:
        """Like `initial_metadata`, blocking. Raises TimeoutError, and RuntimeError in a thread with an event loop."""
        refuse_in_loop()
        self._future.wait_headers_blocking(timeout_s)
        return _decoded(self._future.initial_metadata or ())

    def trailing_metadata_sync(self, *, timeout_s: float | None = None) -> CallMetadata:
        """Like `trailing_metadata`, blocking. Raises TimeoutError, and RuntimeError in a thread with an event loop."""
        refuse_in_loop()
        return _decoded(self._future.wait_blocking(timeout_s).trailers)

    def __reduce__(self) -> NoReturn:
        raise MeshException(
            f"`{type(self).__name__}` is not serializable. Pass it as a top-level argument of a handle call, or await "
            "it and pass the value."
        )


class DeploymentResponse(_Response, Generic[R]):
    """The future value of one call.

    `await` it in any event loop, or call `result()` in a thread without one; both any number of times.
    """

    _to_get_it = "await it, or ask for its result()"

    _value: Any = _UNSET
    _error: BaseException | None = None

    def __await__(self) -> Generator[Any, None, R]:
        if self._future.outcome is None:
            yield from self._future.wait().__await__()
        return self._get()

    @with_keyword_advice
    def result(self, *, timeout_s: float | None = None) -> R:
        """The value; blocks up to `timeout_s` seconds.

        Raises what the method raised, TimeoutError (the call goes on), RequestCancelledError, and RuntimeError in a
        thread that runs an event loop.
        """
        refuse_in_loop()
        self._future.wait_blocking(timeout_s)
        return self._get()

    if not TYPE_CHECKING:  # for them a loop is an error, as it is at run time

        def __iter__(self) -> NoReturn:
            raise _not_a_stream("for")

        def __aiter__(self) -> NoReturn:
            raise _not_a_stream("async for")

    async def _to_object_ref(self) -> Any:
        """Reference to the result in Ray's object store, for a Ray task or actor."""
        value = await self
        return ray_objects.put_object(value)

    def _to_object_ref_sync(self, _timeout_s: float | None = None, _allow_running_in_asyncio_loop: bool = False) -> Any:
        """Like `_to_object_ref`, blocking. Raises TimeoutError."""
        if not _allow_running_in_asyncio_loop:
            refuse_in_loop()
        with _as_reference_timeout():
            self._future.wait_blocking(_timeout_s)
        return ray_objects.put_object(self._get())

    def _get(self) -> R:
        if self._error is not None:
            # Without the frames of earlier raises, which would pile up.
            raise self._error.with_traceback(None)
        if self._value is _UNSET:
            outcome = self._future.outcome
            assert outcome is not None
            if not outcome.is_ok:
                self._error = to_exception(outcome)
                raise self._error
            self._value = self._read(outcome.payload) if outcome.payload is not None else None
        value: R = self._value
        return value


class DeploymentResponseGenerator(_Response, Generic[R]):
    """The future values of one streaming call, in order, as they are produced.

    Iterate with `async for` inside an event loop, with `for` elsewhere. Dropping it half-read stops the producer.
    """

    _future: ItemStream
    _to_get_it = "iterate over it with `for` or `async for`"

    def __await__(self) -> NoReturn:
        raise TypeError(
            "A DeploymentResponseGenerator cannot be awaited. Use `async for` to get its items, or "
            "`_to_object_ref_gen` for references."
        )

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    async def __anext__(self) -> R:
        payload = self._future.take()
        if payload is None:
            payload = await self._future.next_item()
        if payload is None:
            self._raise_end(StopAsyncIteration)
        item: R = self._read(payload)
        return item

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        refuse_in_loop()
        return self._next_blocking()

    async def aclose(self) -> None:
        """Stop the producer; like `cancel`, under the name that `contextlib.aclosing` looks for."""
        self.cancel()

    def result(self, *, timeout_s: float | None = None) -> NoReturn:
        """Raises TypeError: there are many results."""
        raise TypeError("A streaming response has no single result. Iterate over it with `for` or `async for`.")

    def __del__(self) -> None:
        future = getattr(self, "_future", None)
        if future is not None and future.outcome is None:
            future.abandon()

    async def _to_object_ref_gen(self) -> ItemReferences:
        """References to the items in Ray's object store, for Ray tasks and actors."""
        return ItemReferences(self._next_blocking, self.__anext__)

    def _to_object_ref_gen_sync(
        self, _timeout_s: float | None = None, _allow_running_in_asyncio_loop: bool = False
    ) -> ItemReferences:
        """Like `_to_object_ref_gen`. With `_timeout_s` it waits for the first item, and raises TimeoutError."""
        if not _allow_running_in_asyncio_loop:
            refuse_in_loop()
        if _timeout_s is not None:
            with _as_reference_timeout():
                self._future.wait_headers_blocking(_timeout_s)
        return ItemReferences(self._next_blocking, self.__anext__)

    def _next_blocking(self) -> R:
        payload = self._future.next_item_blocking()
        if payload is None:
            self._raise_end(StopIteration)
        item: R = self._read(payload)
        return item

    def _raise_end(self, stop: type[Exception]) -> NoReturn:
        outcome = self._future.outcome
        assert outcome is not None
        if outcome.is_ok:
            raise stop
        error = to_exception(outcome)
        if isinstance(error, StopIteration | StopAsyncIteration):
            raise RuntimeError(f"the method raised {type(error).__name__}") from error
        raise error


class ItemReferences:
    """References to the items of a stream in Ray's object store, one by one: for `for`, and for `async for`.

    Each one is made when it is asked for, of an item that has arrived.
    """

    def __init__(self, next_item: Callable[[], Any], next_item_async: Callable[[], Awaitable[Any]]) -> None:
        self._next_item = next_item
        self._next_item_async = next_item_async

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return ray_objects.put_object(self._next_item())

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return ray_objects.put_object(await self._next_item_async())


def refuse_in_loop() -> None:
    """Raises RuntimeError in a thread that runs an event loop, which a blocking wait would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(_SYNC_IN_LOOP)


@contextmanager
def _as_reference_timeout() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise TimeoutError("Timed out resolving to ObjectRef.") from error


def _decoded(entries: Trailers) -> CallMetadata:
    """Metadata with values as gRPC gives them: text, and bytes under keys that end in "-bin"."""
    return tuple((key, value if key.endswith("-bin") else value.decode("latin-1")) for key, value in entries)


def _not_a_stream(loop: str) -> TypeError:
    return TypeError(
        f"A DeploymentResponse is one value: await it, or ask for its result(). For `{loop}` over the items of a "
        "generator, call it through handle.options(stream=True)."
    )
