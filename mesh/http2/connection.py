"""`Connection`: one HTTP/2 connection, in either role. Sans-I/O.

Theory of operation. The shell passes received bytes to `receive`, and writes what `take_output` returns when
`on_output` has said that there is something. Bytes go through three stages, each of which only knows the one before:

    FrameReader     bytes -> frames         is the frame well-formed by itself?
    Connection      frames -> events        may it come now? which stream, which window, which header table?
    Receiver        events of one stream    what do they mean? (gRPC, for instance)

The other way, what is to be sent goes through a method here or of the outbox, which knows the windows. Nothing here
waits, sleeps or reads a clock but for the one that it was given, so every rule is tested by bytes in and bytes out.

Windows bound what is in memory. The peer gets the connection's window back as bytes arrive, and a stream's as its
receiver takes them (`give_room`): so a slow receiver stops its own stream and no other. What we send and the peer does
not take waits in the outbox, stream by stream, and counts in a `BufferShare`; without room there, sending is refused.

Faults are of two kinds. What is wrong with one stream ends that stream (RST_STREAM, `fail_stream`). What makes the
connection's state unknowable raises Http2Error and ends it (GOAWAY, `fail`). In both cases the receivers learn
by `on_reset` that nothing more will come. A peer that only costs work runs out of the FloodGuard's budget.

The core has no timers. Its shell writes once in a turn of the event loop, when all that was read has been handled, and
looks at each connection about once a second: keepalive, slow peers, idle and old connections, and the end of drains.

Read on in this order: `frame_reader` and `hpack_decoder` for what comes in, `outbox` for what leaves, `stream`, the two
roles, `limits` and `flood_guard` for what a peer may do; then the shell, `transport`, `upkeep` and `write_turn`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

from mesh.http2 import frame_format as wire
from mesh.http2.flood_guard import FloodGuard
from mesh.http2.frame_format import ErrorCode, Http2Error
from mesh.http2.frame_reader import FrameReader
from mesh.http2.hpack_decoder import Field, HeaderDecoder
from mesh.http2.limits import BufferBudget, BufferShare, Limits
from mesh.http2.outbox import Outbox
from mesh.http2.peer_settings import apply_settings
from mesh.http2.stream import RecentResets, Stream, end_failed, report_reset

H = TypeVar("H")

_INCREMENT_USUAL_MIN = 1_024
"""Smaller WINDOW_UPDATEs count as a flood; larger ones reach the highest window before they do harm."""
_SETTINGS_WORK = 32
"""Parameters, and streams that a new initial window touches, that count as one more frame."""
STREAMS_ENDED = 100
"""Streams that end in one go with their connection: a peer may have thousands, each with a call to cancel."""
_NOTHING_MAY_LEAVE = -(2**62)
_NO_LIMIT = 2**63


class Connection(Generic[H]):
    """What both roles share. `H` is what the interpreter makes of a list of fields."""

    is_server: bool

    def __init__(
        self,
        interpret: Callable[[list[Field]], H],
        limits: Limits,
        clock: Callable[[], float],
        on_output: Callable[[], None],
        budget: BufferBudget | None = None,
    ) -> None:
        """`clock` returns seconds; `on_output` is called whenever there is something to write."""
        self.limits = limits
        self.read_at_s = 0.0
        """When the bytes that are being received had come."""
        self._clock = clock
        self.guard = FloodGuard(limits, clock)
        self.outbox = Outbox(self.guard, on_output, BufferShare(budget or BufferBudget()))
        self.streams: dict[int, Stream] = {}
        self.is_closing = False
        """After GOAWAY, either way: no new streams."""
        self.fault: Http2Error | None = None
        """Why we have ended the connection: nothing is read any more, and what is in the output is the last."""
        self.reader = FrameReader(self, limits, is_server=self.is_server)
        self.decoder = HeaderDecoder(interpret, limits.header_list_max_bytes)
        self._receive_window = limits.connection_window_bytes
        self._recent_resets = RecentResets(limits.stream_window_bytes)

    def __repr__(self) -> str:
        state = "failed" if self.fault else "closing" if self.is_closing else "open"
        return f"<{type(self).__name__} {state}, {len(self.streams)} streams>"

    # ---- For the shell -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, frames_max: int = _NO_LIMIT) -> None:
        """Bytes from the peer. At most `frames_max` frames are read now; after that, `reader.has_unread`."""
        if self.fault is not None:
            return
        self.read_at_s = self._clock()
        try:
            self.reader.feed(data, frames_max)
            if self.outbox.can_pump:
                self.outbox.pump()
        except Http2Error as fault:
            self.fail(fault)

    def take_output(self) -> list[bytes | memoryview]:
        """What is to be written now; some more may follow at once if the socket takes it."""
        outbox = self.outbox
        if outbox.can_pump:
            outbox.pump()
        output, outbox.output = outbox.output, []
        return output

    def fail(self, fault: Http2Error) -> None:
        """End the connection with GOAWAY, because the peer or our own shell did something wrong."""
        if self.fault is None:
            self.fault = fault
            self.outbox.send(wire.goaway_frame(self._last_peer_stream_id(), fault.code, str(fault)))
            self.close(fault.code)

    def close(self, code: ErrorCode) -> None:
        """The connection is gone, or as good as: `STREAMS_ENDED` of its streams end, as many with each further call."""
        self.is_closing = True
        for stream in list(islice(self.streams.values(), STREAMS_ENDED)):
            self._forget(stream, code)

    @property
    def is_done(self) -> bool:
        """Whether nothing more can happen here, so that the socket can be closed."""
        return self.is_closing and not self.streams

    # ---- For receivers -----------------------------------------------------------------------------------------------

    def give_room(self, stream: Stream, size: int) -> None:
        """`size` bytes of the stream were taken: let the peer send as many more, at least half a window at a time."""
        stream.taken += size
        if stream.taken > self.limits.stream_window_bytes >> 1 and not (stream.is_remote_done or stream.has_ended):
            self.outbox.send(wire.window_update_frame(stream.id, stream.taken))
            stream.receive_window += stream.taken
            stream.taken = 0

    def reset(self, stream: Stream, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """End the stream early because we want no more of it; its receiver gets no further event.

        Without effect on one that has ended.
        """
        if not stream.has_ended:
            self.guard.useful += 1
            self._abort(stream, code)

    def fail_stream(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream because of what the peer did on it; its receiver learns it by `on_reset`.

        To be called while bytes are being received: raises Http2Error for a peer that does so again and again.
        Without effect on a stream that has ended.
        """
        if not stream.has_ended:
            self.guard.charge("what breaks a stream")
            self._abort(stream, code)
            report_reset(stream, code)

    def ping(self, payload: bytes) -> None:
        """`payload`: eight bytes, which `on_pong` gets back."""
        self.outbox.send(wire.ping_frame(payload))

    # ---- Frames ------------------------------------------------------------------------------------------------------

    def on_data(self, stream_id: int, charged: int, data: bytes, start: int, stop: int, *, ended: bool) -> None:
        if charged:
            self._receive_window -= charged
            if self._receive_window < self.limits.connection_window_bytes >> 1:
                self._widen()
        stream = self.streams.get(stream_id)
        size = stop - start
        if stream is None or stream.is_remote_done:
            self._on_late_data(stream_id, stream, charged, size, ended=ended)
            return
        stream.receive_window -= charged
        if stream.receive_window < 0:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, f"more than the window of stream {stream_id}")
        if ended:
            stream.is_remote_done = True
        elif not size:
            self.guard.charge("empty DATA")
        stream.received_bytes += size
        if stream.content_left is not None:
            stream.content_left -= size
            if stream.content_left < 0:
                self.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
                return
        try:
            if size:
                stream.receiver.on_data(stream, data, start, stop)
            if ended and not stream.has_ended:
                self._on_remote_end(stream)
        except Exception as error:
            end_failed(stream, error)

    def on_padding(self, stream_id: int, size: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.give_room(stream, size)

    def on_block(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        head = self.decoder.decode(block)
        stream = self.streams.get(stream_id)
        try:
            if stream is None:
                self._on_new_stream(stream_id, head, ended=ended)
            elif stream.is_remote_done:
                self.fail_stream(stream, ErrorCode.STREAM_CLOSED)
            else:
                self._on_more_headers(stream, head, ended=ended)
        except Exception as error:
            end_failed(stream or self.streams.get(stream_id), error)

    def on_priority(self, stream_id: int, depends_on: int) -> None:
        self.guard.charge("PRIORITY")
        if depends_on == stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")

    def on_rst_stream(self, stream_id: int, code: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_not_idle(stream_id, "RST_STREAM")
            self.guard.charge("RST_STREAM")
            return
        self._forget(stream, code)

    def on_settings(self, values: list[tuple[int, int]]) -> None:
        touched = apply_settings(values, self.outbox, self.streams.values(), may_push=self.is_server)
        self.guard.charge("SETTINGS", 1 + (len(values) + touched) // _SETTINGS_WORK)
        self.outbox.acknowledge(wire.SETTINGS_ACK)

    def on_settings_ack(self) -> None:
        self.guard.charge("SETTINGS")

    def on_ping(self, payload: bytes, *, is_ack: bool) -> None:
        self.guard.charge("PING")
        if is_ack:
            self.on_pong(payload)
        else:
            self.outbox.acknowledge(wire.ping_frame(payload, wire.ACK))

    def on_pong(self, payload: bytes) -> None:
        """The peer has answered our PING."""

    def on_goaway(self, last_stream_id: int, code: int, text: str) -> None:
        """The peer wants no new streams. It may say so several times."""
        self.guard.charge("GOAWAY")
        self.is_closing = True

    def on_window_update(self, stream_id: int, increment: int) -> None:
        if increment < _INCREMENT_USUAL_MIN:
            self.guard.charge_small_update(stream_id)
        if not stream_id:
            if not increment:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            if not self.outbox.widen(increment):
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "a window above 2^31-1")
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_not_idle(stream_id, "WINDOW_UPDATE")
            self.guard.charge("WINDOW_UPDATE of a stream that has ended")
            return
        stream.send_window += increment
        if not increment:
            self.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
        elif stream.send_window > wire.WINDOW_MAX:
            self.fail_stream(stream, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            self.outbox.unpark(stream)

    def on_unknown(self) -> None:
        self.guard.charge("a frame of unknown type")

    def on_sent_end(self, stream: Stream) -> None:
        """The outbox has put the end of our side into the output."""
        raise AssertionError("each role decides")

    # ---- What the roles decide ---------------------------------------------------------------------------------------

    def _on_new_stream(self, stream_id: int, head: H | None, *, ended: bool) -> None:
        raise AssertionError("each role decides")

    def _on_more_headers(self, stream: Stream, head: H | None, *, ended: bool) -> None:
        raise AssertionError("each role decides")

    def _on_remote_end(self, stream: Stream) -> None:
        raise AssertionError("each role decides")

    def _is_idle(self, stream_id: int) -> bool:
        """Whether neither side has opened this stream yet."""
        raise AssertionError("each role decides")

    def _last_peer_stream_id(self) -> int:
        return 0

    # ---- Inside ------------------------------------------------------------------------------------------------------

    def _open(self, stream_id: int) -> Stream:
        stream = Stream(self, stream_id, self.outbox.stream_window_bytes, self.limits.stream_window_bytes)
        stream.received_bytes, stream.pause_bytes, stream.counted_bytes, stream.may_linger = 0, -1, 0, False
        self.streams[stream_id] = stream
        return stream

    def _widen(self) -> None:
        """Give room on the connection: its memory is bounded stream by stream."""
        if self._receive_window < 0:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "more than the window of the connection")
        self.outbox.send(wire.window_update_frame(0, self.limits.connection_window_bytes - self._receive_window))
        self._receive_window = self.limits.connection_window_bytes

    def _on_late_data(self, stream_id: int, stream: Stream | None, charged: int, size: int, *, ended: bool) -> None:
        """DATA of a stream on which the peer has nothing more to say, or of which we want nothing more."""
        if stream is not None:
            self.fail_stream(stream, ErrorCode.STREAM_CLOSED)
            return
        self._check_not_idle(stream_id, "DATA")
        if stream_id not in self._recent_resets:
            self.guard.charge("DATA of a stream that has ended")
            self._send_reset(stream_id, ErrorCode.STREAM_CLOSED)
        elif not size:
            self.guard.charge("empty DATA")
        else:
            self._recent_resets.take(stream_id, charged)

    def _check_not_idle(self, stream_id: int, what: str) -> None:
        if self._is_idle(stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"{what} on idle stream {stream_id}")

    def _send_reset(self, stream_id: int, code: ErrorCode, window_bytes: int = 0) -> None:
        """`window_bytes`: what the peer may send on the stream before it reads the reset; 0: the usual window."""
        self.outbox.send(wire.rst_stream_frame(stream_id, code))
        self._recent_resets.add(stream_id, window_bytes)

    def _end_stream(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        stream.has_ended = True
        stream.send_window = _NOTHING_MAY_LEAVE
        self.outbox.drop(stream)

    def _abort(self, stream: Stream, code: ErrorCode) -> None:
        self._end_stream(stream)
        self._send_reset(stream.id, code, stream.receive_window)

    def _forget(self, stream: Stream, code: ErrorCode | int) -> None:
        """End a stream of which the peer needs no news."""
        if not stream.has_ended:
            self._end_stream(stream)
            report_reset(stream, code)
