"""Owns the number of gRPC calls in progress and the wait for it to reach zero."""

from __future__ import annotations

import asyncio


class InFlight:
    """Counts calls. I/O loop only."""

    __slots__ = ("_idle", "count")

    def __init__(self) -> None:
        self.count = 0
        self._idle: asyncio.Future[None] | None = None

    def enter(self) -> None:
        self.count += 1

    def leave(self) -> None:
        self.count -= 1
        if self._idle is not None and not self.count and not self._idle.done():
            self._idle.set_result(None)

    async def idle(self) -> None:
        """Wait until no call is in progress."""
        while self.count:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)  # one for all who wait: none of them may cancel it
