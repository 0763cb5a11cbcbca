"""`Outbox`: frames on their way to the peer, within its windows and no faster than the socket takes them. Sans-I/O.

What fits into both windows goes into the output at once. What does not waits on its stream. Streams that wait for the
connection's window or the socket take turns, one frame each, so a large message delays the others by one frame's time;
those that wait for a window of their own are parked, so that a peer with many of them costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from struct import Struct

from mesh.http2 import frame_format as wire
from mesh.http2.flood_guard import FloodGuard
from mesh.http2.frame_format import FRAME_HEADER, MESSAGE_PREFIX_BYTES, frame_header
from mesh.http2.hpack_encoder import TABLE_SIZE_ZERO
from mesh.http2.limits import BufferShare
from mesh.http2.stream import Stream, Unsent, end_failed

OUTPUT_BYTES = 256 * 1024
"""About what `pump` puts into the output at a time; the socket's buffer decides on more."""
_PIECE_USEFUL_MIN = 1_024
"""A smaller frame of a longer message shows that the peer makes us work with tiny windows."""

_MESSAGE_HEADER = Struct(">HBBBLBL")
"""A frame's header and gRPC's prefix of a message: both are packed in one go."""


class Outbox:
    """The sending end of one connection."""

    __slots__ = (
        "_guard",
        "_next_block_prefix",
        "_on_output",
        "_ready",
        "frame_max_bytes",
        "is_paused",
        "output",
        "pending_bytes",
        "sent_bytes",
        "share",
        "stream_window_bytes",
        "window",
    )

    def __init__(self, guard: FloodGuard, on_output: Callable[[], None], share: BufferShare) -> None:
        """`on_output` is called whenever something was added to the output."""
        self._guard = guard
        self.share = share
        """This connection's share of the server's buffer; bytes that wait here count."""
        self._on_output = on_output
        self._ready: OrderedDict[Stream, Unsent] = OrderedDict()
        """Streams with data to send whose own flow-control window is open."""
        self._next_block_prefix = b""
        self.output: list[bytes | memoryview] = []
        self.is_paused = False
        """Set by the shell while the socket's buffer is full."""
        self.pending_bytes = 0
        """Bytes of messages that wait for a window or for the socket."""
        self.sent_bytes = 0
        """Bytes of messages that had to wait and have left."""
        # The peer's limits.
        self.window = wire.WINDOW_DEFAULT
        self.stream_window_bytes = wire.WINDOW_DEFAULT
        self.frame_max_bytes = wire.FRAME_BYTES_MIN

    # ---- Frames about the connection ---------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """A frame that neither waits nor is limited by windows."""
        self.output.append(frame)
        self._on_output()

    def acknowledge(self, frame: bytes) -> None:
        """An answer that the peer can make us owe. Raises Http2Error for a peer that does not read them."""
        if self.is_paused:
            self._guard.owe_ack()
        self.send(frame)

    def shrink_table(self) -> None:
        """The peer keeps a smaller table: the next header block has to say that we use none."""
        self._next_block_prefix = TABLE_SIZE_ZERO

    # ---- Frames of a stream: without effect on one that has ended ----------------------------------------------------

    def send_headers(self, stream: Stream, block: bytes, *, ends: bool = False) -> None:
        """Headers that open a stream or its response. Trailers are `end`'s."""
        stream.has_sent_headers = True
        if ends:
            self.end(stream, block)
        elif not stream.has_ended:
            self._put_block(stream.id, block, 0)
            self._on_output()

    def send_interim(self, stream: Stream, block: bytes) -> None:
        """Headers with a status below 200, ahead of those that open the response."""
        if not stream.has_ended:
            self._put_block(stream.id, block, 0)
            self._on_output()

    def send_message(self, stream: Stream, message: bytes | memoryview) -> bool:
        """One message with the prefix of gRPC. False, and not sent, if it has to wait and there is no room for it."""
        size = len(message) + MESSAGE_PREFIX_BYTES
        if (
            size <= stream.send_window
            and size <= self.window
            and size <= self.frame_max_bytes
            and stream.pending is None
            and not self.is_paused
        ):
            self.window -= size
            stream.send_window -= size
            self._guard.useful += 1
            self.output += (
                _MESSAGE_HEADER.pack(size >> 8, size & 0xFF, wire.DATA, 0, stream.id, 0, size - MESSAGE_PREFIX_BYTES),
                message,
            )
        elif not self.share.has_room(size):
            return False
        else:
            prefix = b"\0" + (size - MESSAGE_PREFIX_BYTES).to_bytes(4, "big")
            self._wait(stream, memoryview(prefix), memoryview(message))
        self._on_output()
        return True

    def send_pieces(self, stream: Stream, pieces: Sequence[bytes | memoryview]) -> bool:
        """One message that is in pieces, which are not joined. Else like `send_message`."""
        return self.offer_data(stream, b"\0" + sum(map(len, pieces)).to_bytes(4, "big"), *pieces)

    def offer_data(self, stream: Stream, *pieces: bytes | memoryview) -> bool:
        """Bytes as they are, at least one. False, and not sent, if they have to wait and there is no room for them."""
        size = sum(map(len, pieces))
        if self.fits(stream, size):
            self.window -= size
            stream.send_window -= size
            self._guard.useful += 1
            self.output += (frame_header(size, wire.DATA, 0, stream.id), *pieces)
        elif not self.share.has_room(size):
            return False
        else:
            self._wait(stream, *(memoryview(piece) for piece in pieces))
        self._on_output()
        return True

    def send_data(self, stream: Stream, data: bytes | memoryview) -> None:
        """Bytes as they are, also without room for them."""
        if data:
            self._wait(stream, memoryview(data))
            self._on_output()

    def end(self, stream: Stream, trailers: bytes = b"") -> None:
        """End our side of the stream behind all that was sent, with a block of trailers if there is one."""
        if stream.has_ended:
            return
        if stream.pending is None and self.is_paused:
            # The stream lasts until the socket takes its end, so a peer that does not read cannot have ever more
            # answers put aside for it: it runs out of streams.
            stream.pending = self._ready[stream] = Unsent(is_parked=False)
        if stream.pending is not None:
            stream.pending.end = trailers
        else:
            self._put_end(stream, trailers)
        self._on_output()

    def fits(self, stream: Stream, size: int) -> bool:
        """Whether data and header blocks, together of this size, could leave now, a frame each."""
        is_within = size <= stream.send_window and size <= self.window and size <= self.frame_max_bytes
        return is_within and stream.pending is None and not self.is_paused and not self._next_block_prefix

    def put_whole(self, stream: Stream, response: bytes, message: bytes | memoryview, trailers: bytes) -> None:
        """A whole unary response: its header block, the message, and the block of trailers. See `fits`."""
        size = len(message) + MESSAGE_PREFIX_BYTES
        self.window -= size
        self.output += (
            FRAME_HEADER.pack(len(response) >> 8, len(response) & 0xFF, wire.HEADERS, wire.END_HEADERS, stream.id),
            response,
            _MESSAGE_HEADER.pack(size >> 8, size & 0xFF, wire.DATA, 0, stream.id, 0, size - MESSAGE_PREFIX_BYTES),
            message,
            FRAME_HEADER.pack(len(trailers) >> 8, len(trailers) & 0xFF, wire.HEADERS, _ENDS_ALL, stream.id),
            trailers,
        )
        self._on_output()

    def put_response(self, stream: Stream, block: bytes, body: bytes | memoryview) -> None:
        """A whole response that is not gRPC: its header block and its body. See `fits`."""
        size = len(body)
        self.window -= size
        self.output += (
            FRAME_HEADER.pack(len(block) >> 8, len(block) & 0xFF, wire.HEADERS, wire.END_HEADERS, stream.id),
            block,
            FRAME_HEADER.pack(size >> 8, size & 0xFF, wire.DATA, wire.END_STREAM, stream.id),
            body,
        )
        self._on_output()

    def drop(self, stream: Stream) -> None:
        """The stream has ended: what it still has to send is not sent, and its memory counts no longer."""
        if stream.counted_bytes:
            self.share.add(-stream.counted_bytes)
        if stream.pending is not None:
            self._count_pending(-sum(map(len, stream.pending.pieces)))
            stream.pending = None
            self._ready.pop(stream, None)

    # ---- Room --------------------------------------------------------------------------------------------------------

    def widen(self, increment: int) -> bool:
        """The peer takes more of the connection. False if that is more than HTTP/2 can count."""
        self.window += increment
        return self.window <= wire.WINDOW_MAX

    def resume(self) -> None:
        """The socket takes more."""
        self.is_paused = False
        self._guard.acks_owed = 0
        # Ends need no window, so they leave now whatever the windows are.
        for stream, pending in [each for each in self._ready.items() if not each[1].pieces]:
            if stream.pending is pending:
                del self._ready[stream]
                self._finish(stream, pending)

    def unpark(self, stream: Stream) -> None:
        """The window of a stream has changed."""
        if stream.pending is not None and stream.pending.is_parked and stream.send_window > 0:
            stream.pending.is_parked = False
            self._ready[stream] = stream.pending

    @property
    def can_pump(self) -> bool:
        """Whether data waits that may be written now."""
        return bool(self._ready) and self.window > 0 and not self.is_paused

    def pump(self) -> None:
        """Put what waits into the output, as far as there is room."""
        room = OUTPUT_BYTES
        while room > 0 and self.can_pump:
            stream, pending = self._ready.popitem(last=False)
            if stream.send_window > 0:
                # While no other stream waits, there is no turn to give.
                most_bytes = self.frame_max_bytes if self._ready else max(room, self.frame_max_bytes)
                room -= self._put_frames(stream, pending.pieces, most_bytes)
            if not pending.pieces:
                self._finish(stream, pending)
            elif stream.send_window > 0:
                self._ready[stream] = pending
            else:
                pending.is_parked = True
        if self.output:
            self._on_output()

    # ---- Inside ------------------------------------------------------------------------------------------------------

    def _wait(self, stream: Stream, *pieces: memoryview) -> None:
        if stream.has_ended:
            return
        if stream.pending is None:
            stream.pending = Unsent(is_parked=stream.send_window <= 0)
            if not stream.pending.is_parked:
                self._ready[stream] = stream.pending
        stream.pending.pieces.extend(pieces)
        self._count_pending(sum(map(len, pieces)))

    def _count_pending(self, more_bytes: int) -> None:
        self.pending_bytes += more_bytes
        self.share.add(more_bytes)

    def _put_frames(self, stream: Stream, waiting: deque[memoryview], most_bytes: int) -> int:
        """Frames of what waits on a stream, at most `most_bytes`; returns how many bytes it were."""
        most_bytes = min(self.window, stream.send_window, most_bytes)
        frames, done_bytes, useful = _cut_frames(stream.id, waiting, self.frame_max_bytes, most_bytes)
        self.output += frames
        self._guard.useful += useful
        self.window -= done_bytes
        stream.send_window -= done_bytes
        self._count_pending(-done_bytes)
        self.sent_bytes += done_bytes
        return done_bytes

    def _finish(self, stream: Stream, pending: Unsent) -> None:
        """Nothing waits on the stream any more."""
        stream.pending = None
        if pending.end is not None:
            self._put_end(stream, pending.end)
        else:
            try:
                stream.receiver.on_writable(stream)
            except Exception as error:
                end_failed(stream, error)

    def _put_end(self, stream: Stream, trailers: bytes) -> None:
        if trailers:
            self._put_block(stream.id, trailers, wire.END_STREAM)
        else:
            self.output.append(frame_header(0, wire.DATA, wire.END_STREAM, stream.id))
        stream.connection.on_sent_end(stream)

    def _put_block(self, stream_id: int, block: bytes, flags: int) -> None:
        if self._next_block_prefix:
            block, self._next_block_prefix = self._next_block_prefix + block, b""
        limit = self.frame_max_bytes
        kind = wire.HEADERS
        while len(block) > limit:
            self.output += (frame_header(limit, kind, flags, stream_id), block[:limit])
            block, kind, flags = block[limit:], wire.CONTINUATION, 0
        self.output += (frame_header(len(block), kind, flags | wire.END_HEADERS, stream_id), block)


