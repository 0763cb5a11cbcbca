"""One gRPC call of a client, bridged to one call on the mesh; unary calls complete, streaming ones in grpc_streams.

There is one object per RPC: it receives the events of its HTTP/2 stream and is the sink of the outgoing call. A unary
call needs no task, future or timer; the router keeps the deadline.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, ClassVar

from gateway.dialects.compression import ResponseCompression, decompression_turns
from gateway.dialects.grpc_metadata import REQUEST_ID_KEY, ClientHead
from gateway.dialects.grpc_status import fit_details, initial_metadata, trailing_metadata
from gateway.dialects.served_method import COUNTED_MIN_BYTES, NO_ROOM, ServedMethod, reason_of_leaving
from mesh.exceptions import CancelReason
from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_encoder import encode_string
from mesh.http2.outbox import Outbox
from mesh.http2.stream import UNHEARD, Stream
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.rpc.answers import answer_status, end_call
from mesh.rpc.grpc_fields import OK_BLOCK, RESPONSE_BLOCK, metadata_block, status_block
from mesh.rpc.message_reader import (
    BegunMessage,
    CompressedMessage,
    MessageError,
    MessageReader,
    whole_message,
)
from mesh.rpc.request_head import check_trailers
from mesh.rpc.status_codes import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    status_code,
)
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import RAW, Payload, raw
from mesh.wire.request_context import RequestContext

logger = logging.getLogger("mesh.gateway")

_OK_WITH_REQUEST_ID = OK_BLOCK + b"\0" + encode_string(REQUEST_ID_KEY.encode())
"""The trailers of most calls, up to the value of the request id."""


class GrpcCall:
    """The life of a call, for all four arities."""

    __slots__ = (
        "_call",
        "_compression",
        "_context",
        "_head",
        "_held_bytes",
        "_method",
        "_peer",
        "_reader",
        "_refused_with",
        "_started_at_s",
        "_stream",
        "_written",
    )

    streams_request: ClassVar[bool] = False
    streams_response: ClassVar[bool] = False

    def __init__(self, stream: Stream, head: ClientHead, method: ServedMethod, peer: str) -> None:
        self._stream = stream
        self._head = head
        self._method = method
        self._peer = peer
        self._context: RequestContext = head.invocation.context(method.full_name, method.application, method.identity)
        self._reader: MessageReader | None = None
        self._call: OutgoingCall | None = None
        self._compression: ResponseCompression | None = None
        self._refused_with = 0
        """Status with which the gateway itself ended the client's call while the mesh still had it."""
        self._held_bytes = 0
        """Bytes of request messages, as counted in what the gateway buffers."""
        self._written = 0
        """Credit of response messages that were sent and not granted again yet; only of streamed responses."""
        self._started_at_s = monotonic()
        method.stats.started += 1
        method.in_flight.enter()

    # ---- From the client ---------------------------------------------------------------------------------------------

    def on_headers(self, stream: Stream, head: Any, *, ended: bool) -> None:
        """Trailers of a request mean nothing in gRPC."""
        check_trailers(stream, head)

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        raise AssertionError("each kind of request decides")

    def on_end(self, stream: Stream) -> None:
        raise AssertionError("each kind of request decides")

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        """The client has left."""
        if self._call is None:
            self._count(CANCELLED)
        else:
            self._method.router.cancel(self._call, self._cancel_reason())

    def on_writable(self, stream: Stream) -> None:
        """Overridden by calls with a streamed response."""

    def on_stalled(self) -> None:
        """The client is too slow in the middle of a message."""
        self._refuse(DEADLINE_EXCEEDED, "The request took too long to arrive.")

    # ---- From the mesh -----------------------------------------------------------------------------------------------

    def on_item(self, payload: Payload) -> None:
        """Overridden by calls with a streamed response."""

    def on_credit(self) -> None:
        """Overridden by calls with a streamed request."""

    def on_initial_metadata(self, entries: Trailers) -> None:
        if not self._can_send_headers:
            return
        try:
            block = metadata_block(initial_metadata(entries))
        except ValueError as error:
            self._refuse(INTERNAL, str(error))
        else:
            self._send_headers(block)

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        if self._compression is None:
            self._compression = ResponseCompression(self._head.accepts)
        if skips_next:
            self._compression.skip_next()
        elif self._can_send_headers:
            self._compression.choose(encoding)

    def on_done(self, outcome: Outcome) -> None:
        """The call has ended on the mesh."""
        if self._stream.has_ended or self._refused_with:
            is_late = self._cancel_reason() is CancelReason.DEADLINE
            self._count(self._refused_with or (DEADLINE_EXCEEDED if is_late else CANCELLED))
            return
        if outcome.is_ok and not self.streams_response and not is_message(outcome.payload):
            outcome = self._not_a_message()
        if outcome.code or outcome.message or outcome.trailers:
            request_id = self._context.request_id
            self._answer(self._method.explained(outcome, self._head.timeout_s, request_id, self._started_at_s))
            return
        trailers = _OK_WITH_REQUEST_ID + encode_string(self._context.request_id.encode())
        if outcome.payload is None:
            end_call(self._stream, trailers)
            self._count(OK)
        else:
            self._send_last(outcome.payload, OK, trailers)

    def _answer(self, outcome: Outcome) -> None:
        """End the client's call with what is not a plain success."""
        try:
            entries = trailing_metadata(self._context.request_id, outcome)
        except ValueError as error:
            outcome = Outcome(INTERNAL, str(error))
            entries = trailing_metadata(self._context.request_id, outcome)
        code: int = status_code(outcome.code).value[0]
        trailers = status_block(code, fit_details(outcome.message), entries)
        if outcome.is_ok and outcome.payload is not None:
            self._send_last(outcome.payload, code, trailers)
        else:
            end_call(self._stream, trailers)
            self._count(code)

    def _send_last(self, payload: Payload, code: int, trailers: bytes) -> None:
        """Send the only response message, and end the call with the status in `trailers`."""
        stream, message = self._stream, payload.data
        if self._compression is None and not stream.has_sent_headers:
            is_sent = stream.connection.send_unary(stream, RESPONSE_BLOCK, message, trailers)
        else:
            is_sent = self._send_message(message)
            if is_sent:
                end_call(stream, trailers)
        if is_sent:
            self._method.stats.sent += 1
        else:
            code = RESOURCE_EXHAUSTED
            entries = trailing_metadata(self._context.request_id, Outcome())
            answer_status(stream, code, f"{NO_ROOM} The call was executed; its response is lost.", entries)
        self._count(code)

    @property
    def _can_send_headers(self) -> bool:
        return not (self._stream.has_sent_headers or self._stream.has_ended or self._refused_with)

    def _send_headers(self, metadata: bytes = b"") -> None:
        compression = b"" if self._compression is None else self._compression.header
        self._stream.connection.outbox.send_headers(self._stream, RESPONSE_BLOCK + compression + metadata)

    def _send_message(self, message: bytes | memoryview) -> bool:
        """Send a response message behind the headers, compressed if it is to be. False if there is no room for it."""
        stream = self._stream
        if not stream.has_sent_headers:
            self._send_headers()
        outbox: Outbox = stream.connection.outbox
        frame = None if self._compression is None else self._compression.frame(message)
        if frame is None:
            return outbox.send_message(stream, message)
        if not outbox.share.has_room(len(frame)):
            return False
        outbox.send_data(stream, frame)
        return True

    # ---- Life --------------------------------------------------------------------------------------------------------

    def _submit(self, request: bytes | memoryview | None) -> None:
        """Start the call on the mesh."""
        method, head = self._method, self._head
        if method.model_id_fields and request is not None:
            method.name_model(self._context, request)
        self._call = call = OutgoingCall(
            CallRequest(
                method.full_name,
                None if request is None else raw(request),
                self._context,
                method.deadline_at_s(head.timeout_s),
                self.streams_request,
                self.streams_response,
                head.invocation.passed_on,
                self._peer,
                True,  # replicas of this node are preferred
                method.is_idempotent,
                method.policies.retry,
                None,
                method.policies.hedge,
                head.invocation.session_id,
                source=self._peer,
            ),
            self,
        )
        try:
            method.router.submit(call)
        except Exception:
            logger.exception("the gateway failed in a call of %s", method.full_name)
            self._refuse(INTERNAL, "The gateway failed; its log has the reason.")

    def _refuse(self, code: int, text: str) -> None:
        """End the call because of what the client sent."""
        entries = trailing_metadata(self._context.request_id, Outcome())
        answer_status(self._stream, code, text, entries)
        self._refused_with = code
        if self._call is None:
            self._count(code)
        else:
            self._method.router.cancel(self._call, CancelReason.CLIENT)

    def _hold(self, size: int) -> bool:
        """Count `size` bytes as held for this call. False, and the call is over, if there is no room for them."""
        share, more_bytes = self._stream.connection.outbox.share, size - self._held_bytes
        if more_bytes > 0 and not share.has_room(more_bytes):
            self._refuse(RESOURCE_EXHAUSTED, NO_ROOM)
            return False
        share.add(more_bytes)
        self._held_bytes = size
        return True

    def _messages(self, data: memoryview) -> list[bytes]:
        """The messages that are complete with these bytes; none, and the call is over, if they are wrong."""
        if self._reader is None:
            method = self._method
            self._reader = MessageReader(method.message_max_bytes, self._head.encoding, keeps_compressed=True)
        try:
            return self._reader.feed(data)
        except MessageError as error:
            self._refuse(error.code, error.text)
            return []

    def _decompressed(self, message: CompressedMessage) -> bytes | None:
        """The message; None, and the call is over, if it is wrong."""
        turns, max_bytes = decompression_turns(), self._method.decompressed_max_bytes
        try:
            return turns.decompressed(self._stream.connection.outbox.share, message, self._head.encoding, max_bytes)
        except MessageError as error:
            self._refuse(error.code, error.text)
            return None

    def _cancel_reason(self) -> CancelReason:
        deadline_at_s = self._call.request.deadline_at_s if self._call is not None else None
        return reason_of_leaving(deadline_at_s, self._started_at_s)

    def _not_a_message(self) -> Outcome:
        return Outcome(INTERNAL, self._method.not_a_message)

    def _count(self, code: int) -> None:
        """The call is over, though its answer may have to wait."""
        if self._held_bytes:
            self._hold(0)
        # They refer to this call: its messages would last until the next garbage collection.
        self._stream.receiver = UNHEARD
        self._call = None
        self._method.in_flight.leave()
        self._method.stats.end(code, monotonic() - self._started_at_s)


