"""`Stream`: one exchange on a connection; `Receiver`: who gets its events; and what is left of some that have ended."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Protocol

from mesh.http2.frame_format import ErrorCode, Http2Error

_RESETS_REMEMBERED = 1_024
_LINGERING_MAX = 100
_LINGERING_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of the rest of one request that are read and dropped."""
_LINGERING_UPDATE_BYTES = 64 * 1024


logger = logging.getLogger("mesh.http2")


class Receiver(Protocol):
    """What happens on a stream. Called while bytes are being received; must not block or raise.

    Each stream gets one `on_end` or one `on_reset`, and nothing behind `on_reset`. A receiver may send, reset, give
    room or open streams inside all of them; once it has reset its stream itself, it gets no further event.
    """

    def on_headers(self, stream: Stream, head: Any, *, ended: bool) -> None:
        """A response's headers, or trailers of either side (then `ended`); `head` is what the interpreter made of them,
        None for a list that was too long. `on_end` follows where `ended`."""

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        """`data[start:stop]` has arrived. Give room for more with `connection.give_room`."""

    def on_end(self, stream: Stream) -> None:
        """The peer sends nothing more on this stream."""

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        """The stream has ended early: the peer reset it, broke a rule, or the connection is gone."""

    def on_writable(self, stream: Stream) -> None:
        """All that was queued has left, after `is_blocked` was true."""


class Unsent:
    """What a stream could not send yet."""

    __slots__ = ("end", "is_parked", "pieces")

    def __init__(self, *, is_parked: bool) -> None:
        self.pieces: deque[memoryview] = deque()
        self.end: bytes | None = None
        """What ends the stream behind the pieces: the block of trailers, or empty for END_STREAM alone."""
        self.is_parked = is_parked
        """It waits for the window of its own stream."""


class Stream:
    """The state of one stream; `Connection` makes and changes it, and sets what stands below without a value."""

    __slots__ = (
        "connection",
        "content_left",
        "counted_bytes",
        "has_ended",
        "has_received_headers",
        "has_sent_headers",
        "id",
        "is_local_done",
        "is_remote_done",
        "may_linger",
        "opened_at_s",
        "pause_bytes",
        "pending",
        "receive_window",
        "received_bytes",
        "receiver",
        "send_window",
        "taken",
    )

    opened_at_s: float
    """On a server: when the bytes that opened the stream had come."""
    received_bytes: int
    """Bytes of DATA, without padding."""
    pause_bytes: int
    """The last place in them where the peer may pause as long as it likes; -1: there was none."""
    counted_bytes: int
    """Memory that it takes by itself, as counted in what the connection buffers."""
    may_linger: bool
    """Set on a server: no reset is to follow at once if the response ends before the request.

    gRPC wants the reset (its clients expect it); other clients may drop the response because of it.
    """
    has_received_headers: bool
    """On a client: some of the response have come, perhaps interim ones."""

    def __init__(self, connection: Any, stream_id: int, send_window: int, receive_window: int) -> None:
        self.connection = connection
        """The `Connection`, whose module imports this one."""
        self.id = stream_id
        self.receiver: Receiver = UNHEARD
        self.send_window = send_window
        """Bytes that may be sent; below zero after the peer has reduced its initial window."""
        self.receive_window = receive_window
        """Bytes that the peer may send."""
        self.taken = 0
        """Bytes that were taken but not given back to the peer's window yet."""
        self.content_left: int | None = None
        """Bytes that a content-length has announced and that have not come."""
        self.pending: Unsent | None = None
        self.has_sent_headers = False
        self.is_local_done = False
        self.is_remote_done = False
        self.has_ended = False

    def __repr__(self) -> str:
        state = "ended" if self.has_ended else "half-closed by the peer" if self.is_remote_done else "open"
        return f"<Stream {self.id} {state}>"

    @property
    def is_blocked(self) -> bool:
        """Whether something waits to be sent; `on_writable` follows."""
        return self.pending is not None


