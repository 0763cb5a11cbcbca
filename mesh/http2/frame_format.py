"""HTTP/2 frames as bytes: types, flags, error codes, and one function for each frame that we send (RFC 9113 §4, §6)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
FRAME_BYTES_MIN = 16_384
"""Largest frame that every peer accepts, and the smallest limit that a peer may set."""
FRAME_BYTES_LIMIT = 2**24 - 1
WINDOW_DEFAULT = 65_535
WINDOW_MAX = 2**31 - 1
STREAM_ID_MAX = 2**31 - 1
MESSAGE_PREFIX_BYTES = 5
"""Before each message of gRPC: one byte says whether it is compressed, four say its length."""

# Types and flags are plain integers: they are compared for every frame.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """Parameters of SETTINGS (RFC 9113 §6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8
    """RFC 8441."""


class Http2Error(Exception):
    """The peer broke the protocol: the connection has to end, with GOAWAY and this code."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


FRAME_HEADER = Struct(">HBBBL")
"""Length (16 high bits, 8 low bits), type, flags, stream id; the stream's highest bit is reserved."""
_SETTING = Struct(">HL")
_TWO_WORDS = Struct(">LL")


def frame_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """`length`: bytes of the payload."""
    return FRAME_HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def settings_frame(values: dict[Setting, int]) -> bytes:
    payload = b"".join(_SETTING.pack(key, value) for key, value in values.items())
    return frame_header(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK = frame_header(0, SETTINGS, ACK, 0)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """(parameter, value) in the order of the frame. The length must be a multiple of six."""
    return list(_SETTING.iter_unpack(payload))


def ping_frame(payload: bytes, flags: int = 0) -> bytes:
    """`payload`: eight bytes."""
    return frame_header(8, PING, flags, 0) + payload


def goaway_frame(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    """A GOAWAY frame with at most 200 bytes of the text."""
    payload = _TWO_WORDS.pack(last_stream_id, code) + text.encode()[:200]
    return frame_header(len(payload), GOAWAY, 0, 0) + payload


def read_goaway(payload: bytes) -> tuple[int, int, str]:
    """Last stream id, error code and the text of the peer."""
    last_stream_id, code = _TWO_WORDS.unpack_from(payload)
    return last_stream_id & STREAM_ID_MAX, code, payload[8:].decode(errors="replace")


def rst_stream_frame(stream_id: int, code: int) -> bytes:
    return frame_header(4, RST_STREAM, 0, stream_id) + code.to_bytes(4, "big")


def window_update_frame(stream_id: int, increment: int) -> bytes:
    return frame_header(4, WINDOW_UPDATE, 0, stream_id) + increment.to_bytes(4, "big")
