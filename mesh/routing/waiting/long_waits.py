"""The warning that calls wait for a place for long. I/O loop only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from mesh.link.outgoing_call import OutgoingCall
from mesh.settings import settings
from mesh.wire.io_thread import io_thread

logger = logging.getLogger("mesh")


class LongWaits:
    """Looks at the waiting calls from time to time, and only while there are any."""

    def __init__(self, calls: Iterable[OutgoingCall], why_queued: Callable[[OutgoingCall], str]) -> None:
        """`calls` are those that wait now; `why_queued` says of one how long, and for what."""
        self._calls = calls
        self._why_queued = why_queued
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A call waits."""
        if self._timer is None:
            self._timer = io_thread().loop.call_later(settings().routing.queue_warning_s, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        waiting = list(self._calls)
        if not waiting:
            return
        oldest = min(waiting, key=lambda call: call.started_at_s)
        if time.monotonic() - oldest.started_at_s >= settings().routing.queue_warning_s:
            others = f" ({len(waiting) - 1} others wait too)" if len(waiting) > 1 else ""
            logger.warning("a call has %s%s", self._why_queued(oldest), others)
        self.begin()
