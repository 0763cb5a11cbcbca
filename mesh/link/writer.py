"""`LinkWriter`: frames in, messages on the link's stream out, without a task or a wait of its own.

Small frames that are written together leave as one message. Large messages are cut into parts, which take
turns with the small frames that are ready, so a large message delays others by one part's time and not by its own
length. Frames of one call keep their order: what follows a large message of a call waits behind it, and the first part
of a large message waits for the small frames that were there before.
"""

from __future__ import annotations

import logging
from collections import deque

from mesh.http2.frame_format import ErrorCode
from mesh.http2.stream import Stream
from mesh.http2.write_turn import write_turn
from mesh.link.frames import LargeMessage, Packed
from mesh.phases.waiting import Waiters
from mesh.settings import settings
from mesh.wire.payload import Buffer

logger = logging.getLogger("mesh")


class LinkWriter:
    """The sending half of one link end. On the loop of its stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._turn = write_turn()
        self._is_due = False
        self._small: deque[bytes] = deque()
        self._large: deque[int] = deque()
        """Calls with large messages, in the order of their turns."""
        self._lanes: dict[int, deque[Packed]] = {}
        """By call: its large messages and what follows them."""
        self._starts: dict[int, int] = {}
        """By call with a lane: how many small frames have to be written first."""
        self._was_part = False
        """Whether the last message was a part."""
        self._states: dict[str, bytes] = {}
        """By name: the frame of a state of which only the latest matters, until there is room for it."""
        self._flushed = Waiters()
        self.accepted = 0
        """Small frames accepted so far."""
        self.written = 0
        """Small frames handed to the stream so far."""

    def __len__(self) -> int:
        """Calls whose large messages have not left yet."""
        return len(self._lanes)

    def send(self, packed: Packed, call_id: int = 0) -> None:
        """Queue a frame. Never blocks; callers bound what they send by credits and limits on calls."""
        lane = self._lanes.get(call_id) if self._lanes else None
        if lane is not None:
            lane.append(packed)
        elif isinstance(packed, LargeMessage):
            self._lanes[call_id] = deque((packed,))
            self._large.append(call_id)
            self._starts[call_id] = self.accepted
        else:
            self._small.append(packed)
            self.accepted += 1
        self._turn.waiting += 1
        self._schedule()

    def send_state(self, name: str, packed: bytes) -> None:
        """Queue a frame that replaces an earlier one of this name: a peer that does not read makes none pile up."""
        self._states[name] = packed
        self._schedule()

    def write(self) -> None:
        """Hand to the stream what is queued, as far as the peer takes it."""
        self._is_due = False
        stream = self._stream
        outbox = stream.connection.outbox
        try:
            if self._states and stream.pending is None:
                for packed in self._states.values():
                    self._small.append(packed)
                    self.accepted += 1
                self._states.clear()
            while (self._small or self._large) and stream.pending is None and not stream.has_ended:
                message = self._next_message()
                if isinstance(message, bytes):
                    outbox.send_message(stream, message)
                else:
                    outbox.send_pieces(stream, message)
        except Exception:
            logger.exception("a link ends: its process failed to write a frame")
            stream.connection.reset(stream, ErrorCode.INTERNAL_ERROR)
            stream.receiver.on_reset(stream, ErrorCode.INTERNAL_ERROR)
        if not self._small and not self._large:
            self._flushed.wake()

    def holds(self, call_id: int) -> bool:
        """Whether a large message of the call has not left completely."""
        return call_id in self._lanes

    def discard(self, call_id: int) -> bool:
        """Drop what a call has queued behind and in large messages; returns whether a message was cut off."""
        if self._lanes.pop(call_id, None) is None:
            return False
        self._large.remove(call_id)
        del self._starts[call_id]
        return True

    async def flushed(self) -> None:
        """Wait until what was accepted has been handed to the stream, or that has ended."""
        await self._flushed.until(lambda: self._stream.has_ended or not (self._small or self._large))

    def close(self) -> None:
        """The stream has ended: nothing is written any more."""
        self._flushed.wake()

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._turn.add(self.write)

    def _next_message(self) -> bytes | list[Buffer]:
        """Small frames and parts take turns. A part travels alone: so neither end copies it into or out of a batch."""
        small = self._small
        if self._large and (not small or not self._was_part) and self._may_start_large():
            self._was_part = True
            return self._next_part()
        self._was_part = False
        if len(small) == 1:
            self.written += 1
            return small.popleft()
        batch: list[bytes] = []
        room = settings().link.batch_max_bytes
        while small and room > 0:
            frame = small.popleft()
            room -= len(frame)
            batch.append(frame)
        self.written += len(batch)
        return b"".join(batch)

    def _may_start_large(self) -> bool:
        """Bring a call to the front whose earlier small frames are written."""
        for _ in range(len(self._large)):
            if self._starts[self._large[0]] <= self.written:
                return True
            self._large.rotate(-1)
        return False

    def _next_part(self) -> bytes | list[Buffer]:
        call_id = self._large.popleft()
        lane = self._lanes[call_id]
        first = lane[0]
        out: bytes | list[Buffer]
        if isinstance(first, bytes):
            out = first
            lane.popleft()
        else:
            out = first.take_part(settings().payload.part_bytes)
            if first.is_taken:
                lane.popleft()
        if lane:
            self._large.append(call_id)
        else:
            del self._lanes[call_id], self._starts[call_id]
        return out
