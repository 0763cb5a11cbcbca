"""Contexts of servicers, as grpc.aio's (on the loop) and as grpc's (in a thread)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NoReturn, Protocol

import grpc

from mesh.rpc.request_head import RequestHead

_ENCODINGS = {grpc.Compression.Gzip: "gzip", grpc.Compression.Deflate: "deflate"}


class CallAbortedError(Exception):
    """The servicer, or what serves it, has ended the call; its outcome says how."""


def loop_deadline(deadline_at_s: float | None) -> float | None:
    """An instant of `time.monotonic()` as the running loop counts time."""
    return None if deadline_at_s is None else asyncio.get_running_loop().time() + deadline_at_s - monotonic()


@dataclass(slots=True)
class CallOutcome:
    """How a call is to end, as the servicer sets it."""

    code: grpc.StatusCode | None = None
    details: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    is_aborted: bool = False
    callbacks: list[Callable[[], object]] = field(default_factory=list)
    """Called once it has ended."""

    def replace(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details, self.trailers = code, details, ()

    def abort(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> NoReturn:
        """The first one counts, even if the servicer catches what it raises."""
        if not self.is_aborted:
            self.is_aborted = True
            self.code = grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code
            self.details = details
            self.trailers = tuple(trailers) or self.trailers
        raise CallAbortedError(details)


class ContextCall(Protocol):
    """The call of a context. Implemented by `ServicerCall`, and by what runs servicers without a stream of HTTP/2."""

    head: RequestHead
    peer: str
    deadline_at_s: float | None
    outcome: CallOutcome

    @property
    def has_ended(self) -> bool: ...

    async def read(self) -> Any: ...

    async def write(self, message: Any) -> None: ...

    def send_headers(self, metadata: Any = ()) -> None: ...

    def set_encoding(self, encoding: str) -> None: ...


class _Context:
    """What needs neither loop nor thread."""

    def __init__(self, call: ContextCall) -> None:
        self._call = call

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._call.head.metadata

    def peer(self) -> str:
        return self._call.peer

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None without one."""
        at_s = self._call.deadline_at_s
        return None if at_s is None else max(0.0, at_s - monotonic())

    def set_code(self, code: grpc.StatusCode) -> None:
        self._call.outcome.code = code

    def set_details(self, details: str) -> None:
        self._call.outcome.details = details

    def set_trailing_metadata(self, metadata: Any) -> None:
        self._call.outcome.trailers = tuple(metadata)

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the responses, if the client takes it and the headers were not sent before."""
        self._call.set_encoding(_ENCODINGS.get(compression, ""))

    def cancelled(self) -> bool:
        """Whether the client has gone, or the call has ended otherwise."""
        return self._call.has_ended


class AsyncContext(_Context):
    """For `async` servicers."""

    async def read(self) -> Any:
        return await self._call.read()

    async def write(self, message: Any) -> None:
        await self._call.write(message)

    async def send_initial_metadata(self, metadata: Any) -> None:
        self._call.send_headers(metadata)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self._call.outcome.abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self._call.outcome.abort(status.code, status.details, status.trailing_metadata or ())

    def done(self) -> bool:
        return self._call.has_ended

    def add_done_callback(self, callback: Callable[[AsyncContext], object]) -> None:
        """Call it with this context when the call has ended."""
        self._call.outcome.callbacks.append(lambda: callback(self))


class ThreadContext(_Context):
    """For plain servicers, which run in a thread; it hands over to the loop where that is needed."""

    def __init__(self, call: ContextCall, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(call)
        self._loop = loop

    def write(self, message: Any) -> None:
        self._wait(self._call.write(message))

    def send_initial_metadata(self, metadata: Any) -> None:
        self._wait(AsyncContext(self._call).send_initial_metadata(metadata))

    def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        self._call.outcome.abort(code, details)

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self._call.outcome.abort(status.code, status.details, status.trailing_metadata or ())

    def is_active(self) -> bool:
        return not self._call.has_ended

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Call it when the call has ended; False if it has."""
        self._call.outcome.callbacks.append(callback)
        return not self._call.has_ended

    def iterate(self, requests: AsyncIterator[Any]) -> Iterator[Any]:
        """The requests for a thread."""
        while True:
            try:
                yield self._wait(anext(requests))
            except StopAsyncIteration:
                return

    def _wait(self, awaitable: Any) -> Any:
        """Every wait ends at the latest when the call does: `ServicerCall` wakes it then."""

        async def run() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()
