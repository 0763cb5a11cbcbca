"""`Stream`: one exchange on a connection; `Receiver`: who gets its events; `RecentResets`: what is left of some."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Protocol

from mesh.http2.frame_format import ConnectionFault, ErrorCode

_RESETS_REMEMBERED = 1_024


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
    """The state of one stream; `Connection` changes it."""

    __slots__ = (
        "connection",
        "content_left",
        "has_ended",
        "has_sent_headers",
        "id",
        "is_local_done",
        "is_remote_done",
        "opened_at_s",
        "pending",
        "receive_window",
        "receiver",
        "send_window",
        "taken",
    )

    opened_at_s: float
    """On a server: when the bytes that opened the stream had come."""

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
    """Something raised in an event of this stream: end it, and no other. Raises a ConnectionFault again."""
    if isinstance(error, ConnectionFault):
        raise error
    logger.error("the receiver of %r failed", stream, exc_info=error)
    if stream is not None and not stream.has_ended:
        stream.connection.reset(stream, ErrorCode.INTERNAL_ERROR)
        report_reset(stream, ErrorCode.INTERNAL_ERROR)


class RecentResets:
    """Streams that we have reset lately, and the bytes that the peer may have sent before it has read that."""

    __slots__ = ("_window_bytes", "_windows")

    def __init__(self, window_bytes: int) -> None:
        self._window_bytes = window_bytes
        self._windows: dict[int, int] = {}

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._windows

    def add(self, stream_id: int) -> None:
        if len(self._windows) >= _RESETS_REMEMBERED:
            del self._windows[next(iter(self._windows))]
        self._windows[stream_id] = self._window_bytes

    def take(self, stream_id: int, size: int) -> None:
        """Count DATA of such a stream. Raises ConnectionFault for more than its window."""
        self._windows[stream_id] -= size
        if self._windows[stream_id] < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"more than the window of stream {stream_id}")


class _Unheard:
    """The receiver of a stream before it gets its own, or when its own wants no more."""

    def on_headers(self, stream: Stream, head: Any, *, ended: bool) -> None: ...
    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None: ...
    def on_end(self, stream: Stream) -> None: ...
    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None: ...
    def on_writable(self, stream: Stream) -> None: ...


UNHEARD = _Unheard()