class UnaryRequestCall(GrpcCall):
    """Adds the one request message."""

    __slots__ = ("__weakref__", "_begun", "_request")

    def __init__(self, stream: Stream, head: ClientHead, method: ServedMethod, peer: str) -> None:
        super().__init__(stream, head, method, peer)
        self._request: bytes | memoryview | None = None
        self._begun: BegunMessage | None = None
        """The request, if it is large, until its end has come."""

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        if self._begun is not None:
            self._on_more(self._begun, data, start, stop)
            return
        if self._request is not None:
            self._refuse_more()
            return
        if self._reader is None:
            max_bytes = self._method.message_max_bytes
            self._request = whole_message(data, start, stop, max_bytes)
            if self._request is not None:
                if stop - start > COUNTED_MIN_BYTES and not self._hold(stop - start):
                    self._request = None
                return
            self._begun = BegunMessage.begin(data, start, stop, max_bytes)
            if self._begun is not None:
                if self._hold(self._begun.filled):
                    # All of it, so that the client need not wait for the room of each next piece.
                    stream.connection.expect(stream, self._begun.missing_bytes)
                return
        stream.connection.give_room(stream, stop - start)
        messages = self._messages(memoryview(data)[start:stop])
        if stream.has_ended or self._refused_with or self._reader is None:
            return
        if not self._hold(len(messages[0]) if messages else self._reader.begun_bytes) or not messages:
            return
        if len(messages) > 1:
            self._refuse_more()
            return
        self._request = messages[0]

    def on_end(self, stream: Stream) -> None:
        request = self._request
        if self._begun is not None or (self._reader is not None and not self._reader.is_between):
            self._refuse(INTERNAL, "The request message is not complete.")
            return
        if request is None:
            # The code of the gRPC docs for a wrong number of requests.
            self._refuse(UNIMPLEMENTED, f"{self._method.full_name} takes one request message; none came.")
            return
        self._request = None
        if type(request) is not CompressedMessage:
            self._method.stats.received += 1
            self._submit(request)
        elif decompression_turns().has_room:
            self._submit_compressed(request)
        else:
            self._request = request
            decompression_turns().wait(stream.connection.outbox.share, self._on_turn)

    def _on_turn(self) -> bool:
        request, self._request = self._request, None
        if type(request) is not CompressedMessage or self._stream.has_ended or self._refused_with:
            return False
        self._submit_compressed(request)
        return True

    def _submit_compressed(self, request: CompressedMessage) -> None:
        plain = self._decompressed(request)
        if plain is not None and self._hold(len(plain)):
            self._method.stats.received += 1
            self._submit(plain)

    def _on_more(self, begun: BegunMessage, data: bytes, start: int, stop: int) -> None:
        if not begun.add(data, start, stop):
            self._refuse_more()
        elif self._hold(begun.filled) and not begun.missing_bytes:
            self._request, self._begun = begun.whole(), None

    def _refuse_more(self) -> None:
        self._refuse(UNIMPLEMENTED, f"{self._method.full_name} takes one request message; another one came.")


class UnaryUnaryCall(UnaryRequestCall):
    """One request, one response."""

    __slots__ = ()


def is_message(payload: Payload | None) -> bool:
    """Whether a payload is raw bytes, as gRPC messages are. Others may be pickles, which the gateway never opens."""
    return payload is not None and payload.codec == RAW
