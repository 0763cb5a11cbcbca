"""One call of a typed method in the dialects over HTTP: what lies between an exchange and the mesh.

Theory of operation. The dialect's receiver of the exchange owns the call. It decodes requests and encodes responses,
and knows nothing of routers, credit, deadlines, counts or cancels. The call ends in one of three ways, and is counted
exactly once: the mesh has an outcome (`on_done`), the gateway refuses to go on (`refuse`), or the client has left
(`cancel`). Nothing accumulates: the replica sends as much as credit was granted for, and that is granted when the
exchange has taken what came before; the other direction is `RequestFlow`.

gRPC over HTTP/2 does the same in `grpc_call`, on its stream itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from time import monotonic
from typing import Protocol

from gateway.dialects.compression import ResponseCompression
from gateway.dialects.grpc_metadata import Invocation
from gateway.dialects.grpc_status import fit_details, initial_metadata, trailing_metadata
from gateway.dialects.served_method import COUNTED_MIN_BYTES, NO_ROOM, ROUNDED_S, ServedMethod, reason_of_leaving
from gateway.requests.exchange import Exchange
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallRequest, OutgoingCall, grant_at
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.status_codes import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, OK, RESOURCE_EXHAUSTED, status_code
from mesh.wire.outcome import BackpressureAnswer, Outcome, Trailers
from mesh.wire.payload import RAW, Payload, raw

logger = logging.getLogger("mesh.gateway")

GATEWAY_FAILED = "The gateway failed; its log has the reason."


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended, ready for any dialect: the metadata is legal, and the message fits into trailers."""

    code: int
    """One of gRPC's."""
    message: str
    trailers: tuple[Entry, ...]
    """The request id, then those of user code. `grpc-status-details-bin` holds rich details, if there are any."""
    response: bytes | memoryview | None = None
    """The serialised response message of a method that does not stream it; None unless `code` is OK."""
    backpressure: BackpressureAnswer | None = None
    """What HTTP clients get of a call that was refused, where its deployment has chosen it."""

    @property
    def is_ok(self) -> bool:
        return self.code == OK


class CallOwner(Protocol):
    """The dialect's side of a call. On the I/O loop; must not block.

    An exception of `on_message` or `on_status` is a bug: it is logged, and the call ends with INTERNAL.
    """

    def on_initial_metadata(self, entries: tuple[Entry, ...]) -> None:
        """The method has sent its headers. Again if the call was sent again: the later ones count."""

    def on_message(self, message: bytes | memoryview) -> bool:
        """A serialised message of a streamed response. False if the exchange has no room for it."""

    def on_request_room(self) -> None:
        """`can_send` has become true, or true again."""

    def on_status(self, end: CallEnd) -> int | None:
        """The call has ended: answer, with `end.response` if there is one. Returns the code that the client gets.

        Called once, last; never after `cancel`. None if the exchange had no room for the answer: then, and only then,
        it is called again with a smaller one.
        """


class _UploadPhase(Enum):
    """Where a streamed request is."""

    WAITING = "no replica has accepted the call yet"
    CLOSING = "no replica has accepted it, and the request is complete"
    ACCEPTED = "a replica takes messages"
    CLOSED = "the replica knows that it is complete"


