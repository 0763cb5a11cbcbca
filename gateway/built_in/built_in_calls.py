"""Calls of the gateway's own services that come by other dialects than gRPC: run here, as if a replica did.

A dialect passes its calls to the router of a deployment. The router here has no replicas: it runs the grpc handler of
the method on the I/O loop, with the same credits as a replica has. So each dialect serves these services as it serves
any other; gRPC itself needs none of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from mesh.exceptions import CancelReason, RequestCancelledError
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.phases.waiting import Waiters
from mesh.rpc.method_handlers import CallDetails
from mesh.rpc.request_head import RequestHead
from mesh.rpc.servicer_context import AsyncContext, CallAbortedError, CallOutcome, loop_deadline
from mesh.rpc.status_codes import DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, UNIMPLEMENTED
from mesh.settings import settings
from mesh.wire.outcome import Outcome, failed
from mesh.wire.payload import Payload, raw

logger = logging.getLogger("mesh.gateway")

_REQUEST_CREDITS = 8
"""Messages of a streamed request that may wait here; they are small."""


class BuiltInRouter:
    """A CallRouter. I/O loop only."""

    def __init__(self, handler: grpc.GenericRpcHandler) -> None:
        self._handler = handler
        self._calls: dict[OutgoingCall, _BuiltInCall] = {}

    def __repr__(self) -> str:
        return f"<BuiltInRouter {len(self._calls)} calls>"

    def submit(self, call: OutgoingCall) -> None:
        details: Any = CallDetails(call.request.method, tuple(call.request.metadata))
        handler = self._handler.service(details)
        if handler is None:
            text = f"This gateway does not serve {call.request.method}."
            self._end(call, Outcome(UNIMPLEMENTED, text))
            return
        running = self._calls[call] = _BuiltInCall(call, handler)
        running.task = asyncio.get_running_loop().create_task(self._run(running), name=f"own {call.request.method}")

    def cancel(self, call: OutgoingCall, reason: CancelReason) -> None:
        self._stop(call, failed(RequestCancelledError(reason=reason)))

    def drain(self) -> None:
        """End all calls: one that watches would otherwise last as long as its client likes."""
        for call in list(self._calls):
            self._stop(call, Outcome(UNAVAILABLE, "This gateway ends. Ask another one."))

    async def _run(self, running: _BuiltInCall) -> None:
        outcome = await running.run()
        self._end(running.call, outcome)

    def _stop(self, call: OutgoingCall, outcome: Outcome) -> None:
        running = self._calls.get(call)
        if running is not None and running.task is not None:
            running.task.cancel()
            self._end(call, outcome)

    def _end(self, call: OutgoingCall, outcome: Outcome) -> None:
        self._calls.pop(call, None)
        if call.state is not CallState.DONE:
            call.state = CallState.DONE
            call.sink.on_done(outcome)


class _BuiltInCall:
    """One call: the Carrier of its requests, and what the context of its servicer knows (ContextCall)."""

    def __init__(self, call: OutgoingCall, handler: Any) -> None:
        self.call = call
        self.task: asyncio.Task[None] | None = None
        self.outcome = CallOutcome()
        self.head = RequestHead(fields=[], path=call.request.method, metadata=tuple(call.request.metadata))
        self.peer = call.request.peer
        self.deadline_at_s = call.request.deadline_at_s
        self._handler = handler
        self._requests: deque[bytes] = deque()
        self._is_complete = not call.request.streams_request
        self._credit = settings().payload.stream_credits
        """Messages of the response that may be sent."""
        self._changed = Waiters()
        if call.request.payload is not None:
            self._requests.append(bytes(call.request.payload.data))
        call.state = CallState.SENT
        call.link = self

    # ---- From the dialect (Carrier) ----------------------------------------------------------------------------------

    def send_item(self, call: OutgoingCall, payload: Payload) -> None:
        self._requests.append(bytes(payload.data))
        self._changed.wake()

    def send_half_close(self, call: OutgoingCall) -> None:
        self._is_complete = True
        self._changed.wake()

    def send_credit(self, call: OutgoingCall, credits: int) -> None:
        self._credit += credits
        self._changed.wake()

    def cancel(self, call: OutgoingCall, reason: CancelReason) -> None:
        """The router cancels."""

    # ---- From the servicer (ContextCall) -----------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        return self.call.state is CallState.DONE

    async def read(self) -> Any:
        await self._changed.until(lambda: self._requests or self._is_complete)
        return self._read(self._requests.popleft()) if self._requests else grpc.aio.EOF

    async def write(self, message: Any) -> None:
        await self._changed.until(lambda: self._credit > 0)
        payload = raw(self._handler.response_serializer(message))
        self._credit -= payload.credits
        self.call.sink.on_item(payload)

    def send_headers(self, metadata: Any = ()) -> None:
        """Our services send none."""

    def set_encoding(self, encoding: str) -> None:
        """Our services do not compress."""

    # ---- Life --------------------------------------------------------------------------------------------------------

    async def run(self) -> Outcome:
        """Run the servicer and return its outcome. A cancelled run returns none: the router has ended the call."""
        if self.call.request.streams_request:
            self._grant()
        outcome = self.outcome
        try:
            async with asyncio.timeout_at(loop_deadline(self.deadline_at_s)):
                return Outcome(payload=await self._serve())
        except CallAbortedError:
            code = outcome.code or grpc.StatusCode.UNKNOWN
            return Outcome(code.value[0], outcome.details)
        except TimeoutError:
            return Outcome(DEADLINE_EXCEEDED, "Deadline Exceeded")
        except Exception as error:
            logger.exception("a service of the gateway failed in %s", self.head.path)
            return Outcome(INTERNAL, f"Unexpected {type(error).__name__}")

    async def _serve(self) -> Payload | None:
        """The response of a unary method; None where it is streamed."""
        handler, context = self._handler, AsyncContext(self)
        if handler.request_streaming:
            async with aclosing(handler.stream_stream(self._iterate(), context)) as responses:
                async for response in responses:
                    await self.write(response)
            return None
        request = self._read(self._requests.popleft())
        if handler.response_streaming:
            await handler.unary_stream(request, context)
            return None
        return raw(handler.response_serializer(await handler.unary_unary(request, context)))

    async def _iterate(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            self._grant()
            yield message

    def _grant(self) -> None:
        """Let the client send more, up to the limit of messages that may wait."""
        missing = _REQUEST_CREDITS - len(self._requests) - self.call.request_credit
        if missing > 0 and not self.has_ended:
            self.call.request_credit += missing
            self.call.sink.on_credit()

    def _read(self, data: bytes) -> Any:
        try:
            return self._handler.request_deserializer(data)
        except Exception as error:
            self.outcome.abort(grpc.StatusCode.INTERNAL, f"Exception deserializing request: {error}")
