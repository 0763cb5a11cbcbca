"""`LinkStream`: what both ends of a link do with their HTTP/2 stream, and how links use HTTP/2."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from mesh.http2.frame_format import ErrorCode
from mesh.http2.limits import Limits
from mesh.http2.stream import UNHEARD, Stream
from mesh.http2.transport import Http2Transport, TransportSet
from mesh.http2.upkeep import UpkeepPolicy
from mesh.http2.write_turn import write_turn
from mesh.link.parts import MalformedFrameError, PartView, begun_part
from mesh.link.writer import LinkWriter
from mesh.rpc.message_reader import MessageError, MessageReader, whole_message
from mesh.rpc.status_codes import UNKNOWN, status_code

logger = logging.getLogger("mesh")

LINK_METHOD = "/mesh.v1.Replica/Link"

MESSAGE_MAX_BYTES = 64 * 1024 * 1024
"""Messages of links are batches and parts of bounded size."""

HELLO_MAX_BYTES = 16 * 1024
"""What a stranger may send of a Hello before it is refused."""


LINK_LIMITS = Limits(
    streams_max=16,
    stream_window_bytes=8 * 1024 * 1024,
    connection_window_bytes=16 * 1024 * 1024,
    frame_max_bytes=1024 * 1024,
    control_burst=100_000,
)
"""Frames as large as a part: it crosses the link without being cut again."""

LINK_UPKEEP = UpkeepPolicy(keepalive_after_s=3.0, keepalive_timeout_s=3.0)
"""A host that vanishes is noticed within 8 s; a process that dies breaks its connection immediately."""


class LinkStream:
    """Receives the messages of a link, as the receiver of its stream."""

    def __init__(
        self,
        on_message: Callable[[bytes], None],
        on_end: Callable[[str, ErrorCode | int], None],
        first_max_bytes: int = MESSAGE_MAX_BYTES,
    ) -> None:
        """`on_message` may raise MalformedFrameError or DecodeError, for which the peer is at fault.

        `on_end(reason, code)` is called once, when nothing more comes. The stream may have ended or not.
        `first_max_bytes`: how much is kept of a message that comes in pieces before the link has been accepted.
        """
        self.on_message = on_message
        self._first_max_bytes = first_max_bytes
        self._on_part: Callable[[PartView], None] | None = None
        """Gets large parts piece by piece as they come, each piece as a part of its own."""
        self._part_call_id = 0
        self._part_left = 0
        """Bytes that are to come of a part."""
        self.writer: LinkWriter | None = None
        """Writes on when the peer's window has opened."""
        self._on_end = on_end
        self._turn = write_turn()
        self._reader: MessageReader | None = None

    def become(
        self,
        on_message: Callable[[bytes], None],
        on_part: Callable[[PartView], None],
        on_end: Callable[[str, ErrorCode | int], None],
    ) -> None:
        """Pass what follows to others: the link has been accepted.

        `on_part` gets large parts as they come, each piece as a part of its own, and may raise like `on_message`.
        """
        self.on_message = on_message
        self._on_part = on_part
        self._on_end = on_end

    # ---- Receiver ----------------------------------------------------------------------------------------------------

    def on_headers(self, stream: Stream, head: Any, *, ended: bool) -> None:
        """Headers that open the response say nothing; those that end it say why."""
        if ended:
            code = head.code if head is not None and head.code is not None else UNKNOWN
            reason = f"{status_code(code).name}: {head.message}" if code else "it has ended"
            self._end(stream, reason, ErrorCode.NO_ERROR)

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        try:
            if self._part_left:
                start = self._go_on_with_part(stream, data, start, stop)
                if start == stop:
                    return
            if self._reader is None or self._reader.is_between:
                message = whole_message(data, start, stop, MESSAGE_MAX_BYTES)
                if message is not None:
                    self.on_message(message)
                    self._give_room(stream, stop - start)
                    self._turn.write_early()
                    return
                if self._begin_part(stream, data, start, stop):
                    return
                self._reader = self._reader or MessageReader(MESSAGE_MAX_BYTES)
            for each in self._reader.feed(memoryview(data)[start:stop]):
                self.on_message(each)
            if self._on_part is None and self._reader.begun_bytes > self._first_max_bytes:
                raise MalformedFrameError("the first message is too long")
            self._give_room(stream, stop - start)
        except (DecodeError, MalformedFrameError, MessageError) as error:
            self._end(stream, f"malformed frames: {error}", ErrorCode.PROTOCOL_ERROR)
        except Exception as error:
            logger.exception("a link ends: its process failed to read a frame")
            self._end(stream, f"{type(error).__name__}: {error}", ErrorCode.INTERNAL_ERROR)

    def on_end(self, stream: Stream) -> None:
        self._end(stream, "it has ended", ErrorCode.NO_ERROR)

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        self._end(stream, f"the stream was reset with error code {code}", code)

    def on_writable(self, stream: Stream) -> None:
        if self.writer is not None:
            self.writer.write()

    # ---- Inside ------------------------------------------------------------------------------------------------------

    def _begin_part(self, stream: Stream, data: bytes, start: int, stop: int) -> bool:
        """Pass on the beginning of a large part, if that is what has come."""
        begun = begun_part(data, start, stop) if self._on_part is not None else None
        if begun is None or begun[1] > MESSAGE_MAX_BYTES:
            return False
        self._take_part(stream, begun[0], stop - start)
        self._part_call_id, self._part_left = begun[0].call_id, begun[1]
        return True

    def _go_on_with_part(self, stream: Stream, data: bytes, start: int, stop: int) -> int:
        """Pass on the next piece of a large part; returns where it ends."""
        stop = min(stop, start + self._part_left)
        self._part_left -= stop - start
        self._take_part(stream, PartView(self._part_call_id, 0, 0, memoryview(data)[start:stop]), stop - start)
        return stop

    def _take_part(self, stream: Stream, part: PartView, size: int) -> None:
        assert self._on_part is not None
        self._on_part(part)
        self._give_room(stream, size)

    def _give_room(self, stream: Stream, size: int) -> None:
        if not stream.has_ended:
            stream.connection.give_room(stream, size)

    def _end(self, stream: Stream, reason: str, code: ErrorCode | int) -> None:
        # The stream lasts until the socket takes our answer, but what else comes on it counts no longer.
        stream.receiver = UNHEARD
        self._reader = None
        self._on_end(reason, code)


_local = threading.local()


def caller_transports() -> TransportSet[Http2Transport]:
    """The connections of this process to replicas, which are looked after together. Of the loop that runs here."""
    loop = asyncio.get_running_loop()
    if getattr(_local, "loop", None) is not loop:
        _local.loop, _local.transports = loop, TransportSet(LINK_UPKEEP)
    transports: TransportSet[Http2Transport] = _local.transports
    return transports
