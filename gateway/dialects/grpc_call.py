"""Owns the bridge between one gRPC call of a client and one call on the mesh, and the unary form of it.

One object per RPC: it is the handler that grpc.aio runs and the sink of the outgoing call. So metadata is read once,
and a unary call needs nothing beside it but the call and one future. The streaming forms are in grpc_streams.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar, Protocol

import grpc
import grpc.aio

from gateway.dialects.grpc_metadata import Entry, Invocation
from gateway.dialects.grpc_status import fit_details, trailing_metadata
from gateway.ops.grpc_metrics import InFlight, MethodStats
from gateway.requests.routes import Refusal
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.wire.outcome import Outcome, status_code
from mesh.wire.payload import RAW, Payload, raw

logger = logging.getLogger("mesh.gateway")

_CANCELLED: int = grpc.StatusCode.CANCELLED.value[0]
_DEADLINE_EXCEEDED: int = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
_INTERNAL: int = grpc.StatusCode.INTERNAL.value[0]

Rpc = Any
"""grpc.aio's servicer context, for which no exact type is published."""


class CallRouter(Protocol):
    """Where calls to one deployment are handed in, see mesh.routing."""

    def submit(self, call: OutgoingCall) -> None: ...

    def cancel(self, call: OutgoingCall) -> None: ...


@dataclass(slots=True, eq=False)
class ServedMethod:
    """What all calls of one method share, looked up once."""

    full_name: str
    application: str
    router: CallRouter
    stats: MethodStats
    in_flight: InFlight
    timeout_s: float | None
    """The gateway's own limit on a call's time, beside the client's deadline."""


class GrpcCall:
    """What the four arities have in common."""

    __slots__ = ("_call", "_invocation", "_method", "_outcome")

    request_streaming: ClassVar[bool]
    response_streaming: ClassVar[bool]
    # Absent: bytes pass untouched.
    request_deserializer: ClassVar[None] = None
    response_serializer: ClassVar[None] = None

    def __init__(self, method: ServedMethod, invocation: Invocation) -> None:
        self._method = method
        self._invocation = invocation
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._call: OutgoingCall

    def on_item(self, payload: Payload) -> None:
        """Calls with a streamed response have their own."""

    def on_credit(self) -> None:
        """Calls with a streamed request have their own."""

    def on_done(self, outcome: Outcome) -> None:
        # The future is cancelled where the client was first to go.
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def _serve(self, rpc: Rpc, request: bytes | None) -> bytes | None:
        """The whole life of the RPC. Returns the response message where it is not streamed."""
        method = self._method
        started_s = monotonic()
        self._call = self._open(rpc, request)
        method.stats.started += 1
        method.in_flight.enter()
        code = _CANCELLED
        try:
            try:
                method.router.submit(self._call)
                outcome = await self._exchange(rpc)
            except (asyncio.CancelledError, grpc.aio.BaseError) as error:
                # The client is gone, its deadline has passed, or the server stops: gRPC knows, the replica does not.
                code = self._abandon()
                # grpc.aio logs a write that failed because the client left, with its traceback; not a cancellation.
                raise asyncio.CancelledError from error
            except Exception:
                self._abandon()
                logger.exception("the gateway failed in a call of %s", method.full_name)
                outcome = Outcome(_INTERNAL, "The gateway failed; its log says why.")
            outcome, trailers = self._made_sendable(outcome)
            code = outcome.code
            return await self._conclude(rpc, outcome, trailers)
        finally:
            method.in_flight.leave()
            method.stats.end(code, monotonic() - started_s)

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
            _deadline_at_s(rpc.time_remaining(), method.timeout_s),
            self.request_streaming,
            self.response_streaming,
            self._invocation.passed_on,
            rpc.peer(),
            prefers_local=True,
        )
        return OutgoingCall(call_request, self)

    async def _exchange(self, rpc: Rpc) -> Outcome:
        """Carry messages both ways until the call has ended."""
        return await self._outcome

    def _abandon(self) -> int:
        """Nobody waits any more. Returns the code that the client has made of it."""
        self._method.router.cancel(self._call)
        deadline_at_s = self._call.request.deadline_at_s
        return _DEADLINE_EXCEEDED if deadline_at_s is not None and monotonic() >= deadline_at_s else _CANCELLED

    def _made_sendable(self, outcome: Outcome) -> tuple[Outcome, tuple[Entry, ...]]:
        """The outcome and its trailers, replaced by an error where gRPC cannot carry them."""
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
        return Outcome(_INTERNAL, f"{name} answered with something that is not its serialised response message.")


class UnaryUnaryCall(GrpcCall):
    """One request, one response."""

    __slots__ = ()

    request_streaming = False
    response_streaming = False

    async def unary_unary(self, request: bytes, rpc: Rpc) -> bytes | None:
        return await self._serve(rpc, request)


class RefusedCall:
    """An RPC that no method takes. Served as the widest arity, which needs no request message to answer."""

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
    """Whether a payload can be a gRPC message. Anything else is never looked into here: it may be a pickle."""
    return payload is not None and payload.codec == RAW


def message_bytes(payload: Payload) -> bytes:
    data = payload.data
    return data if isinstance(data, bytes) else bytes(data)


def _deadline_at_s(remaining_s: float | None, limit_s: float | None) -> float | None:
    if limit_s is not None:
        remaining_s = limit_s if remaining_s is None else min(remaining_s, limit_s)
    return None if remaining_s is None else monotonic() + remaining_s
