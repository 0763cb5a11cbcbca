"""The limit on the time that calls wait for a place: `queue_timeout_s`. I/O loop only.

One timer serves all calls of a router, and only calls that wait are looked at.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable

from mesh.link.outgoing_call import OutgoingCall
from mesh.routing.waiting.long_waits import LongWaits
from mesh.wire.io_thread import io_thread

_PAUSE_MIN_S = 0.05
"""Between two looks at all waiting calls; a call may wait this much longer than its limit."""


class QueueTimeouts:
    """Ends calls that wait too long. A call that was sent once and failed has no limit any more.

    Those that wait for long without a limit are logged.
    """

    def __init__(
        self,
        calls: Iterable[OutgoingCall],
        on_expired: Callable[[OutgoingCall, float], None],
        why_queued: Callable[[OutgoingCall], str],
    ) -> None:
        """`calls` are those that wait now; `on_expired` gets a call and its limit. `why_queued`: see LongWaits."""
        self._calls = calls
        self._on_expired = on_expired
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at_s = math.inf
        self._default_s = math.inf
        self.long_waits = LongWaits(calls, why_queued)

    @property
    def is_timing(self) -> bool:
        """Whether a timer runs, which happens only while a call with a limit waits."""
        return self._timer is not None

    def set_default(self, timeout_s: float) -> None:
        """The limit of calls that have none of their own; infinite: none."""
        if timeout_s != self._default_s:
            self._default_s = timeout_s
            for call in self._calls:
                self.watch(call)

    def watch(self, call: OutgoingCall) -> None:
        """The call waits."""
        self.long_waits.begin()
        expires_at_s = self._expires_at_s(call)
        if expires_at_s < self._fires_at_s:
            self._start(expires_at_s, time.monotonic())

    def close(self) -> None:
        self.long_waits.close()
        self._stop_timer()

    def _limit_s(self, call: OutgoingCall) -> float:
        own_s = call.request.queue_timeout_s
        return self._default_s if own_s is None else own_s

    def _expires_at_s(self, call: OutgoingCall) -> float:
        return math.inf if call.failed_attempts else call.started_at_s + self._limit_s(call)

    def _start(self, at_s: float, now_s: float) -> None:
        self._stop_timer()
        self._fires_at_s = at_s
        self._timer = io_thread().loop.call_later(max(0.0, at_s - now_s), self._sweep)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        self._timer, self._fires_at_s = None, math.inf
        now_s = time.monotonic()
        for call in [each for each in self._calls if self._expires_at_s(each) <= now_s]:
            self._on_expired(call, self._limit_s(call))
        next_at_s = min(map(self._expires_at_s, self._calls), default=math.inf)
        if next_at_s < math.inf:
            self._start(max(next_at_s, now_s + _PAUSE_MIN_S), now_s)
