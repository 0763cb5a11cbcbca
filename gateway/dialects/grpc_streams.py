"""gRPC calls that stream: the request, the response or both.

Flow control works end to end in both directions, so nothing accumulates here. A request message is read only while the
replica has granted credit for it; until then HTTP/2 holds it back in the client. Credit for a response message is
granted again only after it was written, which waits while the client does not read.

When a client cancels an upload, grpc.aio first reports the end of the stream and then the cancellation. If the gateway
believed the former, the replica would complete half an upload. grpc.aio answers a second read only after it has
delivered the cancellation, so the stream counts as complete only if the RPC survives that second read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import grpc.aio

from gateway.dialects.grpc_call import GrpcCall, Rpc, is_message, message_bytes
from gateway.dialects.grpc_metadata import Invocation
from gateway.dialects.served_method import ServedMethod
from gateway.ops.grpc_metrics import MethodStats
from mesh.link.outgoing_call import OutgoingCall
from mesh.settings import settings
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome
from mesh.wire.payload import Payload, raw

logger = logging.getLogger("mesh.gateway")


class _StreamedResponse(GrpcCall):
    """Adds the writing of response messages."""

    __slots__ = ("_has_events", "_items")

    response_streaming = True

    def __init__(self, method: ServedMethod, invocation: Invocation) -> None:
        super().__init__(method, invocation)
        self._items: deque[Payload] = deque()  # limited by the credit that was granted
        self._has_events = asyncio.Event()

    def on_item(self, payload: Payload) -> None:
        self._items.append(payload)
        self._has_events.set()

    def on_done(self, outcome: Outcome) -> None:
        super().on_done(outcome)
        self._has_events.set()

    async def _relay(self, rpc: Rpc) -> Outcome:
        grant_at = max(1, settings().payload.stream_credits // 4)
        written = 0
        while True:
            while self._items:
                payload = self._items.popleft()
                if not is_message(payload):
                    self._method.router.cancel(self._call, self._cancel_reason())
                    return self._not_a_message()
                await rpc.write(message_bytes(payload))
                self._method.stats.sent += 1
                written += payload.credits
                if written >= grant_at:
                    self._call.grant(written)
                    written = 0
            if self._outcome.done():
                return self._outcome.result()
            self._has_events.clear()
            await self._has_events.wait()


class _StreamedRequest(GrpcCall):
    """Adds the reading of request messages."""

    # Of two bases only one may have slots of its own, so each subclass has the slot of this one.
    __slots__ = ()

    request_streaming = True
    _reader: _RequestReader

    def on_credit(self) -> None:
        self._reader.wake()

    def _open(self, rpc: Rpc, request: bytes | None) -> OutgoingCall:
        call = super()._open(rpc, request)
        self._reader = _RequestReader(rpc, call, self._method.stats)  # type: ignore[misc]
        return call

    async def _relay(self, rpc: Rpc) -> Outcome:
        self._reader.start()
        try:
            return await super()._relay(rpc)
        finally:
            self._reader.stop()


class UnaryStreamCall(_StreamedResponse):
    """One request, many responses."""

    __slots__ = ()

    request_streaming = False

    async def unary_stream(self, request: bytes, rpc: Rpc) -> None:
        await self._serve(rpc, request)


class StreamUnaryCall(_StreamedRequest):
    """Many requests, one response."""

    __slots__ = ("_reader",)

    response_streaming = False

    async def stream_unary(self, requests: object, rpc: Rpc) -> bytes | None:
        return await self._serve(rpc, None)


class StreamStreamCall(_StreamedRequest, _StreamedResponse):
    """Many requests, many responses."""

    __slots__ = ("_reader",)

    async def stream_stream(self, requests: object, rpc: Rpc) -> None:
        await self._serve(rpc, None)


class _RequestReader:
    """Moves request messages from the client to the call, as fast as the replica grants credit."""

    __slots__ = ("_call", "_has_credit", "_is_stopped", "_rpc", "_stats")

    def __init__(self, rpc: Rpc, call: OutgoingCall, stats: MethodStats) -> None:
        self._rpc = rpc
        self._call = call
        self._stats = stats
        self._is_stopped = False
        self._has_credit = asyncio.Event()

    def start(self) -> None:
        # This task is never cancelled: the end of the RPC ends a pending read; a cancelled read would leak in gRPC.
        io_thread().spawn(self._run(), f"requests of {self._call.request.method}")

    def wake(self) -> None:
        """The replica has granted credit."""
        self._has_credit.set()

    def stop(self) -> None:
        """Send nothing any more, because the call has ended."""
        self._is_stopped = True
        self._has_credit.set()

    async def _run(self) -> None:
        try:
            while await self._may_read():
                message = await self._rpc.read()
                if self._is_stopped:
                    return
                if message is grpc.aio.EOF:
                    await self._half_close()
                    return
                self._stats.received += 1
                self._call.send_item(raw(message))
        except grpc.aio.BaseError as error:
            logger.debug("reading requests of %s ended: %s", self._call.request.method, error)

    async def _may_read(self) -> bool:
        while not self._is_stopped and self._call.request_credit <= 0:
            self._has_credit.clear()
            await self._has_credit.wait()
        return not self._is_stopped

    async def _half_close(self) -> None:
        await self._rpc.read()  # see the docstring of this module
        if not self._is_stopped:
            self._call.half_close()
