"""One gRPC call of a client, bridged to one call on the mesh; unary calls complete, streaming ones in grpc_streams.

There is one object per RPC. It is the handler that grpc.aio runs and the sink of the outgoing call, so metadata is read
once, and a unary call needs only this object, the outgoing call and one future.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any, ClassVar

import grpc
import grpc.aio

from gateway.dialects.grpc_metadata import Entry, Invocation
from gateway.dialects.grpc_status import fit_details, trailing_metadata
from gateway.dialects.served_method import ServedMethod
from gateway.ops.grpc_metrics import MethodStats
from gateway.requests.routes import Refusal
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.wire.outcome import Outcome, status_code
from mesh.wire.payload import RAW, Payload, raw

logger = logging.getLogger("mesh.gateway")

_CANCELLED: int = grpc.StatusCode.CANCELLED.value[0]
_DEADLINE_EXCEEDED: int = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
_INTERNAL: int = grpc.StatusCode.INTERNAL.value[0]

Rpc = Any
"""grpc.aio's servicer context, for which no exact type is published."""


class GrpcCall:
    """The life of a call, for all four arities."""

    __slots__ = ("_call", "_invocation", "_method", "_outcome")

    request_streaming: ClassVar[bool]
    response_streaming: ClassVar[bool]
    # Without them, grpc.aio passes bytes unchanged.
    request_deserializer: ClassVar[None] = None
    response_serializer: ClassVar[None] = None

    def __init__(self, method: ServedMethod, invocation: Invocation) -> None:
        self._method = method
        self._invocation = invocation
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._call: OutgoingCall

    def on_item(self, payload: Payload) -> None:
        """Overridden by calls with a streamed response."""

    def on_credit(self) -> None:
        """Overridden by calls with a streamed request."""

    def on_done(self, outcome: Outcome) -> None:
        """The call has ended on the mesh."""
        # The future is cancelled if the client has left.
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def _serve(self, rpc: Rpc, request: bytes | None) -> bytes | None:
        """Run the RPC from start to end. Returns the response message unless responses are streamed."""
        method = self._method
        started_at_s = monotonic()
        self._call = self._open(rpc, request)
        method.stats.started += 1
        method.in_flight.enter()
        code = _CANCELLED
        try:
            try:
                method.router.submit(self._call)
                outcome = await self._relay(rpc)
            except (asyncio.CancelledError, grpc.aio.BaseError) as error:
                # The client has left, its deadline has passed, or the server stops. The replica does not know it yet.
                reason = self._cancel_reason()
                method.router.cancel(self._call, reason)
                code = _DEADLINE_EXCEEDED if reason is CancelReason.DEADLINE else _CANCELLED
                # grpc.aio logs a failed write with its traceback, but not a cancellation.
                raise asyncio.CancelledError from error
            except Exception:
                method.router.cancel(self._call, self._cancel_reason())
                logger.exception("the gateway failed in a call of %s", method.full_name)
                outcome = Outcome(_INTERNAL, "The gateway failed; its log has the reason.")
            outcome, trailers = self._validated(outcome)
            code = outcome.code
            return await self._conclude(rpc, outcome, trailers)
        finally:
            method.in_flight.leave()
            method.stats.end(code, monotonic() - started_at_s)

    def _open(self, rpc: Rpc, request: bytes | None) -> OutgoingCall:
        method = self._method
        context = self._invocation.context
        context.app = method.application
        context.route = method.full_name
        if request is not None:
            method.stats.received += 1
        call_request = CallRequest(
            method.full_name,
            None if request is None else raw(request),
            context,
            method.deadline_at_s(rpc.time_remaining()),
            self.request_streaming,
            self.response_streaming,
            self._invocation.passed_on,
            rpc.peer(),
            prefers_local=True,
        )
        return OutgoingCall(call_request, self)

    async def _relay(self, rpc: Rpc) -> Outcome:
        """Relay messages in both directions until the call has ended."""
        return await self._outcome

    def _cancel_reason(self) -> CancelReason:
        """Why the call is cancelled before it has ended: its deadline has passed, or the client has left."""
        deadline_at_s = self._call.request.deadline_at_s
        is_late = deadline_at_s is not None and monotonic() >= deadline_at_s
        return CancelReason.DEADLINE if is_late else CancelReason.CLIENT

    def _validated(self, outcome: Outcome) -> tuple[Outcome, tuple[Entry, ...]]:
        """The outcome and its trailers; an error instead if gRPC cannot carry them."""
        request_id = self._invocation.context.request_id
        if outcome.is_ok and not self.response_streaming and not is_message(outcome.payload):
            outcome = self._not_a_message()
        try:
            return outcome, trailing_metadata(request_id, outcome)
        except ValueError as error:
            outcome = Outcome(_INTERNAL, str(error))
            return outcome, trailing_metadata(request_id, outcome)

    async def _conclude(self, rpc: Rpc, outcome: Outcome, trailers: tuple[Entry, ...]) -> bytes | None:
        if not outcome.is_ok:
            await rpc.abort(status_code(outcome.code), fit_details(outcome.message), trailers)
        rpc.set_trailing_metadata(trailers)
        if outcome.message:
            rpc.set_details(fit_details(outcome.message))
        if self.response_streaming or outcome.payload is None:
            return None
        self._method.stats.sent += 1
        return message_bytes(outcome.payload)

    def _not_a_message(self) -> Outcome:
        name = self._method.full_name
        return Outcome(_INTERNAL, f"{name} returned something that is not its serialised response message.")


class UnaryUnaryCall(GrpcCall):
    """One request, one response."""

    __slots__ = ()

    request_streaming = False
    response_streaming = False

    async def unary_unary(self, request: bytes, rpc: Rpc) -> bytes | None:
        return await self._serve(rpc, request)


class RefusedCall:
    """An RPC that is refused. It has the arity that needs no request message before the answer."""

    __slots__ = ("_refusal", "_request_id", "_stats")

    request_streaming = True
    response_streaming = True
    request_deserializer = None
    response_serializer = None

    def __init__(self, refusal: Refusal, stats: MethodStats, request_id: str) -> None:
        self._refusal = refusal
        self._stats = stats
        self._request_id = request_id

    async def stream_stream(self, requests: object, rpc: Rpc) -> None:
        self._stats.started += 1
        self._stats.end(self._refusal.code, 0.0)
        trailers = trailing_metadata(self._request_id, Outcome())
        await rpc.abort(status_code(self._refusal.code), fit_details(self._refusal.message), trailers)


def is_message(payload: Payload | None) -> bool:
    """Whether a payload is raw bytes, as gRPC messages are. Others may be pickles, which the gateway never opens."""
    return payload is not None and payload.codec == RAW


def message_bytes(payload: Payload) -> bytes:
    """The serialised message of a payload that is_message."""
    data = payload.data
    return data if isinstance(data, bytes) else bytes(data)
