"""Hedges: a second copy of a slow idempotent call goes to another replica, and the first answer counts. I/O loop only.

Theory of operation. A call with a `HedgePolicy` is watched; one timer serves all of a router. When its delay has passed
and it is still at a replica, a twin is sent to another replica that has a free place now: twins never wait, and are a
share of the calls, so that they cannot add to an overload. The twin's answer ends the original call, which is what its
caller knows; whichever is not needed any more is cancelled at its replica.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.options.calls.hedge_option import HedgePolicy
from mesh.routing.endpoint import Endpoint
from mesh.routing.retry_budget import RetryBudget
from mesh.routing.router_metrics import RouterCounts
from mesh.routing.waiting.waiting_calls import WaitingCalls
from mesh.rpc.status_codes import UNAVAILABLE
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, Trailers, cancelled
from mesh.wire.payload import Payload

_BUDGET = 0.1
"""Twins per call of the router, besides ten."""
_SAMPLES = 256
"""The latest durations of a method that its percentiles are computed from."""
_SAMPLES_MIN = 20
"""With fewer, there is no percentile and no hedge."""
_RENEWED_AFTER = 32
"""New durations until a percentile is computed again."""
_METHODS_MAX = 100
_ENDED_KEPT = 64
"""Calls that have ended stay in the heap until they are more than this, and more than those in flight."""
_NEVER_AGAIN = 1_000
"""As many attempts: a twin that fails or is rejected is not sent again."""


@dataclass(slots=True, eq=False)
class Hedge:
    """A call and its second copy at another replica."""

    original: OutgoingCall | None
    """Until it has ended."""
    twin: OutgoingCall | None = None
    """While it is on its way."""
    withheld: Outcome | None = None
    """How the original failed, while its twin may still answer."""


class HedgingRouter(Protocol):
    """What ends calls; implemented by mesh.routing.router.Router."""

    def end(self, call: OutgoingCall, outcome: Outcome, reason: CancelReason) -> None:
        """End a call with this outcome now, and cancel it at its replica."""


class Hedges:
    """The hedges of one router."""

    def __init__(
        self,
        queue: WaitingCalls,
        send: Callable[[Endpoint, OutgoingCall], None],
        router: HedgingRouter,
        counts: RouterCounts,
    ) -> None:
        self._queue = queue
        self._send = send
        self._router = router
        self._counts = counts
        self._budget = RetryBudget()
        self._durations: dict[str, Durations] = {}
        self._by_call: dict[int, Hedge] = {}
        """By id of a call that may have a twin, and of the twin."""
        self._due: list[tuple[float, int, Hedge]] = []
        """A heap by instant. Those whose call has ended are dropped in their turn, or once they are most of it."""
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at_s = math.inf

    def __repr__(self) -> str:
        return f"<Hedges watched: {self.watched}, due: {self.due}>"

    @property
    def watched(self) -> int:
        """Calls that have a twin or may get one, and the twins."""
        return len(self._by_call)

    @property
    def due(self) -> int:
        """Calls whose delay has not passed yet, and some that have ended before."""
        return len(self._due)

    def watch(self, call: OutgoingCall, policy: HedgePolicy) -> None:
        """Send a twin of the call, which is new, once it has taken as long as its policy says."""
        hedge = self._by_call[call.call_id] = Hedge(call)
        delay_s = policy.delay_s
        if policy.percentile:
            durations = self._durations.get(call.request.method)
            delay_s = math.inf if durations is None else durations.percentile(policy.percentile)
        if delay_s < math.inf:
            self._drop_ended()
            heapq.heappush(self._due, (call.started_at_s + delay_s, next(self._numbers), hedge))
            self._start_timer()

    def on_end(self, call: OutgoingCall, outcome: Outcome) -> bool:
        """A call with a policy has ended. True if it was a twin, of which its caller knows nothing."""
        hedge = self._by_call.pop(call.call_id, None)
        if hedge is None:  # it ended before it was submitted
            return False
        if call is not hedge.original:
            self._on_twin_end(call, hedge, outcome)
            return True
        hedge.original = hedge.withheld = None
        if not outcome.code:
            self._observe(call)
        twin, hedge.twin = hedge.twin, None
        if twin is not None and twin.state is not CallState.DONE:
            self._router.end(twin, cancelled(CancelReason.CLIENT), CancelReason.CLIENT)
        return False

    def withholds(self, call: OutgoingCall, outcome: Outcome) -> bool:
        """Whether this failure of a call has to wait, because its twin may still answer."""
        hedge = self._by_call.get(call.call_id)
        if outcome.code != UNAVAILABLE or hedge is None or hedge.twin is None or hedge.twin is call:
            return False
        call.state = CallState.QUEUED
        hedge.withheld = outcome
        return True

    def close(self) -> None:
        """Send no twin any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _on_twin_end(self, twin: OutgoingCall, hedge: Hedge, outcome: Outcome) -> None:
        original, withheld = hedge.original, hedge.withheld
        if hedge.twin is not twin or original is None:
            return
        hedge.twin = None
        if not outcome.code:
            self._counts.hedges.won += 1
            self._router.end(original, outcome, CancelReason.CLIENT)
        elif withheld is not None:
            self._router.end(original, withheld, CancelReason.CLIENT)

    def _observe(self, call: OutgoingCall) -> None:
        durations = self._durations.get(call.request.method)
        if durations is None:
            if len(self._durations) >= _METHODS_MAX:
                return
            durations = self._durations[call.request.method] = Durations()
        durations.add(time.monotonic() - call.started_at_s)

    def _drop_ended(self) -> None:
        """Keep the memory in proportion to the calls in flight, however long the delay: most calls end long before."""
        if len(self._due) > 2 * len(self._by_call) + _ENDED_KEPT:
            self._due = [each for each in self._due if each[2].original is not None]
            heapq.heapify(self._due)

    def _start_timer(self) -> None:
        at_s = self._due[0][0]
        if at_s < self._fires_at_s:
            if self._timer is not None:
                self._timer.cancel()
            self._fires_at_s = at_s
            self._timer = io_thread().loop.call_later(max(0.0, at_s - time.monotonic()), self._sweep)

    def _sweep(self) -> None:
        self._timer, self._fires_at_s = None, math.inf
        now_s = time.monotonic()
        while self._due and (self._due[0][0] <= now_s or self._due[0][2].original is None):
            hedge = heapq.heappop(self._due)[2]
            if hedge.original is not None and hedge.original.state is CallState.SENT:
                self._send_twin(hedge, hedge.original)
        if self._due:
            self._start_timer()

    def _send_twin(self, hedge: Hedge, call: OutgoingCall) -> None:
        """Send the twin of a call, if another replica has a free place."""
        twin = OutgoingCall(call.request, TwinSink(call))
        twin.failed_attempts = _NEVER_AGAIN
        # Looks like a call that was sent on this link before, so the queue prefers any other replica.
        twin.link = call.link
        endpoint = self._queue.enter(twin)
        if endpoint is None or endpoint.link is call.link or not self._budget.take(_BUDGET, self._queue.entered):
            return
        hedge.twin = twin
        self._by_call[twin.call_id] = hedge
        self._counts.hedges.sent += 1
        self._send(endpoint, twin)


class TwinSink:
    """The sink of a twin: its outcome reaches the original call through `Hedges.on_end`."""

    __slots__ = ("_original",)

    def __init__(self, original: OutgoingCall) -> None:
        self._original = original

    def on_item(self, payload: Payload) -> None:
        """Only unary calls are hedged."""

    def on_credit(self) -> None:
        """The same."""

    def on_initial_metadata(self, entries: Trailers) -> None:
        self._original.sink.on_initial_metadata(entries)

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        self._original.sink.on_compression(encoding, skips_next=skips_next)

    def on_done(self, outcome: Outcome) -> None:
        """The router tells `Hedges` instead."""


class Durations:
    """How long the latest calls of a method took, in seconds. Pure."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_SAMPLES)
        self._added = 0
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        self._latest.append(seconds)
        self._added += 1
        if self._added >= _RENEWED_AFTER or (len(self._latest) == _SAMPLES_MIN and not self._sorted):
            self._added = 0
            self._sorted = sorted(self._latest)

    def percentile(self, percent: int) -> float:
        """Seconds within which this share of the calls ended; infinite while there are too few."""
        if not self._sorted:
            return math.inf
        return self._sorted[min(len(self._sorted) - 1, len(self._sorted) * percent // 100)]
