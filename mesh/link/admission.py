"""A replica's strict limit on ongoing calls, and the links to notify when a place gets free. I/O loop only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from mesh.phases.waiting import Waiters


class LoadListener(Protocol):
    """A link whose caller may be waiting for a free place."""

    def push_load(self) -> None:
        """Send a load report."""


class Admission:
    """Counts ongoing calls against the limit.

    A caller that thinks the replica is full waits for a load report. Results carry one but may take arbitrarily long,
    so each such caller gets one report when a place gets free.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: calls at the same time."""
        self.limit = limit
        self.ongoing = 0
        self.rejected = 0
        self.is_closed = False
        self._believe_full: set[LoadListener] = set()
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
        if self._believe_full and self.ongoing < self.limit:
            waiting, self._believe_full = self._believe_full, set()
            for listener in waiting:
                listener.push_load()

    def load_for(self, listener: LoadListener) -> int:
        """The number of ongoing calls, to be sent to this listener now."""
        if self.ongoing >= self.limit:
            self._believe_full.add(listener)
        return self.ongoing

    def watch(self, listener: LoadListener) -> None:
        """The listener takes the replica for full: send it a report when a place is free, now or later."""
        if self.ongoing < self.limit:
            listener.push_load()
        else:
            self._believe_full.add(listener)

    def forget(self, listener: LoadListener) -> None:
        """The listener knows the load from elsewhere, or is gone."""
        self._believe_full.discard(listener)

    def close(self) -> None:
        """Admit no more calls."""
        self.is_closed = True

    async def idle(self) -> None:
        """Wait until no call is ongoing."""
        await self._idle.until(lambda: not self.ongoing)

    def set_limit(self, limit: int, listeners: Iterable[LoadListener] = ()) -> None:
        """Change the limit and report the load to all listeners: each may have waited because of the old one."""
        self.limit = limit
        self._believe_full.clear()
        for listener in listeners:
            listener.push_load()