class MethodCall:
    """The sink of one call, for all four arities."""

    __slots__ = (
        "_call",
        "_exchange",
        "_held_bytes",
        "_owner",
        "_refused_with",
        "_request",
        "_started_at_s",
        "_upload",
        "_written",
        "compression",
        "is_over",
        "method",
    )

    def __init__(
        self,
        exchange: Exchange,
        method: ServedMethod,
        owner: CallOwner,
        invocation: Invocation,
        *,
        timeout_s: float | None = None,
        accepts: Callable[[str], bool] | None = None,
    ) -> None:
        """`timeout_s`: what the client leaves the call. `accepts`: whether it reads an encoding, if it reads any."""
        self.method = method
        self.compression = None if accepts is None else ResponseCompression(accepts)
        """What the method wants of it; None if the client accepts none."""
        self.is_over = False
        """Whether it is counted. All methods are without effect then."""
        self._exchange = exchange
        self._owner = owner
        self._request = CallRequest(
            method.full_name,
            None,
            invocation.context(method.full_name, method.application, method.identity),
            method.deadline_at_s(timeout_s),
            method.streams_request,
            method.streams_response,
            invocation.passed_on,
            exchange.head.peer,
            True,  # replicas of this node are preferred
            method.is_idempotent,
            method.policies.retry,
            None,
            method.policies.hedge,
            invocation.session_id,
            source=exchange.head.peer,
        )
        self._call: OutgoingCall | None = None
        self._refused_with = 0
        """Status with which the gateway itself ended the client's call while the mesh still had it."""
        self._held_bytes = 0
        """Bytes of the request, as counted in what the gateway buffers."""
        self._written = 0
        """Credit of response messages that were sent and not granted again yet."""
        self._upload = _UploadPhase.WAITING
        self._started_at_s = monotonic()
        method.stats.started += 1
        method.in_flight.enter()

    def __repr__(self) -> str:
        state = "over" if self.is_over else "not started" if self._call is None else self._call.state.value
        return f"<MethodCall {self.method.full_name} {state}>"

    @property
    def request_id(self) -> str:
        return self._request.context.request_id

    # ---- For its owner -----------------------------------------------------------------------------------------------

    def start(self, message: bytes | None) -> None:
        """Start the call on the mesh: with its request message, or None where the request is streamed."""
        if self.is_over:
            return
        if message is not None:
            if not self.hold(len(message) if len(message) > COUNTED_MIN_BYTES else 0):
                return
            self._request.payload = raw(message)
            if self.method.model_id_fields:
                self.method.name_model(self._request.context, message)
            self.method.stats.received += 1
        self._call = call = OutgoingCall(self._request, self)
        try:
            self.method.router.submit(call)
        except Exception:
            logger.exception("the gateway failed in a call of %s", self.method.full_name)
            self.refuse(INTERNAL, GATEWAY_FAILED)

    @property
    def can_send(self) -> bool:
        """Whether the replica takes another message of a streamed request; `on_request_room` follows."""
        return self._call is not None and self._call.request_credit > 0 and not self.is_over

    def send(self, message: bytes) -> None:
        """Send a message of a streamed request. Only while `can_send`."""
        if self._call is not None:
            self.method.stats.received += 1
            self._call.send_item(raw(message))

    def half_close(self) -> None:
        """The streamed request is complete."""
        if self._upload is _UploadPhase.ACCEPTED and self._call is not None:
            self._upload = _UploadPhase.CLOSED
            self._call.half_close()
        elif self._upload is _UploadPhase.WAITING:
            # Not sent yet: the end would be lost with a replica that then refuses the call.
            self._upload = _UploadPhase.CLOSING

    def grant(self) -> None:
        """Let the replica send as much as has left. To be called when the exchange is writable."""
        written, self._written = self._written, 0
        if written and self._call is not None:
            self._call.grant(written)

    def hold(self, size: int) -> bool:
        """Count `size` bytes of the request as kept for this call. False, and the call is over, if there is no room."""
        more_bytes = size - self._held_bytes
        if not more_bytes:
            return True
        share = self._exchange.share
        if more_bytes > 0 and not share.has_room(more_bytes):
            self.refuse(RESOURCE_EXHAUSTED, NO_ROOM)
            return False
        share.add(more_bytes)
        self._held_bytes = size
        return True

    def refuse(self, code: int, text: str) -> None:
        """End the call because of what the client sent, or because its answer cannot be sent."""
        if self.is_over or self._refused_with:
            return
        call = self._call
        if call is None:
            self._count(self._answer(Outcome(code, text)))
        else:
            self._refused_with = code
            # This may break the exchange, which ends the call.
            self._refused_with = self._answer(Outcome(code, text)) or code
            self.method.router.cancel(call, CancelReason.CLIENT)

    def cancel(self) -> None:
        """The client has left."""
        if self._call is not None:
            self.method.router.cancel(self._call, self._cancel_reason())
        elif not self.is_over:
            self._count(CANCELLED)

    # ---- From the mesh (CallSink) ------------------------------------------------------------------------------------

    @property
    def takes_messages(self) -> bool:
        """Whether messages of the response are still of use."""
        return not (self._exchange.has_ended or self._refused_with)

    def on_item(self, payload: Payload) -> None:
        self.pass_on(payload, partial(self._owner.on_message, payload.data))

    def pass_on(self, payload: Payload, send: Callable[[], bool]) -> None:
        """Let `send` give the client a message of the response; it says whether there was room for it."""
        if not self.takes_messages:
            return
        if payload.codec != RAW:
            self.refuse(INTERNAL, self.method.not_a_message)
            return
        try:
            has_room = send()
        except Exception:
            logger.exception("a response of %s was not translated", self.method.full_name)
            self.refuse(INTERNAL, GATEWAY_FAILED)
            return
        if not has_room:
            self.refuse(RESOURCE_EXHAUSTED, NO_ROOM)
        elif not self._refused_with:
            self.method.stats.sent += 1
            self._written += payload.credits
            if self._written >= grant_at() and not self._exchange.is_blocked:
                self.grant()

    def on_credit(self) -> None:
        if self._exchange.has_ended or self._refused_with:
            return
        if self._upload is _UploadPhase.CLOSING:
            self._upload = _UploadPhase.ACCEPTED
            self.half_close()
        elif self._upload is not _UploadPhase.CLOSED:
            self._upload = _UploadPhase.ACCEPTED
            self._owner.on_request_room()

    def on_initial_metadata(self, entries: Trailers) -> None:
        if self._exchange.has_sent_head or self._exchange.has_ended or self._refused_with:
            return
        try:
            legal = initial_metadata(entries)
        except ValueError as error:
            self.refuse(INTERNAL, str(error))
        else:
            self._owner.on_initial_metadata(legal)

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        if self.compression is None:
            return
        if skips_next:
            self.compression.skip_next()
        elif not self._exchange.has_sent_head:
            self.compression.choose(encoding)

    def on_done(self, outcome: Outcome) -> None:
        """The call has ended on the mesh."""
        if self._refused_with:
            self._count(self._refused_with)
        elif self._exchange.has_ended:
            is_late = self._cancel_reason() is CancelReason.DEADLINE
            self._count(DEADLINE_EXCEEDED if is_late else CANCELLED)
        else:
            self._count(self._answer(self._explained(outcome)))

    # ---- Inside ------------------------------------------------------------------------------------------------------

    def _answer(self, outcome: Outcome) -> int:
        """Give the client the outcome. Returns the code that it gets."""
        end = self._end(outcome)
        lost = "" if end.response is None else " The call was executed; its response is lost."
        try:
            code = self._owner.on_status(end)
        except Exception:
            logger.exception("the end of a call of %s was not translated", self.method.full_name)
            return self._answer_instead(INTERNAL, GATEWAY_FAILED + lost)
        if code is None:
            return self._answer_instead(RESOURCE_EXHAUSTED, NO_ROOM + lost)
        if end.response is not None and code == OK:
            self.method.stats.sent += 1
        return code

    def _answer_instead(self, code: int, text: str) -> int:
        """Give the client this status because it cannot have the outcome; break the exchange if that fails too."""
        try:
            answered = self._owner.on_status(self._end(Outcome(code, text)))
        except Exception:
            logger.exception("a call of %s could not be answered", self.method.full_name)
            answered = None
        if answered is None:
            self._exchange.abort()
            return code
        return answered

    def _explained(self, outcome: Outcome) -> Outcome:
        """The outcome; one that the gateway's own limit has caused says so."""
        deadline_at_s, own_s = self._request.deadline_at_s, self.method.timeout_s
        if outcome.is_ok or deadline_at_s is None or own_s is None:
            return outcome
        remaining_s = deadline_at_s - self._started_at_s
        is_clients = remaining_s < own_s - ROUNDED_S
        limit_s = remaining_s if is_clients else None
        return self.method.explained(outcome, limit_s, self.request_id, self._started_at_s)

    def _end(self, outcome: Outcome) -> CallEnd:
        payload = None
        if outcome.is_ok and not self.method.streams_response:
            payload = outcome.payload
            if payload is None or payload.codec != RAW:
                outcome, payload = Outcome(INTERNAL, self.method.not_a_message), None
        try:
            trailers = trailing_metadata(self.request_id, outcome)
        except ValueError as error:
            outcome, payload = Outcome(INTERNAL, str(error)), None
            trailers = trailing_metadata(self.request_id, outcome)
        code: int = status_code(outcome.code).value[0]
        message = fit_details(outcome.message) if outcome.message else ""
        response = None if payload is None else payload.data
        return CallEnd(code, message, trailers, response, outcome.backpressure)

    def _cancel_reason(self) -> CancelReason:
        return reason_of_leaving(self._request.deadline_at_s, self._started_at_s)

    def _count(self, code: int) -> None:
        """The call is over, though its answer may have to wait."""
        if self.is_over:
            return
        self.is_over = True
        if self._held_bytes:
            self._exchange.share.add(-self._held_bytes)
            self._held_bytes = 0
            self._request = replace(self._request, payload=None)
        # They refer to this call: what they keep would last until the next garbage collection.
        self._owner = _OVER
        self._call = None
        self.method.in_flight.leave()
        self.method.stats.end(code, monotonic() - self._started_at_s)


class _Over:
    """The owner of a call that is counted: nothing is of interest any more."""

    def on_initial_metadata(self, entries: tuple[Entry, ...]) -> None: ...

    def on_message(self, message: bytes | memoryview) -> bool:
        return True

    def on_request_room(self) -> None: ...

    def on_status(self, end: CallEnd) -> int | None:
        return end.code


_OVER = _Over()
