"""`ClientConnection`: the client's end. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mesh.http2.connection import Connection
from mesh.http2.frame_format import STREAM_ID_MAX, ErrorCode, Setting
from mesh.http2.hpack_decoder import Field
from mesh.http2.limits import Limits, opening_frames
from mesh.http2.stream import Receiver, Stream

H = TypeVar("H")


class ClientConnection(Connection[H]):
    """Opens streams, as many at once as the server allows."""

    is_server = False

    def __init__(
        self,
        interpret: Callable[[list[Field]], H],
        limits: Limits,
        clock: Callable[[], float],
        on_output: Callable[[], None],
    ) -> None:
        super().__init__(interpret, limits, clock, on_output)
        self._next_id = 1
        self._streams_max = limits.streams_max
        self.on_settings_changed: Callable[[], None] = _ignore
        """Called when the server's SETTINGS have come: `has_room` may have changed."""
        self.outbox.send(opening_frames(limits, is_server=False))

    @property
    def has_room(self) -> bool:
        """Whether `open` may be called now. It becomes false for good when the server says GOAWAY."""
        return not self.is_closing and len(self.streams) < self._streams_max and self._next_id <= STREAM_ID_MAX

    def open(self, request: bytes, receiver: Receiver) -> Stream:
        """A new stream, with the block of its headers. Only while `has_room`."""
        stream = self._open(self._next_id)
        self._next_id += 2
        stream.receiver = receiver
        stream.has_received_headers = False
        self.outbox.send_headers(stream, request)
        return stream

    def on_settings(self, values: list[tuple[int, int]]) -> None:
        super().on_settings(values)
        for key, value in values:
            if key == Setting.MAX_CONCURRENT_STREAMS:
                self._streams_max = min(value, self.limits.streams_max)
        self.on_settings_changed()

    def on_goaway(self, last_stream_id: int, code: int, text: str) -> None:
        super().on_goaway(last_stream_id, code, text)
        for stream in [each for each in self.streams.values() if each.id > last_stream_id]:
            self._forget(stream, ErrorCode.REFUSED_STREAM)

    def on_sent_end(self, stream: Stream) -> None:
        stream.is_local_done = True

    def _on_new_stream(self, stream_id: int, head: H | None, *, ended: bool) -> None:
        self._check_not_idle(stream_id, "HEADERS")
        self.guard.charge("HEADERS of a stream that has ended")

    def _on_more_headers(self, stream: Stream, head: H | None, *, ended: bool) -> None:
        if ended and not self._ends_well(stream):
            return
        if stream.has_received_headers and not ended:
            self.guard.charge("interim HEADERS")
        stream.has_received_headers = True
        stream.receiver.on_headers(stream, head, ended=ended)
        if ended:
            stream.receiver.on_end(stream)

    def _on_remote_end(self, stream: Stream) -> None:
        if self._ends_well(stream):
            stream.receiver.on_end(stream)

    def _ends_well(self, stream: Stream) -> bool:
        """End a stream whose response is complete; before its receiver learns it, which may want to open the next."""
        stream.is_remote_done = True
        if stream.content_left:
            self.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
            return False
        self.guard.useful += 1
        self._end_stream(stream)
        if not stream.is_local_done:
            self._send_reset(stream.id, ErrorCode.NO_ERROR)
        return True

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id >= self._next_id or not stream_id & 1


def _ignore() -> None:
    """The default of `on_settings_changed`."""
