"""`InFlight`: how much is in progress, and waiting for none of it."""

from __future__ import annotations

from mesh.phases.waiting import Waiters


class InFlight:
    """The number of calls or exchanges in progress. I/O loop only."""

    __slots__ = ("_idle", "count")

    def __init__(self) -> None:
        self.count = 0
        self._idle: Waiters | None = None  # made by the first wait, so that calls do not pay for it before

    def enter(self) -> None:
        self.count += 1

    def leave(self) -> None:
        self.count -= 1
        if self._idle is not None and not self.count:
            self._idle.wake()

    async def idle(self) -> None:
        """Wait until none is in progress."""
        if self._idle is None:
            self._idle = Waiters()
        await self._idle.until(lambda: not self.count)
