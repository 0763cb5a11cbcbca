"""gRPC calls that stream: the request, the response or both.

Flow control works end to end in both directions, so nothing accumulates here. What the client sends is given back to
its window when the replica has granted credit for it; credit for a response message is granted again when the client's
window has taken it. Compressed requests wait as they came and are decompressed when the replica takes them, in turns of
the loop, so a read full of them neither takes much memory nor keeps other calls waiting for long.
"""

from __future__ import annotations

from collections import deque

from gateway.dialects.compression import decompression_turns
from gateway.dialects.grpc_call import GrpcCall, UnaryRequestCall, is_message
from gateway.dialects.grpc_metadata import ClientHead
from gateway.dialects.served_method import NO_ROOM, ServedMethod
from mesh.http2.frame_format import ErrorCode
from mesh.http2.stream import Stream
from mesh.link.outgoing_call import grant_at
from mesh.rpc.message_reader import CompressedMessage, whole_message
from mesh.rpc.status_codes import INTERNAL, RESOURCE_EXHAUSTED
from mesh.wire.payload import Payload, raw


class _StreamedResponse(GrpcCall):
    """Adds the response messages."""

    __slots__ = ()

    streams_response = True

    def on_item(self, payload: Payload) -> None:
        stream, call = self._stream, self._call
        if stream.has_ended or call is None:
            return
        if not is_message(payload):
            outcome = self._not_a_message()
            self._refuse(outcome.code, outcome.message)
            return
        if self._compression is None and stream.has_sent_headers:
            is_sent = stream.connection.outbox.send_message(stream, payload.data)
        else:
            is_sent = self._send_message(payload.data)
        if not is_sent:
            self._refuse(RESOURCE_EXHAUSTED, NO_ROOM)
            return
        self._method.stats.sent += 1
        self._written += payload.credits
        if self._written >= grant_at() and not stream.is_blocked:
            self._grant()

    def on_writable(self, stream: Stream) -> None:
        self._grant()

    def _grant(self) -> None:
        written, self._written = self._written, 0
        if written and self._call is not None:
            self._call.grant(written)


class _StreamedRequest(GrpcCall):
    """Adds the request messages."""

    __slots__ = ("__weakref__", "_upload")

    streams_request = True

    def __init__(self, stream: Stream, head: ClientHead, method: ServedMethod, peer: str) -> None:
        super().__init__(stream, head, method, peer)
        self._upload = _Upload()
        stream.pause_bytes = 0
        self._submit(None)

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        if self._is_over:
            return
        upload = self._upload
        if self._reader is None or self._reader.is_between:
            message = whole_message(data, start, stop, self._method.message_max_bytes)
            messages = [message] if message is not None else self._messages(memoryview(data)[start:stop])
        else:
            messages = self._messages(memoryview(data)[start:stop])
        if stream.has_ended or self._refused_with:
            return
        upload.waiting.extend(messages)
        upload.waiting_bytes += sum(map(len, messages))
        upload.held_bytes += stop - start
        self._forward()
        begun_bytes = 0 if upload.waiting or self._reader is None else self._reader.begun_bytes
        stream.pause_bytes = stream.received_bytes - begun_bytes

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        if not self._is_over:
            super().on_reset(stream, code)

    def on_end(self, stream: Stream) -> None:
        if self._is_over:
            return
        if self._reader is not None and not self._reader.is_between:
            self._refuse(INTERNAL, "The last request message is not complete.")
            return
        self._upload.is_complete = True
        self._forward()

    def on_stalled(self) -> None:
        if not (self._is_over or self._refused_with):
            super().on_stalled()

    def on_credit(self) -> None:
        self._forward()

    @property
    def _is_over(self) -> bool:
        """Whether the call was refused when it began. Its stream lasts if the client does not read the answer."""
        return self._call is None

    def _forward(self) -> None:
        """Send what the replica takes, and let the client send as much more."""
        call, upload, stream = self._call, self._upload, self._stream
        if call is None or stream.has_ended:
            return
        waiting = upload.waiting
        while waiting and call.request_credit > 0:
            received = message = waiting[0]
            if type(received) is CompressedMessage:
                turns = decompression_turns()
                if not turns.has_room:
                    if not upload.awaits_turn:
                        upload.awaits_turn = True
                        turns.wait(stream.connection.outbox.share, self._on_turn)
                    break
                plain = self._decompressed(received)
                if plain is None:
                    return
                message = plain
            waiting.popleft()
            upload.waiting_bytes -= len(received)
            self._method.stats.received += 1
            upload.was_accepted = True
            call.send_item(raw(message))
        buffered_bytes = upload.waiting_bytes + (0 if self._reader is None else self._reader.begun_bytes)
        if (buffered_bytes != self._held_bytes and not self._hold(buffered_bytes)) or waiting:
            return
        if upload.held_bytes and call.request_credit > 0:
            held_bytes, upload.held_bytes = upload.held_bytes, 0
            stream.connection.give_room(stream, held_bytes)
        # Until a replica has accepted the call, the end of an empty request would be lost.
        if upload.is_complete and not upload.is_half_closed and (upload.was_accepted or call.request_credit > 0):
            upload.is_half_closed = True
            call.half_close()

    def _on_turn(self) -> bool:
        if self._is_over or self._stream.has_ended:
            return False
        self._upload.awaits_turn = False
        self._forward()
        return True


class _Upload:
    """Request messages on their way."""

    __slots__ = (
        "awaits_turn",
        "held_bytes",
        "is_complete",
        "is_half_closed",
        "waiting",
        "waiting_bytes",
        "was_accepted",
    )

    def __init__(self) -> None:
        self.awaits_turn = False
        """The first message that waits is compressed, and enough was decompressed in this turn of the loop."""
        self.waiting: deque[bytes] = deque()
        """Without credit; as many as fit into the stream's window."""
        self.waiting_bytes = 0
        self.held_bytes = 0
        """Received, and not given back to the client's window."""
        self.is_complete = False
        self.is_half_closed = False
        self.was_accepted = False
        """Whether a replica has taken a message."""


class UnaryStreamCall(_StreamedResponse, UnaryRequestCall):
    """One request, many responses."""

    __slots__ = ()


class StreamUnaryCall(_StreamedRequest):
    """Many requests, one response."""

    __slots__ = ()


class StreamStreamCall(_StreamedRequest, _StreamedResponse):
    """Many requests, many responses."""

    __slots__ = ()
