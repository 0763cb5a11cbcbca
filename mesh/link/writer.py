"""The coalescing writer of one link end.

grpc.aio costs 100-200 µs per message whatever is in it. So one write is in flight at a time, and everything that gets
ready meanwhile leaves together in the next. Large messages are cut into parts, which take turns with all small frames
that are ready: so a large message delays others by one part's time, not by its own length. Frames of one call keep
their order: what follows a large message of a call waits behind it, and the first part of a large message waits for
the small frames that were there before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from mesh.link.frames import LargeMessage, Packed
from mesh.link.gathering import Patience, Rule, for_handle_calls
from mesh.settings import settings

_TURNS = 3


class CoalescingWriter:
    """Frames in, as few gRPC messages as possible out."""

    def __init__(
        self,
        write: Callable[[bytes], Awaitable[None]],
        rule: Rule = for_handle_calls,
        under_way: Callable[[], int] = lambda: 0,
    ) -> None:
        """`under_way` returns the number of calls on the link."""
        self._write = write
        self._rule = rule
        self._under_way = under_way
        self._last_batch = 0
        """Small frames in the last message; 0: it was a part."""
        self._small: deque[bytes] = deque()
        self._large: deque[int] = deque()
        """Calls with large messages, in the order of their turns."""
        self._lanes: dict[int, deque[Packed]] = {}
        """By call: its large messages and what follows them."""
        self._starts: dict[int, int] = {}
        """By call with a lane: how many small frames have to be written first."""
        self._flushed: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.accepted = 0
        """Small frames accepted so far."""
        self.written = 0
        """Small frames handed to gRPC so far."""

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
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

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
        """Wait until what was accepted has been handed to gRPC, or the writer is closed. One waiter at a time."""
        if self._waiter is None:
            self._flushed = asyncio.get_running_loop().create_future()
            await self._flushed

    def close(self) -> None:
        """Nothing will be written any more."""
        self._tell_flushed()

    def _tell_flushed(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    async def run(self) -> None:
        """Write until cancelled or the stream breaks (the exception of `write` is raised)."""
        while True:
            if not self._small and not self._large:
                self._waiter = asyncio.get_running_loop().create_future()
                self._tell_flushed()
                await self._waiter
            await self._gather()
            await self._write(self._next_message())

    async def _gather(self) -> None:
        """Let the batch grow as far as the link's rule wants it. Large messages keep the line busy anyway."""
        if self._large:
            return
        match self._rule(len(self._small), self._last_batch, self._under_way()):
            case Patience.HOLD:
                await asyncio.sleep(settings().link.hold_s)
            case Patience.TURNS:
                for _ in range(_TURNS):
                    await asyncio.sleep(0)

    def _next_message(self) -> bytes:
        """Small frames and parts take turns. A part travels alone: so neither end copies it into or out of a batch."""
        is_parts_turn = self._last_batch or not self._small
        if self._large and is_parts_turn and self._may_start_large():
            self._last_batch = 0
            return self._next_part()
        batch: list[bytes] = []
        room = settings().link.batch_max_bytes
        small = self._small
        while small and room > 0:
            frame = small.popleft()
            room -= len(frame)
            batch.append(frame)
        self.written += len(batch)
        self._last_batch = len(batch)
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def _may_start_large(self) -> bool:
        """Bring a call to the front whose earlier small frames are written."""
        for _ in range(len(self._large)):
            if self._starts[self._large[0]] <= self.written:
                return True
            self._large.rotate(-1)
        return False

    def _next_part(self) -> bytes:
        call_id = self._large.popleft()
        lane = self._lanes[call_id]
        first = lane[0]
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
