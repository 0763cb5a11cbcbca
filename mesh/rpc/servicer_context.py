"""Contexts of servicers, as grpc.aio's (on the loop) and as grpc's (in a thread)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any, Protocol

import grpc

from mesh.rpc.request_head import RequestHead


class CallAborted(Exception):
    """The servicer, or what serves it, has ended the call with a status."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailers = trailers


class ContextCall(Protocol):
    """The call of a context; implemented by `ServicerCall`."""

    head: RequestHead
    peer: str
    deadline_at_s: float | None

    @property
    def has_ended(self) -> bool: ...

    async def read(self) -> Any: ...

    async def write(self, message: Any) -> None: ...

    def send_headers(self, metadata: Any = ()) -> None: ...


class _Context:
    """What needs neither loop nor thread."""

    def __init__(self, call: ContextCall) -> None:
        self._call = call
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailers: Any = ()

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._call.head.metadata

    def peer(self) -> str:
        return self._call.peer

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None without one."""
        at_s = self._call.deadline_at_s
        return None if at_s is None else max(0.0, at_s - monotonic())

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, metadata: Any) -> None:
        self._trailers = tuple(metadata)

    def cancelled(self) -> bool:
        """Whether the client has gone, or the call has ended otherwise."""
        return self._call.has_ended

    def outcome(self) -> tuple[grpc.StatusCode, str, Any]:
        """Code, details and trailers as they were set."""
        return self._code or grpc.StatusCode.OK, self._details, self._trailers


class AsyncContext(_Context):
    """For `async` servicers."""

    async def read(self) -> Any:
        return await self._call.read()

    async def write(self, message: Any) -> None:
        await self._call.write(message)

    async def send_initial_metadata(self, metadata: Any) -> None:
        self._call.send_headers(metadata)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        raise CallAborted(code, details, tuple(trailing_metadata) or self._trailers)


class ThreadContext(_Context):
    """For plain servicers, which run in a thread; it hands over to the loop where that is needed."""

    def __init__(self, context: AsyncContext, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(context._call)
        self._context = context
        self._loop = loop

    def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        raise CallAborted(code, details, self._trailers)

    def write(self, message: Any) -> None:
        self._wait(self._call.write(message))

    def send_initial_metadata(self, metadata: Any) -> None:
        self._loop.call_soon_threadsafe(self._call.send_headers, metadata)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        self._context.set_details(details)

    def set_trailing_metadata(self, metadata: Any) -> None:
        super().set_trailing_metadata(metadata)
        self._context.set_trailing_metadata(metadata)

    def iterate(self, requests: AsyncIterator[Any]) -> Iterator[Any]:
        """The requests for a thread."""
        while True:
            try:
                yield self._wait(anext(requests))
            except StopAsyncIteration:
                return

    def _wait(self, awaitable: Any) -> Any:
        async def run() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()
