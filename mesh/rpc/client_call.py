"""`ClientCall`: one call as its client sees it, with the face of grpc.aio's calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc
import grpc.aio

from mesh.http2.frame_format import ErrorCode
from mesh.http2.stream import Stream
from mesh.phases.waiting import Waiters
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.message_reader import MessageError, MessageReader
from mesh.rpc.response_head import INTERNAL, ResponseHead, status_of_reset

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OK = 0


class ClientCall:
    """Await it for the one response, or iterate over many. On its event loop only."""

    def __init__(
        self,
        serializer: Callable[[Any], bytes] | None,
        deserializer: Callable[[bytes], Any] | None,
        max_bytes: int,
        on_finished: Callable[[], None] = lambda: None,
    ) -> None:
        self._serializer = serializer
        self._deserializer = deserializer
        self._max_bytes = max_bytes
        self._on_finished = on_finished
        self._reader = MessageReader(max_bytes)
        self._stream: Stream | None = None
        self._messages: deque[bytes] = deque()
        self._held_bytes = 0
        """Received, and not given back to the window until the messages are read."""
        self._headers: ResponseHead | None = None
        self._status: ResponseHead | None = None
        self._changed = Waiters()
        self.timer: asyncio.TimerHandle | None = None

    # ---- For the user ------------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Any]:
        return self._only().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def read(self) -> Any:
        """The next response; grpc.aio.EOF behind the last. Raises AioRpcError where the call failed."""
        await self._until(lambda: self._messages or self._status)
        if self._messages:
            message = self._messages.popleft()
            if not self._messages and self._stream is not None and not self._stream.has_ended:
                self._stream.connection.give_room(self._stream, self._held_bytes)
                self._held_bytes = 0
            return message if self._deserializer is None else self._deserializer(message)
        self._raise_for_status()
        return grpc.aio.EOF

    async def write(self, message: Any) -> None:
        """Send a request message; returns when the server's window took it."""
        data = self.serialised(message)
        await self._until(lambda: self._stream or self._status)
        if self._stream is None or self._stream.has_ended:
            raise asyncio.InvalidStateError("the call has ended")
        self._stream.connection.outbox.send_message(self._stream, data)
        await self._until(lambda: self._stream is None or not self._stream.is_blocked)

    async def done_writing(self) -> None:
        """No more requests follow."""
        await self._until(lambda: self._stream or self._status)
        if self._stream is not None and not self._stream.has_ended:
            self._stream.connection.outbox.end(self._stream)

    def cancel(self) -> None:
        self.finish(ResponseHead(code=1, message="Locally cancelled by application!"))

    async def initial_metadata(self) -> tuple[Entry, ...]:
        await self._until(lambda: self._headers or self._status)
        return self._headers.metadata if self._headers is not None else ()

    async def trailing_metadata(self) -> tuple[Entry, ...]:
        return (await self._ended()).metadata

    async def code(self) -> grpc.StatusCode:
        return _CODES.get((await self._ended()).code or _OK, grpc.StatusCode.UNKNOWN)

    async def details(self) -> str:
        return (await self._ended()).message

    def done(self) -> bool:
        return self._status is not None

    # ---- For the channel ---------------------------------------------------------------------------------------------

    def serialised(self, message: Any) -> bytes:
        data: bytes = message if self._serializer is None else self._serializer(message)
        return data

    def begin(self, stream: Stream) -> None:
        self._stream = stream
        self._changed.wake()

    def finish(self, status: ResponseHead) -> None:
        """End the call, unless it has ended."""
        if self._status is None:
            self._status = status
            if self.timer is not None:
                self.timer.cancel()
            if self._stream is not None:
                self._stream.connection.reset(self._stream, ErrorCode.CANCEL)
            self._changed.wake()
            self._on_finished()

    # ---- Receiver ----------------------------------------------------------------------------------------------------

    def on_headers(self, stream: Stream, head: ResponseHead | None, *, ended: bool) -> None:
        if head is None:
            self.finish(ResponseHead(code=8, message="The server's metadata is too large."))
        elif ended or head.code is not None:
            self.finish(head if head.code is not None else ResponseHead(code=INTERNAL, message="No status came."))
        else:
            self._headers = head
            self._reader = MessageReader(self._max_bytes, head.encoding)
            self._changed.wake()

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        try:
            self._messages.extend(self._reader.feed(data[start:stop]))
        except MessageError as error:
            self.finish(ResponseHead(code=error.code, message=error.text))
            return
        if self._messages:
            self._held_bytes += stop - start
            self._changed.wake()
        else:
            # A message may be larger than the window.
            stream.connection.give_room(stream, stop - start)

    def on_end(self, stream: Stream) -> None:
        self.finish(ResponseHead(code=INTERNAL, message="The server ended the stream without a status."))

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        self.finish(ResponseHead(code=status_of_reset(code), message=f"The stream was reset with error code {code}."))

    def on_writable(self, stream: Stream) -> None:
        self._changed.wake()

    # ---- Inside ------------------------------------------------------------------------------------------------------

    async def _only(self) -> Any:
        message = await self.read()
        await self._ended()
        self._raise_for_status()
        if message is grpc.aio.EOF or self._messages:
            raise _error(ResponseHead(code=INTERNAL, message="Not exactly one response came."), ())
        return message

    async def _ended(self) -> ResponseHead:
        await self._until(lambda: self._status)
        assert self._status is not None
        return self._status

    async def _until(self, condition: Callable[[], object]) -> None:
        try:
            await self._changed.until(condition)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _raise_for_status(self) -> None:
        if self._status is not None and self._status.code != _OK:
            raise _error(self._status, self._headers.metadata if self._headers is not None else ())


def _error(status: ResponseHead, initial: tuple[Entry, ...]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        _CODES.get(status.code or _OK, grpc.StatusCode.UNKNOWN),
        grpc.aio.Metadata(*initial),
        grpc.aio.Metadata(*status.metadata),
        details=status.message,
    )
