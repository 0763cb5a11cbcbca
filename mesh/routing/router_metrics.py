"""The counters of a router and its metric families. Written on the I/O loop only."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from mesh.routing.snapshot import DeploymentKey
from mesh.rpc.status_codes import status_code
from mesh.wire import telemetry
from mesh.wire.outcome import Outcome
from mesh.wire.telemetry import COUNTER, GAUGE, HISTOGRAM, LATENCY_BOUNDS, CountsByMethod, Family, Sample

_DEPLOYMENT = ("application", "deployment")
REQUESTS = Family(
    "mesh_handle_requests_total", COUNTER, "Calls that ended, by gRPC status code.", (*_DEPLOYMENT, "method", "code")
)
LATENCY = Family(
    "mesh_handle_request_latency_seconds",
    HISTOGRAM,
    "Time from submission to the last response, queueing included.",
    (*_DEPLOYMENT, "method"),
    LATENCY_BOUNDS,
)
QUEUED = Family("mesh_handle_queued_requests", GAUGE, "Calls waiting for a replica.", _DEPLOYMENT)
ONGOING = Family("mesh_handle_ongoing_requests", GAUGE, "Calls sent to replicas and unfinished.", _DEPLOYMENT)
RETRIED = Family("mesh_handle_retries_total", COUNTER, "Calls sent again to another replica.", (*_DEPLOYMENT, "cause"))
TIME = Family(
    "mesh_handle_time_seconds_total",
    COUNTER,
    "Time of calls that ended: waiting in queues, on the wire and in the mesh, and in user code.",
    (*_DEPLOYMENT, "part"),
)
HEDGED = Family(
    "mesh_handle_hedges_total",
    COUNTER,
    "Second copies of slow calls, by whether they answered first.",
    (*_DEPLOYMENT, "result"),
)
REJECTED = Family("mesh_handle_rejected_total", COUNTER, "Sends that a full or draining replica refused.", _DEPLOYMENT)
DROPPED = Family(
    "mesh_handle_dropped_total",
    COUNTER,
    "Calls refused because the queue was full, or ended because they waited too long.",
    _DEPLOYMENT,
)
CANCELLED = Family("mesh_handle_cancelled_total", COUNTER, "Calls cancelled by their caller.", _DEPLOYMENT)
LINKS = Family("mesh_links", GAUGE, "Links that are ready.", _DEPLOYMENT)

LEFT_OUT = Family(
    "mesh_left_out_replicas", GAUGE, "Replicas that get no calls for a while because their calls failed.", _DEPLOYMENT
)


@dataclass(slots=True)
class RetryCounts:
    """Calls that were sent again, by cause."""

    rejected: int = 0
    broken: int = 0
    failed: int = 0


@dataclass(slots=True)
class HedgeCounts:
    """Second copies of calls."""

    sent: int = 0
    won: int = 0
    """Those that answered first."""


@dataclass(slots=True)
class CallTimes:
    """Seconds of all calls that ended."""

    total_s: float = 0.0
    queue_s: float = 0.0
    """The part of it that they waited, here and at the replica."""
    user_s: float = 0.0
    """The part of it that user code ran."""


class RouterCounts:
    """Everything one router counts."""

    __slots__ = (
        "cancelled",
        "collecting",
        "dropped",
        "hedges",
        "left_out",
        "methods",
        "rejected",
        "retries",
        "times",
        "withdraw",
    )

    def __init__(self) -> None:
        self.methods = CountsByMethod()
        self.cancelled = 0
        self.collecting = 0
        """Calls whose arguments are not complete yet."""
        self.dropped = 0
        self.hedges = HedgeCounts()
        self.left_out = 0
        """Replicas that get no calls now because their calls failed."""
        self.rejected = 0
        self.retries = RetryCounts()
        self.times = CallTimes()
        self.withdraw: Callable[[], None]
        """Set by `publish`: removes them from this process's metrics."""

    def end(self, method: str, outcome: Outcome, total_s: float, queue_s: float) -> None:
        """Count a call that has ended; it waited `queue_s` before it was sent."""
        self.methods[method].count(outcome.code, total_s)
        times = self.times
        times.total_s += total_s
        times.queue_s += queue_s + outcome.times[0] / 1e6
        times.user_s += outcome.times[1] / 1e6


class Measured(Protocol):
    """What the metrics need of a router; implemented by mesh.routing.router.Router."""

    key: DeploymentKey
    counts: RouterCounts

    @property
    def queued(self) -> int: ...

    @property
    def ongoing(self) -> int: ...

    @property
    def link_count(self) -> int: ...


def publish(router: Measured) -> None:
    """Add a router's counts to this process's metrics, until they are withdrawn or the router is garbage."""
    reference = weakref.ref(router)

    def source() -> Iterator[tuple[Family, list[Sample]]]:
        alive = reference()
        if alive is None:
            telemetry.unregister(source)
            return
        yield from _samples(alive)

    telemetry.register(source)
    router.counts.withdraw = partial(telemetry.unregister, source)


def _samples(router: Measured) -> Iterator[tuple[Family, list[Sample]]]:
    labels = (router.key.app, router.key.name)
    counts = router.counts
    times = counts.times
    methods = list(counts.methods.items())
    yield (
        REQUESTS,
        [
            Sample((*labels, name, status_code(code).name), number)
            for name, method in methods
            for code, number in list(method.by_code.items())
        ],
    )
    yield LATENCY, [method.latency.sample((*labels, name)) for name, method in methods]
    yield QUEUED, [Sample(labels, router.queued)]
    yield ONGOING, [Sample(labels, router.ongoing)]
    yield (
        RETRIED,
        [
            Sample((*labels, "rejected"), counts.retries.rejected),
            Sample((*labels, "broken_link"), counts.retries.broken),
            Sample((*labels, "failed"), counts.retries.failed),
        ],
    )
    yield (
        TIME,
        [
            Sample((*labels, "queue"), times.queue_s),
            Sample((*labels, "user"), times.user_s),
            Sample((*labels, "wire"), max(0.0, times.total_s - times.queue_s - times.user_s)),
        ],
    )
    yield (
        HEDGED,
        [
            Sample((*labels, "first"), counts.hedges.won),
            Sample((*labels, "needless"), counts.hedges.sent - counts.hedges.won),
        ],
    )
    yield REJECTED, [Sample(labels, counts.rejected)]
    yield DROPPED, [Sample(labels, counts.dropped)]
    yield CANCELLED, [Sample(labels, counts.cancelled)]
    yield LINKS, [Sample(labels, router.link_count)]
    yield LEFT_OUT, [Sample(labels, counts.left_out)]
