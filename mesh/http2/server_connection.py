"""`ServerConnection`: the server's end. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from mesh.http2 import frame_format as wire
from mesh.http2.connection import Connection
from mesh.http2.frame_format import MESSAGE_PREFIX_BYTES, STREAM_ID_MAX, WINDOW_MAX, ErrorCode, Http2Error
from mesh.http2.hpack_decoder import Field
from mesh.http2.limits import BufferBudget, Limits, opening_frames
from mesh.http2.stream import LingeringStreams, Stream
from mesh.tls.client_certificate import ClientCertificate

H = TypeVar("H")

_GAPS_REMEMBERED = 64
_ROOM_MIN_BYTES = 16 * 1024
"""Clients need not use up smaller windows."""
_UNCOUNTED_STREAMS = 100
_UNCOUNTED_LIST_BYTES = 2_048
"""A connection may have this many streams, with lists of headers up to this size, whose memory is not counted."""
_STREAM_BYTES = 8_192
_MEMORY_PER_LIST_BYTE = 5
"""What an open stream takes in memory at most: by itself, and for its headers, of which one of a byte takes 180."""
_EVERY_ID = STREAM_ID_MAX + 1
_DRAIN_PING = b"draining"


class ServerConnection(Connection[H]):
    """Accepts streams and passes each to `on_request`."""

    is_server = True

    def __init__(
        self,
        interpret: Callable[[list[Field]], H],
        on_request: Callable[[Stream, H | None], None],
        limits: Limits,
        clock: Callable[[], float],
        on_output: Callable[[], None],
        budget: BufferBudget | None = None,
    ) -> None:
        """`on_request(stream, head)` gives the stream its receiver; `head` is None for a list that was too long."""
        super().__init__(interpret, limits, clock, on_output, budget)
        self.client_certificate: ClientCertificate | None = None
        """As the shell has verified it; None for a client without one."""
        self._on_request = on_request
        self._last_id = 0
        self._accepted_id_max = _EVERY_ID
        """Streams above it came after our last GOAWAY."""
        self._lingering = LingeringStreams()
        self._gaps: list[range] = []
        """Stream ids that the peer has left out, the latest."""
        self.outbox.send(opening_frames(limits, is_server=True))

    def drain(self) -> None:
        """Begin to close: ask the peer to open no new streams. Those that are on their way are still served.

        GOAWAY with the highest id says so. The PING behind it comes back once the peer has read it; then a second
        GOAWAY names the last stream that counts (RFC 9113 §6.8).
        """
        if not self.is_closing:
            self.is_closing = True
            self.outbox.send(wire.goaway_frame(STREAM_ID_MAX, ErrorCode.NO_ERROR, "draining"))
            self.ping(_DRAIN_PING)

    def finish_drain(self) -> None:
        """The peer knows, or had time enough to: refuse what it opens from now on."""
        if self.is_closing and self._accepted_id_max == _EVERY_ID:
            self._accepted_id_max = self._last_id
            self.outbox.send(wire.goaway_frame(self._last_id, ErrorCode.NO_ERROR, "draining"))

    @property
    def is_done(self) -> bool:
        return self._accepted_id_max != _EVERY_ID and not self.streams and not self._lingering

    @property
    def streams_opened(self) -> int:
        """Streams that the client has opened, including refused ones."""
        return (self._last_id + 1) // 2

    def on_pong(self, payload: bytes) -> None:
        if payload == _DRAIN_PING:
            self.finish_drain()

    def close(self, code: ErrorCode) -> None:
        self._accepted_id_max = min(self._accepted_id_max, self._last_id)
        super().close(code)

    def on_rst_stream(self, stream_id: int, code: int) -> None:
        if self._lingering.discard(stream_id):
            return
        stream = self.streams.get(stream_id)
        if stream is not None:
            if self._is_rapid(stream):
                self.guard.charge("RST_STREAM")
            else:
                # A call that lasted, and was cancelled: its frames were as honest as those of one that was answered.
                self.guard.useful += 1
        super().on_rst_stream(stream_id, code)

    def on_goaway(self, last_stream_id: int, code: int, text: str) -> None:
        # A client's GOAWAY is about pushed streams, which we have none of.
        self.guard.charge("GOAWAY")

    def awaited_bodies(self) -> Iterator[Stream]:
        """The streams of which more of the request has to come now, and for which there is room."""
        for stream in self.streams.values():
            if (
                not stream.is_remote_done
                and stream.receive_window > _ROOM_MIN_BYTES
                and stream.received_bytes > stream.pause_bytes
            ):
                yield stream

    def expect(self, stream: Stream, size: int) -> None:
        """Let the client send `size` more bytes of the stream without waiting, though none of them gives room.

        A usual window stays behind them: for padding, and so that a client that has stopped is one that may go on.
        """
        window_bytes = min(size + self.limits.stream_window_bytes, WINDOW_MAX)
        if window_bytes > stream.receive_window and not (stream.is_remote_done or stream.has_ended):
            self.outbox.send(wire.window_update_frame(stream.id, window_bytes - stream.receive_window))
            stream.receive_window = window_bytes

    def reset_lingering(self, before_at_s: float) -> None:
        """Reset streams whose response had ended before this instant, and whose request still has not."""
        for stream_id in self._lingering.take_overdue(before_at_s):
            self._reset_rest(stream_id)

    def send_unary(self, stream: Stream, response: bytes, message: bytes | memoryview, trailers: bytes) -> bool:
        """A whole unary response; `response` and `trailers` are header blocks.

        False, and nothing is sent, if the message has to wait and there is no room for it.
        """
        if self.outbox.fits(stream, len(response) + len(message) + MESSAGE_PREFIX_BYTES + len(trailers)):
            self.outbox.put_whole(stream, response, message, trailers)
            self.on_sent_end(stream)
        elif not self.outbox.share.has_room(len(message) + MESSAGE_PREFIX_BYTES):
            return False
        else:
            self.outbox.send_headers(stream, response)
            self.outbox.send_message(stream, message)
            self.outbox.end(stream, trailers)
        return True

    def send_response(self, stream: Stream, block: bytes, body: bytes | memoryview) -> bool:
        """A whole response that is not gRPC; `block` has its headers. Else like `send_unary`."""
        outbox = self.outbox
        if not body:
            outbox.send_headers(stream, block, ends=True)
        elif outbox.fits(stream, len(block) + len(body)):
            outbox.put_response(stream, block, body)
            self.on_sent_end(stream)
        elif not outbox.share.has_room(len(body)):
            return False
        else:
            outbox.send_headers(stream, block)
            outbox.offer_data(stream, body)
            outbox.end(stream)
        return True

    def on_sent_end(self, stream: Stream) -> None:
        self.guard.useful += 1
        self._end_stream(stream)
        if not stream.is_remote_done:
            # The response is complete without the rest of the request.
            if stream.may_linger:
                self._reset_rest(self._lingering.add(stream.id, self._clock()))
            else:
                self._send_reset(stream.id, ErrorCode.NO_ERROR, stream.receive_window)

    def _is_rapid(self, stream: Stream) -> bool:
        """Whether it is of little use that the client has opened this stream, and now resets it."""
        if stream.has_sent_headers:
            # They may be part of what the socket cannot take.
            return self.outbox.is_paused
        return self.read_at_s - stream.opened_at_s < self.limits.rapid_reset_s

    def _reset_rest(self, stream_id: int | None) -> None:
        if stream_id is not None:
            self._send_reset(stream_id, ErrorCode.NO_ERROR)

    def _on_late_data(self, stream_id: int, stream: Stream | None, charged: int, size: int, *, ended: bool) -> None:
        if stream_id not in self._lingering:
            super()._on_late_data(stream_id, stream, charged, size, ended=ended)
            return
        if not size and not ended:
            self.guard.charge("empty DATA")
        increment = self._lingering.take(stream_id, charged)
        if ended:
            self._lingering.discard(stream_id)
        elif increment is None:
            self._reset_rest(stream_id)
        elif increment:
            self.outbox.send(wire.window_update_frame(stream_id, increment))

    def _on_new_stream(self, stream_id: int, head: H | None, *, ended: bool) -> None:
        if not stream_id & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a client opened stream {stream_id}")
        if stream_id <= self._last_id:
            self._on_headers_of_the_past(stream_id)
            return
        if stream_id > self._last_id + 2:
            self._gaps.append(range(self._last_id + 2 - (not self._last_id), stream_id))
            del self._gaps[:-_GAPS_REMEMBERED]
        self._last_id = stream_id
        list_bytes = self.decoder.list_bytes
        counted_bytes = 0
        if len(self.streams) >= _UNCOUNTED_STREAMS or list_bytes > _UNCOUNTED_LIST_BYTES:
            counted_bytes = _STREAM_BYTES + list_bytes * _MEMORY_PER_LIST_BYTE
        if (
            len(self.streams) >= self.limits.streams_max
            or stream_id > self._accepted_id_max
            or (counted_bytes and not self.outbox.share.has_room(counted_bytes))
        ):
            self.guard.charge("a stream that was refused")
            self._send_reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        stream = self._open(stream_id)
        if counted_bytes:
            stream.counted_bytes = counted_bytes
            self.outbox.share.add(counted_bytes)
        stream.opened_at_s = self.read_at_s
        stream.is_remote_done = ended
        self._on_request(stream, head)
        if ended and not stream.has_ended:
            self._on_remote_end(stream)

    def _on_headers_of_the_past(self, stream_id: int) -> None:
        if self._lingering.discard(stream_id):
            return
        self.guard.charge("HEADERS of a stream that has ended")
        if stream_id in self._recent_resets:
            return
        if any(stream_id in gap for gap in self._gaps):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} opened after {self._last_id}")
        raise Http2Error(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which has ended")

    def _on_more_headers(self, stream: Stream, head: H | None, *, ended: bool) -> None:
        """Trailers of a request. gRPC has none, but HTTP/2 has."""
        if not ended:
            self.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
            return
        stream.is_remote_done = True
        stream.receiver.on_headers(stream, head, ended=True)
        if not stream.has_ended:
            self._on_remote_end(stream)

    def _on_remote_end(self, stream: Stream) -> None:
        if stream.content_left:
            self.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.receiver.on_end(stream)

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id > self._last_id or not stream_id & 1

    def _last_peer_stream_id(self) -> int:
        return min(self._last_id, self._accepted_id_max)