_ENDS_ALL = wire.END_STREAM | wire.END_HEADERS


def _cut_frames(
    stream_id: int, waiting: deque[memoryview], frame_bytes: int, most_bytes: int
) -> tuple[list[bytes | memoryview], int, int]:
    """Take at most `most_bytes` of what waits, in DATA frames. Also how many bytes, and how many useful frames."""
    frames: list[bytes | memoryview] = []
    done_bytes = useful = 0
    while waiting and done_bytes < most_bytes:
        full = _full_frames(stream_id, waiting, frame_bytes, most_bytes - done_bytes)
        if full:
            frames += full
            useful += len(full) >> 1
            done_bytes += (len(full) >> 1) * frame_bytes
            continue
        room = min(frame_bytes, most_bytes - done_bytes)
        size, pieces = 0, []
        while waiting and size < room:
            piece = waiting[0]
            if len(piece) > room - size:
                waiting[0] = piece[room - size :]
                piece = piece[: room - size]
            else:
                waiting.popleft()
            pieces.append(piece)
            size += len(piece)
        if size >= _PIECE_USEFUL_MIN or not waiting:
            useful += 1
        done_bytes += size
        frames += (frame_header(size, wire.DATA, 0, stream_id), *pieces)
    return frames, done_bytes, useful


def _full_frames(
    stream_id: int, waiting: deque[memoryview], frame_bytes: int, most_bytes: int
) -> list[bytes | memoryview]:
    """Take the frames that the first piece fills, most of a large message: a header and a slice for each."""
    piece = waiting[0]
    size = min(len(piece), most_bytes) // frame_bytes * frame_bytes
    if not size:
        return []
    if size == len(piece):
        waiting.popleft()
    else:
        waiting[0] = piece[size:]
    header = frame_header(frame_bytes, wire.DATA, 0, stream_id)
    return [part for start in range(0, size, frame_bytes) for part in (header, piece[start : start + frame_bytes])]
