"""`ServicerCall`: a call that runs one of grpc's method handlers, as generated code registers them.

All four arities, `async` and plain functions, generators and those that write through their context. One task a call:
this is for services that are not hot. Plain functions run in a thread of the server's pool.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from time import monotonic
from typing import Any

import grpc

from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_encoder import encode_field
from mesh.http2.stream import Stream
from mesh.phases.waiting import Waiters
from mesh.rpc.answers import answer_status
from mesh.rpc.grpc_fields import RESPONSE_BLOCK, metadata_block
from mesh.rpc.message_reader import MessageError, compressed_frame
from mesh.rpc.received_messages import ReceivedMessages
from mesh.rpc.request_head import RequestHead, check_trailers
from mesh.rpc.servicer_context import AsyncContext, CallAbortedError, CallOutcome, ThreadContext, loop_deadline
from mesh.rpc.status_codes import DEADLINE_EXCEEDED, INTERNAL

logger = logging.getLogger("mesh.rpc")

MESSAGE_MAX_BYTES = 4 * 1024 * 1024
"""gRPC's usual limit for messages that a server takes."""


class ServicerCall:
    """The receiver of one request, from its head to its status."""

    def __init__(
        self,
        stream: Stream,
        head: RequestHead,
        handler: Any,
        pool: Executor | None,
        peer: str = "",
        message_max_bytes: int = MESSAGE_MAX_BYTES,
    ) -> None:
        """`handler` is a grpc.RpcMethodHandler. `message_max_bytes`: of a request message."""
        self._stream = stream
        self._handler = handler
        self._pool = pool
        self._messages = ReceivedMessages(message_max_bytes, head.encoding)
        self._is_complete = False
        self._encoding = ""
        """The compression of responses; empty: none."""
        self._changed = Waiters()
        self.head = head
        self.peer = peer
        self.outcome = CallOutcome()
        self.deadline_at_s = None if head.timeout_s is None else monotonic() + head.timeout_s
        self._let_pause()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"rpc {head.path}")

    # ---- Receiver ----------------------------------------------------------------------------------------------------

    def on_headers(self, stream: Stream, head: Any, *, ended: bool) -> None:
        """Trailers of a request mean nothing in gRPC."""
        check_trailers(stream, head)

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        try:
            self._messages.feed(stream, memoryview(data)[start:stop])
        except MessageError as error:
            self._refuse(error.code, error.text)
        else:
            self._changed.wake()
            self._let_pause()

    def on_stalled(self) -> None:
        """The client is too slow in the middle of a message."""
        self._refuse(DEADLINE_EXCEEDED, "The request took too long to arrive.")

    def on_end(self, stream: Stream) -> None:
        if not self._messages.is_between:
            self._refuse(INTERNAL, "The last request message is not complete.")
            return
        self._is_complete = True
        self._changed.wake()

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        self._task.cancel()
        self._changed.wake()

    def on_writable(self, stream: Stream) -> None:
        self._changed.wake()

    # ---- For contexts ------------------------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        return self._stream.has_ended

    async def read(self) -> Any:
        """The next request message; grpc.aio.EOF behind the last."""
        await self._changed.until(lambda: self._messages or self._is_complete or self.has_ended)
        if self.has_ended:
            raise asyncio.CancelledError
        if not self._messages:
            return grpc.aio.EOF
        return self._deserialised(self._messages.pop(self._stream))

    def set_encoding(self, encoding: str) -> None:
        """Compress responses with it, if the client takes that and the headers were not sent yet."""
        if not self._stream.has_sent_headers:
            self._encoding = encoding if self.head.accepts(encoding) else ""

    def send_headers(self, metadata: Any = ()) -> None:
        if not self._stream.has_sent_headers and not self._stream.has_ended:
            block = RESPONSE_BLOCK + metadata_block(metadata or ())
            if self._encoding:
                block += encode_field(b"grpc-encoding", self._encoding.encode())
            self._stream.connection.outbox.send_headers(self._stream, block)

    async def write(self, message: Any) -> None:
        """Send a response message; returns when the peer's window took it."""
        if self._stream.has_ended:
            raise asyncio.CancelledError
        data = _serialised(message, self._handler.response_serializer)
        self.send_headers()
        outbox = self._stream.connection.outbox
        if self._encoding:
            outbox.send_data(self._stream, compressed_frame(data, self._encoding))
        elif not outbox.send_message(self._stream, data):
            self.outcome.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "The server buffers as much as it may.")
        await self._changed.until(lambda: not self._stream.is_blocked)

    def _let_pause(self) -> None:
        """Between the messages of a stream its client may pause, and while some of them wait for us."""
        if self._handler.request_streaming:
            begun_bytes = 0 if self._messages else self._messages.begun_bytes
            self._stream.pause_bytes = self._stream.received_bytes - begun_bytes

    # ---- Life --------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        outcome = self.outcome
        limit = asyncio.timeout_at(loop_deadline(self.deadline_at_s))
        try:
            async with limit:
                await self._serve()
        except CallAbortedError:
            pass
        except asyncio.CancelledError:
            outcome.replace(grpc.StatusCode.CANCELLED, "the server has cancelled the call")
            raise
        except Exception as error:
            if limit.expired():
                outcome.replace(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            elif not outcome.is_aborted:
                logger.exception("a servicer failed in %s", self.head.path)
                outcome.code = outcome.code or grpc.StatusCode.UNKNOWN
                outcome.details = f"Unexpected {type(error)}: {error}"
        finally:
            self._end()

    def _end(self) -> None:
        """Answer, and end all that waits for this call in tasks and threads."""
        outcome, stream = self.outcome, self._stream
        try:
            code = outcome.code or grpc.StatusCode.OK
            answer_status(stream, code.value[0], outcome.details, outcome.trailers)
        except Exception as error:
            logger.error("a servicer has set what gRPC cannot send in %s: %s", self.head.path, error)
            answer_status(stream, INTERNAL, f"The servicer has set what gRPC cannot send: {error}")
        self._changed.wake()
        for callback in outcome.callbacks:
            try:
                callback()
            except Exception:
                logger.exception("a callback failed at the end of %s", self.head.path)

    def _refuse(self, code: int, text: str) -> None:
        """End the call because of what the client sent."""
        answer_status(self._stream, code, text)
        self._task.cancel()
        self._changed.wake()

    async def _serve(self) -> None:
        handler = self._handler
        function = _function(handler)
        request = self._requests() if handler.request_streaming else await self._only_request()
        if not _is_async(function):
            await self._serve_in_thread(function, request)
            return
        answer = function(request, AsyncContext(self))
        if hasattr(answer, "__aiter__"):
            async with aclosing(answer):
                async for message in answer:
                    await self.write(message)
            self.send_headers()
        else:
            message = await answer
            if not handler.response_streaming:
                await self.write(message)

    async def _serve_in_thread(self, function: Any, request: Any) -> None:
        loop = asyncio.get_running_loop()
        context = ThreadContext(self, loop)
        if self._handler.request_streaming:
            request = context.iterate(request)
        if not self._handler.response_streaming:
            await self.write(await loop.run_in_executor(self._pool, function, request, context))
            return
        await loop.run_in_executor(self._pool, _write_all, function, request, context)
        self.send_headers()

    async def _requests(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def _only_request(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF or await self.read() is not grpc.aio.EOF:
            self.outcome.abort(grpc.StatusCode.INTERNAL, "The request has not exactly one message.")
        return message

    def _deserialised(self, data: bytes) -> Any:
        deserializer = self._handler.request_deserializer
        try:
            return data if deserializer is None else deserializer(data)
        except Exception as error:
            self.outcome.abort(grpc.StatusCode.INTERNAL, f"Exception deserializing request: {error}")


def _write_all(function: Callable[..., Iterator[Any]], request: Any, context: ThreadContext) -> None:
    for message in function(request, context):
        context.write(message)


def _function(handler: Any) -> Any:
    for name in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
        function = getattr(handler, name, None)
        if function is not None:
            return function
    raise AssertionError(f"{handler!r} is not a method handler")


def _is_async(function: Any) -> bool:
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _serialised(message: Any, serializer: Callable[[Any], bytes] | None) -> bytes:
    return message if serializer is None else serializer(message)