def report_reset(stream: Stream, code: ErrorCode | int) -> None:
    """Let the receiver know that its stream has ended early."""
    try:
        stream.receiver.on_reset(stream, code)
    except Exception:
        logger.exception("the receiver of %r failed at its end", stream)


def end_failed(stream: Stream | None, error: Exception) -> None:
    """Something raised in an event of this stream: end it, and no other. Raises a Http2Error again."""
    if isinstance(error, Http2Error):
        raise error
    logger.error("the receiver of %r failed", stream, exc_info=error)
    if stream is not None and not stream.has_ended:
        stream.connection.reset(stream, ErrorCode.INTERNAL_ERROR)
        report_reset(stream, ErrorCode.INTERNAL_ERROR)


class RecentResets:
    """Streams that we have reset lately, and how much the peer may still send before it reads the resets."""

    __slots__ = ("_window_bytes", "_windows")

    def __init__(self, window_bytes: int) -> None:
        self._window_bytes = window_bytes
        self._windows: dict[int, int] = {}

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._windows

    def add(self, stream_id: int, window_bytes: int = 0) -> None:
        """`window_bytes`: the window that the stream had, if it was larger than usual."""
        if len(self._windows) >= _RESETS_REMEMBERED:
            del self._windows[next(iter(self._windows))]
        self._windows[stream_id] = max(window_bytes, self._window_bytes)

    def take(self, stream_id: int, size: int) -> None:
        """Count DATA of such a stream. Raises Http2Error for more than its window."""
        self._windows[stream_id] -= size
        if self._windows[stream_id] < 0:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, f"more than the window of stream {stream_id}")


class LingeringStreams:
    """Streams that a server has answered while their clients still send.

    A client that gets a reset right after the answer may drop the answer too, so it may go on sending, up to a limit.
    """

    __slots__ = ("_streams",)

    def __init__(self) -> None:
        self._streams: dict[int, _Lingering] = {}

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._streams

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream_id: int, now_s: float) -> int | None:
        """Returns the stream that is to be reset for it, if there are too many."""
        self._streams[stream_id] = _Lingering(now_s)
        oldest = next(iter(self._streams)) if len(self._streams) > _LINGERING_MAX else None
        if oldest is not None:
            del self._streams[oldest]
        return oldest

    def discard(self, stream_id: int) -> bool:
        """The client sends nothing more. Whether the stream was one of them."""
        return self._streams.pop(stream_id, None) is not None

    def take(self, stream_id: int, size: int) -> int | None:
        """Count DATA of such a stream. Returns by how much its window is to grow; None if it has to be reset."""
        lingering = self._streams[stream_id]
        lingering.left_bytes -= size
        lingering.owed_bytes += size
        if lingering.left_bytes < 0:
            del self._streams[stream_id]
            return None
        if lingering.owed_bytes < _LINGERING_UPDATE_BYTES:
            return 0
        owed_bytes, lingering.owed_bytes = lingering.owed_bytes, 0
        return owed_bytes

    def take_overdue(self, before_at_s: float) -> list[int]:
        """Forget the streams that were answered before this instant. Returns their ids: the caller resets them."""
        due = [stream_id for stream_id, each in self._streams.items() if each.since_at_s < before_at_s]
        for stream_id in due:
            del self._streams[stream_id]
        return due


class _Lingering:
    __slots__ = ("left_bytes", "owed_bytes", "since_at_s")

    def __init__(self, since_at_s: float) -> None:
        self.since_at_s = since_at_s
        self.left_bytes = _LINGERING_BYTES_MAX
        self.owed_bytes = 0


class _Unheard:
    """The receiver of a stream before it gets its own, or when its own wants no more."""

    def on_headers(self, stream: Stream, head: Any, *, ended: bool) -> None: ...
    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None: ...
    def on_end(self, stream: Stream) -> None: ...
    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None: ...
    def on_writable(self, stream: Stream) -> None: ...


UNHEARD = _Unheard()
