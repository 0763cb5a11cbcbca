"""Owns a replica's strict limit on ongoing calls, and who has to be told when a place gets free. I/O loop only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from mesh.phases.waiting import Waiters


class LoadListener(Protocol):
    """A link whose caller may be waiting for a free place."""

    def push_load(self) -> None: ...


class Admission:
    """Counts ongoing calls against the limit.

    A caller that believes "full" waits for news; with calls of its own here it gets them with the next result, but
    those may take for ever. So everybody who was told "full", or concludes it from what it was told and has sent since,
    is told once more when a place gets free.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ongoing = 0
        self.rejected = 0
        self.is_closed = False
        self._told_full: set[LoadListener] = set()
        self._idle = Waiters()

    def try_enter(self) -> bool:
        """Take a place, unless all are taken or the replica drains."""
        if self.is_closed or self.ongoing >= self.limit:
            self.rejected += 1
            return False
        self.ongoing += 1
        return True

    def leave(self) -> None:
        """Give a place back."""
        self.ongoing -= 1
        if not self.ongoing:
            self._idle.wake()
        if self._told_full and self.ongoing < self.limit:
            waiting, self._told_full = self._told_full, set()
            for listener in waiting:
                listener.push_load()

    def tell(self, listener: LoadListener) -> int:
        """The number of ongoing calls, to be told to this listener now."""
        if self.ongoing >= self.limit:
            self._told_full.add(listener)
        return self.ongoing

    def watch(self, listener: LoadListener) -> None:
        """The listener believes that all places are taken: tell it when one is free, now or later."""
        if self.ongoing < self.limit:
            listener.push_load()
        else:
            self._told_full.add(listener)

    def forget(self, listener: LoadListener) -> None:
        self._told_full.discard(listener)

    def close(self) -> None:
        """Admit nobody from now on."""
        self.is_closed = True

    async def idle(self) -> None:
        """Wait until no call is ongoing."""
        await self._idle.until(lambda: not self.ongoing)

    def set_limit(self, limit: int, listeners: Iterable[LoadListener] = ()) -> None:
        """Change the limit; all listeners are told the load, because each may believe "full" under either limit."""
        self.limit = limit
        self._told_full.clear()
        for listener in listeners:
            listener.push_load()
