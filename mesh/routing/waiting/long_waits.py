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

_TIMER_RESOLUTION_S = 0.002
"""Timers may fire a little early."""


class LongWaits:
    """Looks at the waiting calls from time to time, and only while there are any."""

    def __init__(self, calls: Iterable[OutgoingCall], why_queued: Callable[[OutgoingCall], str]) -> None:
        """`calls` are those that wait now; `why_queued` says of one how long, and for what."""
        self._calls = calls
        self._why_queued = why_queued
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_timing(self) -> bool:
        """Whether it is going to look again."""
        return self._timer is not None

    def begin(self) -> None:
        """A call waits."""
        if self._timer is None:
            self._look_in(settings().routing.queue_warning_s)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_in(self, delay_s: float) -> None:
        self._timer = io_thread().loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting = list(self._calls)
        if not waiting:
            return
        oldest = min(waiting, key=lambda call: call.started_at_s)
        limit_s = settings().routing.queue_warning_s
        due_in_s = oldest.started_at_s + limit_s - time.monotonic()
        if due_in_s > _TIMER_RESOLUTION_S:
            self._look_in(due_in_s)
            return
        logger.warning("a call has %s%s", self._why_queued(oldest), _others(len(waiting) - 1))
        self._look_in(limit_s)


def _others(count: int) -> str:
    return "" if not count else " (1 other waits too)" if count == 1 else f" ({count} others wait too)"
