"""What SETTINGS of the peer change at our sending end (RFC 9113 §6.5.2)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode, Http2Error, Setting
from mesh.http2.hpack_decoder import TABLE_MAX_BYTES
from mesh.http2.outbox import Outbox
from mesh.http2.stream import Stream


def apply_settings(
    values: Iterable[tuple[int, int]], outbox: Outbox, streams: Collection[Stream], *, may_push: bool
) -> int:
    """Apply (parameter, value) in order; returns how many streams that has touched.

    What we do not know is ignored. Raises Http2Error for a wrong value.
    `may_push`: whether the peer may offer to take pushed streams, which only a client does.
    """
    window = outbox.stream_window_bytes
    for key, value in values:
        match key:
            case Setting.HEADER_TABLE_SIZE:
                if value < TABLE_MAX_BYTES:
                    outbox.shrink_table()
            case Setting.ENABLE_PUSH:
                if value > may_push:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
            case Setting.INITIAL_WINDOW_SIZE:
                if value > wire.WINDOW_MAX:
                    raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
                window = value
            case Setting.MAX_FRAME_SIZE:
                if not wire.FRAME_BYTES_MIN <= value <= wire.FRAME_BYTES_LIMIT:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
                outbox.frame_max_bytes = value
    # Once per frame, however often it names the parameter: it touches every stream.
    return 0 if window == outbox.stream_window_bytes else _set_initial_window(window, outbox, streams)


def _set_initial_window(value: int, outbox: Outbox, streams: Collection[Stream]) -> int:
    change = value - outbox.stream_window_bytes
    outbox.stream_window_bytes = value
    for stream in streams:
        stream.send_window += change
        if stream.send_window > wire.WINDOW_MAX:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "a window above 2^31-1")
        outbox.unpark(stream)
    return len(streams)
