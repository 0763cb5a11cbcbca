"""`FrameReader`: received bytes cut into frames, and header blocks put together. Sans-I/O.

Everything that can be said about a frame by looking at it alone is checked here (RFC 9113 §4, §6); what depends on the
state of a stream is the handler's. A DATA frame is passed on as it arrives, so nothing but the beginning of a frame of
limited size is ever kept, and its bytes are not copied into a buffer of frames first.
"""

from __future__ import annotations

from typing import Protocol

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import FRAME_HEADER, HEADER_BYTES, PREFACE, ErrorCode, Http2Error
from mesh.http2.limits import Limits


class FrameHandler(Protocol):
    """What frames mean; implemented by `Connection`."""

    def on_data(self, stream_id: int, charged: int, data: bytes, start: int, stop: int, *, ended: bool) -> None:
        """A DATA frame, or the next piece of one. `charged`: bytes that it takes of both windows."""

    def on_padding(self, stream_id: int, size: int) -> None:
        """`size` bytes of the DATA frame whose data came just now were padding."""

    def on_block(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        """A whole header block."""

    def on_priority(self, stream_id: int, depends_on: int) -> None: ...

    def on_rst_stream(self, stream_id: int, code: int) -> None: ...

    def on_settings(self, values: list[tuple[int, int]]) -> None: ...

    def on_settings_ack(self) -> None: ...

    def on_ping(self, payload: bytes, *, is_ack: bool) -> None: ...

    def on_goaway(self, last_stream_id: int, code: int, text: str) -> None: ...

    def on_window_update(self, stream_id: int, increment: int) -> None: ...

    def on_unknown(self) -> None:
        """A frame of a type that does not exist yet, or that is of no use."""


class FrameReader:
    """The receiving end of one connection."""

    __slots__ = (
        "_block",
        "_data_left",
        "_data_stream",
        "_handler",
        "_limits",
        "_needs_settings",
        "_preface",
        "_rest",
        "has_unread",
    )

    def __init__(self, handler: FrameHandler, limits: Limits, *, is_server: bool) -> None:
        self._handler = handler
        self._limits = limits
        self._preface = PREFACE if is_server else b""
        """What has not come yet of it."""
        self._needs_settings = True
        self._rest = b""
        """The beginning of a frame."""
        self._data_left = 0
        """Bytes to come of a DATA frame that is being passed on."""
        self._data_stream = (0, False)
        """The stream of the DATA frame that is being received, and whether the frame ends the stream."""
        self._block: _OpenBlock | None = None
        self.has_unread = False
        """Whether `feed` has stopped before the end of what had arrived."""

    @property
    def awaited_stream(self) -> int | None:
        """The stream on which the peer owes the rest of a header block; 0 for preface and SETTINGS, None for nothing.

        It must send all of these promptly.
        """
        if self._needs_settings:
            return 0
        if self._block is not None:
            return self._block.stream_id
        if self._rest[3:4] == _HEADERS_TYPE and len(self._rest) >= HEADER_BYTES:
            return int.from_bytes(self._rest[5:HEADER_BYTES], "big") & wire.STREAM_ID_MAX
        return None

    def feed(self, data: bytes, frames_max: int) -> None:
        """Read what has arrived, at most `frames_max` frames or what is as much work. Raises Http2Error."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, end = 0, len(data)
        if self._preface:
            position = self._read_preface(data)
        elif self._data_left and data:
            position = self._read_on(data)
        handler = self._handler
        self.has_unread = False
        while end - position >= HEADER_BYTES:
            frames_max -= 1
            if frames_max < 0:
                self.has_unread = True
                break
            high, low, kind, flags, stream_id = FRAME_HEADER.unpack_from(data, position)
            length = high << 8 | low
            stream_id &= 0x7FFF_FFFF
            start = position + HEADER_BYTES
            stop = start + length
            if length > _ANY_KIND_MAX or self._block is not None or self._needs_settings:
                self._check(length, kind, flags, stream_id)
            if not kind and stream_id and not flags & wire.PADDED:
                if stop <= end:
                    handler.on_data(stream_id, length, data, start, stop, ended=bool(flags & wire.END_STREAM))
                elif end > start:
                    self._data_left = stop - end
                    self._data_stream = stream_id, bool(flags & wire.END_STREAM)
                    handler.on_data(stream_id, length, data, start, end, ended=False)
                    return
                else:
                    break
            elif stop > end:
                break
            else:
                # A large block of headers is as much work as many small frames.
                frames_max -= length // _WORK_OF_A_FRAME_BYTES
                self._read_frame(kind, flags, stream_id, data[start:stop])
            position = stop
        if position < end:
            self._rest = data[position:]

    def _read_preface(self, data: bytes) -> int:
        wanted = self._preface
        if not data.startswith(wanted[: len(data)]):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2; no connection preface came")
        self._preface = wanted[len(data) :]
        return min(len(wanted), len(data))

    def _read_on(self, data: bytes) -> int:
        """The next piece of a DATA frame."""
        stop = min(self._data_left, len(data))
        self._data_left -= stop
        stream_id, ends_stream = self._data_stream
        self._handler.on_data(stream_id, 0, data, 0, stop, ended=ends_stream and not self._data_left)
        return stop

    def _check(self, length: int, kind: int, flags: int, stream_id: int) -> None:
        if length > self._limits.frame_max_bytes:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if length > self._limits.header_block_max_bytes and (kind != wire.DATA or flags & wire.PADDED):
            # It would be kept until it is complete.
            is_block = kind in (wire.HEADERS, wire.CONTINUATION)
            text = "header block too long" if is_block else f"a frame of type {kind} with {length} bytes"
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, text)
        if self._needs_settings and (kind != wire.SETTINGS or flags & wire.ACK):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._block is not None and (kind != wire.CONTINUATION or stream_id != self._block.stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "another frame inside a header block")

    def _read_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == wire.HEADERS:
            self._read_headers(flags, stream_id, payload)
            return
        if kind > wire.CONTINUATION:
            self._handler.on_unknown()
            return
        length = len(payload)
        if bool(stream_id) != _ON_STREAM[kind] and kind != wire.WINDOW_UPDATE:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream_id}")
        if not _fits(kind, length):
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} with {length} bytes")
        handler = self._handler
        match kind:
            case wire.DATA:
                stripped = _unpad(payload)
                ended = bool(flags & wire.END_STREAM)
                handler.on_data(stream_id, length, stripped, 0, len(stripped), ended=ended)
                handler.on_padding(stream_id, length - len(stripped))
            case wire.WINDOW_UPDATE:
                handler.on_window_update(stream_id, int.from_bytes(payload, "big") & wire.WINDOW_MAX)
            case wire.RST_STREAM:
                handler.on_rst_stream(stream_id, int.from_bytes(payload, "big"))
            case wire.PING:
                handler.on_ping(payload, is_ack=bool(flags & wire.ACK))
            case wire.SETTINGS:
                self._read_settings(flags, payload)
            case wire.CONTINUATION:
                self._read_continuation(flags, payload)
            case wire.GOAWAY:
                handler.on_goaway(*wire.read_goaway(payload))
            case wire.PRIORITY:
                handler.on_priority(stream_id, _dependency(payload))
            case wire.PUSH_PROMISE:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which was not allowed")

    def _read_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & wire.PADDED:
            payload = _unpad(payload)
        if flags & wire.WITH_PRIORITY:
            if len(payload) < 5:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for a priority")
            if _dependency(payload) == stream_id:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
            payload = payload[5:]
        if len(payload) > self._limits.header_block_max_bytes:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "header block too long")
        ended = bool(flags & wire.END_STREAM)
        if flags & wire.END_HEADERS:
            self._handler.on_block(stream_id, payload, ended=ended)
        else:
            self._block = _OpenBlock(stream_id, payload, ended=ended)

    def _read_continuation(self, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        block.pieces.append(payload)
        block.length += len(payload)
        limits = self._limits
        if len(block.pieces) > limits.continuations_max + 1 or block.length > limits.header_block_max_bytes:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "header block too long")
        if flags & wire.END_HEADERS:
            self._block = None
            self._handler.on_block(block.stream_id, b"".join(block.pieces), ended=block.ended)

    def _read_settings(self, flags: int, payload: bytes) -> None:
        self._needs_settings = False
        if not flags & wire.ACK:
            self._handler.on_settings(wire.read_settings(payload))
        elif payload:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS acknowledgement with a payload")
        else:
            self._handler.on_settings_ack()


class _OpenBlock:
    """A header block whose end has not come."""

    __slots__ = ("ended", "length", "pieces", "stream_id")

    def __init__(self, stream_id: int, first: bytes, *, ended: bool) -> None:
        self.stream_id = stream_id
        self.pieces = [first]
        self.length = len(first)
        self.ended = ended


_ANY_KIND_MAX = wire.FRAME_BYTES_MIN
"""Longer frames are looked at more closely."""
_WORK_OF_A_FRAME_BYTES = 128
_HEADERS_TYPE = bytes((wire.HEADERS,))
_ON_STREAM = (True, True, True, True, False, True, False, False, True, True)
"""By type of frame: whether it belongs to a stream, or to the connection. WINDOW_UPDATE may do either."""


def _fits(kind: int, length: int) -> bool:
    """Whether frames of this type may have this length."""
    match kind:
        case wire.PRIORITY:
            return length == 5
        case wire.RST_STREAM | wire.WINDOW_UPDATE:
            return length == 4
        case wire.PING:
            return length == 8
        case wire.SETTINGS:
            return not length % 6
        case wire.GOAWAY:
            return length >= 8
    return True


def _unpad(payload: bytes) -> bytes:
    if not payload:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a length of its padding")
    padding = payload[0]
    if padding >= len(payload):
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - padding]


def _dependency(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big") & wire.STREAM_ID_MAX
