"""Floods of frames, and the work that they cost: calls of the connection per frame."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from mesh.http2 import frame_format as wire
from mesh.http2.connection import STREAMS_ENDED
from mesh.http2.frame_format import ErrorCode
from mesh.http2.limits import Limits
from tests.unit.fakes.http2_ends import End, data, headers

CALM = ErrorCode.ENHANCE_YOUR_CALM
BURST = Limits().control_burst
CALLS_PER_FRAME_MAX = 50
"""Python and C functions that one frame may cause to be called."""
READ_BYTES = 64 * 1024


def work(action: Callable[[], object]) -> int:
    """How many functions, of Python or C, are called meanwhile."""
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def flood(end: End, frames: Iterable[bytes]) -> int:
    """Send frames until the connection has ended; returns how many it took. Checks the work they cause."""
    sent, count, answers = bytearray(), 0, 0
    for each in frames:
        sent += each
        count += 1
        if len(sent) >= READ_BYTES:
            part = bytes(sent)
            sent.clear()
            calls = work(lambda part=part: end.connection.receive(part))
            assert calls < CALLS_PER_FRAME_MAX * len(part) / wire.HEADER_BYTES
            answers += len(end.output())
            if end.connection.fault is not None:
                break
    if end.connection.fault is None:
        end.connection.receive(bytes(sent))
        answers += len(end.output())
    assert answers < 100 * BURST
    return count


def end_rest(end: End) -> None:
    """End the streams of a connection that has failed, as its shell does in the next turns."""
    for _ in range(len(end.connection.streams) // STREAMS_ENDED + 1):
        end.connection.close(CALM)


def streams(count: int) -> range:
    return range(1, 2 * count, 2)


def each_stream(*parts: Callable[[int], bytes]) -> Iterable[bytes]:
    return (b"".join(part(stream_id) for part in parts) for stream_id in streams(10_000))


def whole_request(stream_id: int) -> bytes:
    return headers(stream_id) + data(stream_id, b"request", ends=True)
