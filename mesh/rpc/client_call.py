"""`ClientCall`: one call as its client sees it, with the face of grpc.aio's calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc
import grpc.aio

from mesh.http2.frame_format import ErrorCode
from mesh.http2.stream import Stream
from mesh.phases.waiting import Waiters
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.message_reader import MessageError
from mesh.rpc.received_messages import ReceivedMessages
from mesh.rpc.response_head import INTERIM, ResponseHead, head_of_reset
from mesh.rpc.status_codes import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, OK, RESOURCE_EXHAUSTED, UNKNOWN, status_code

logger = logging.getLogger("mesh.rpc")

_LATE = ResponseHead(code=DEADLINE_EXCEEDED, message="Deadline Exceeded")


class ClientCall:
    """Await it for the one response, or iterate over many. On its event loop only.

    A call that fails raises AioRpcError; one that was cancelled here raises CancelledError. To cancel what waits for a
    response or for room to write cancels the call. Cancel a call whose responses you do not read to their end.
    """

    def __init__(
        self,
        serializer: Callable[[Any], bytes] | None,
        deserializer: Callable[[bytes], Any] | None,
        max_bytes: int,
        on_finished: Callable[[], None],
    ) -> None:
        self._serializer = serializer
        self._deserializer = deserializer
        self._on_finished = on_finished
        self._messages = ReceivedMessages(max_bytes)
        self._stream: Stream | None = None
        self._headers: ResponseHead | None = None
        self._status: ResponseHead | None = None
        self._changed = Waiters()
        self._timer: asyncio.TimerHandle | None = None
        self.sender: asyncio.Task[None] | None = None
        """Opens the stream and sends the requests; cancelled when the call ends."""
        self.on_refused: Callable[[], None] | None = None
        """Sends the call again, where that is possible, after the server has refused it without looking at it."""

    def __repr__(self) -> str:
        state = "waiting" if self._stream is None else "open" if self._status is None else "done"
        return f"<ClientCall {state}>"

    # ---- For the user ------------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Any]:
        return self._only().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def read(self) -> Any:
        """The next response; grpc.aio.EOF behind the last."""
        await self._until(lambda: self._messages or self._status)
        if self._messages:
            return self._deserialised(self._messages.pop(self._stream))
        self._raise_for_status()
        return grpc.aio.EOF

    async def write(self, message: Any) -> None:
        """Send a request message; returns when the server's window took it. InvalidStateError: the call has ended."""
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

    def cancel(self) -> bool:
        """Returns whether the call was in progress."""
        was_done = self.done()
        self.finish(_CANCELLED_HERE)
        return not was_done

    def cancelled(self) -> bool:
        return self._status is not None and self._status.code == CANCELLED

    def done(self) -> bool:
        return self._status is not None

    async def initial_metadata(self) -> tuple[Entry, ...]:
        await self._changed.until(lambda: self._headers or self._status)
        return self._headers.metadata if self._headers is not None else ()

    async def trailing_metadata(self) -> tuple[Entry, ...]:
        return (await self._ended()).metadata

    async def code(self) -> grpc.StatusCode:
        return status_code((await self._ended()).code or OK)

    async def details(self) -> str:
        return (await self._ended()).message

    # ---- For the channel ---------------------------------------------------------------------------------------------

    def serialised(self, message: Any) -> bytes:
        data: bytes = message if self._serializer is None else self._serializer(message)
        return data

    def expire_after(self, timeout_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self.finish, _LATE)

    def begin(self, stream: Stream) -> None:
        self._stream = stream
        self._changed.wake()

    async def send_all(self, requests: AsyncIterator[Any]) -> None:
        """Send what an iterator yields; its failure is the call's."""
        try:
            async for message in requests:
                await self.write(message)
            await self.done_writing()
        except Exception as error:
            if not self.done():
                logger.exception("the requests of a call failed")
                self.finish(ResponseHead(code=UNKNOWN, message=f"Exception iterating requests: {error!r}"))

    def finish(self, status: ResponseHead) -> None:
        """End the call, unless it has ended."""
        if self._status is None:
            self._status = status
            if self._timer is not None:
                self._timer.cancel()
            if self.sender is not None:
                self.sender.cancel()
            if self._stream is not None:
                self._stream.connection.reset(self._stream, ErrorCode.CANCEL)
            self._changed.wake()
            self._on_finished()

    # ---- Receiver ----------------------------------------------------------------------------------------------------

    def on_headers(self, stream: Stream, head: ResponseHead | None, *, ended: bool) -> None:
        if head is INTERIM and not ended:
            return
        if head is None:
            self.finish(ResponseHead(code=RESOURCE_EXHAUSTED, message="The server's metadata is too large."))
        elif ended and head.code == OK and not self._messages.is_between:
            self.finish(ResponseHead(code=INTERNAL, message="The last response is not complete."))
        elif ended or head.code is not None:
            self.finish(head if head.code is not None else ResponseHead(code=INTERNAL, message="No status came."))
        elif self._headers is not None:
            stream.connection.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            self._headers = head
            self._messages.set_encoding(head.encoding)
            self._changed.wake()

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        try:
            self._messages.feed(stream, memoryview(data)[start:stop])
        except MessageError as error:
            self.finish(ResponseHead(code=error.code, message=error.text))
        else:
            self._changed.wake()

    def on_end(self, stream: Stream) -> None:
        self.finish(ResponseHead(code=INTERNAL, message="The server ended the stream without a status."))

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        if code == ErrorCode.REFUSED_STREAM and self.on_refused is not None and self._headers is None:
            self._stream = None
            self.on_refused()
            return
        # Servers may reset a call at its deadline, a moment before its timer here.
        is_late = code == ErrorCode.CANCEL and self._timer is not None and self._timer.when() <= _loop_time()
        self.finish(_LATE if is_late else head_of_reset(code))

    def on_writable(self, stream: Stream) -> None:
        self._changed.wake()

    # ---- Inside ------------------------------------------------------------------------------------------------------

    async def _only(self) -> Any:
        """The one response, as often as it is asked for."""
        await self._until(lambda: self._status or len(self._messages) > 1)
        if len(self._messages) != 1 and (self._status is None or self._status.code == OK):
            wrong = ResponseHead(code=INTERNAL, message="Not exactly one response came.")
            self.finish(wrong)
            self._status = wrong
        self._raise_for_status()
        return self._deserialised(self._messages.first())

    def _deserialised(self, message: bytes) -> Any:
        if self._deserializer is None:
            return message
        try:
            return self._deserializer(message)
        except Exception as error:
            wrong = ResponseHead(code=INTERNAL, message=f"Exception deserializing response: {error!r}")
            self.finish(wrong)
            raise self._error(wrong) from error

    async def _ended(self) -> ResponseHead:
        await self._changed.until(lambda: self._status)
        assert self._status is not None
        return self._status

    async def _until(self, condition: Callable[[], object]) -> None:
        try:
            await self._changed.until(condition)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _raise_for_status(self) -> None:
        if self._status is _CANCELLED_HERE:
            raise asyncio.CancelledError
        if self._status is not None and self._status.code != OK:
            raise self._error(self._status)

    def _error(self, status: ResponseHead) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(
            status_code(status.code or OK),
            grpc.aio.Metadata(*(self._headers.metadata if self._headers is not None else ())),
            grpc.aio.Metadata(*status.metadata),
            details=status.message,
        )


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


_CANCELLED_HERE = ResponseHead(code=CANCELLED, message="Locally cancelled by application!")
