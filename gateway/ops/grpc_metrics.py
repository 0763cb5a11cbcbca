"""The gateway's own gRPC metrics: plain integers per method, turned into samples at a scrape.

Label values are bounded. What is not in the route table counts as "other", so that clients cannot create series.
What was counted for a deleted application can still be scraped for a while; after that it counts as "other" too,
because a gateway lives longer than most applications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import grpc

from gateway.requests.in_flight import InFlight
from gateway.requests.routes import Route, service_of
from mesh.rpc.status_codes import UNKNOWN
from mesh.settings import settings
from mesh.wire.telemetry import COUNTER, GAUGE, HISTOGRAM, LATENCY_BOUNDS, Family, HistogramCounts, Sample

OTHER = "other"
CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
GO_CODE_NAMES = {
    code.value[0]: {"OK": "OK", "CANCELLED": "Canceled"}.get(code.name, code.name.title().replace("_", ""))
    for code in grpc.StatusCode
}
"""The spelling of go-grpc-prometheus, which dashboards and alerts expect."""
_CODES_COUNT = len(CODE_NAMES)

REQUESTS = Family(
    "mesh_gateway_grpc_requests_total",
    COUNTER,
    "gRPC calls that ended at the gateway, by status code.",
    ("application", "method", "code"),
)
LATENCY = Family(
    "mesh_gateway_grpc_request_latency_seconds",
    HISTOGRAM,
    "Time from a call's arrival at the gateway to its last byte.",
    ("application", "method"),
    LATENCY_BOUNDS,
)
ONGOING = Family("mesh_gateway_grpc_ongoing_requests", GAUGE, "gRPC calls in progress at the gateway.")

_SERVER_LABELS = ("grpc_type", "grpc_service", "grpc_method")
STARTED = Family("grpc_server_started_total", COUNTER, "RPCs started on the server.", _SERVER_LABELS)
HANDLED = Family(
    "grpc_server_handled_total", COUNTER, "RPCs completed on the server, by code.", (*_SERVER_LABELS, "grpc_code")
)
RECEIVED = Family("grpc_server_msg_received_total", COUNTER, "Messages received on the server.", _SERVER_LABELS)
SENT = Family("grpc_server_msg_sent_total", COUNTER, "Messages sent by the server.", _SERVER_LABELS)
HANDLING = Family(
    "grpc_server_handling_seconds", HISTOGRAM, "Response latency of the server.", _SERVER_LABELS, LATENCY_BOUNDS
)

_TYPES = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}


class MethodStats:
    """Counts of one method of one application. Only the I/O loop writes them."""

    __slots__ = ("application", "codes", "grpc_type", "latency", "method", "received", "sent", "service", "started")

    def __init__(self, application: str, method: str, grpc_type: str) -> None:
        self.application = application
        self.method = method
        self.service = service_of(method) or OTHER
        self.grpc_type = grpc_type
        self.started = 0
        self.received = 0
        self.sent = 0
        self.codes = [0] * _CODES_COUNT
        self.latency = HistogramCounts()

    def add(self, other: MethodStats) -> None:
        """Add the counts of the other."""
        self.started += other.started
        self.received += other.received
        self.sent += other.sent
        self.codes = [mine + theirs for mine, theirs in zip(self.codes, other.codes, strict=True)]
        self.latency.add(other.latency)

    def end(self, code: int, duration_s: float) -> None:
        """Count a call that has ended with a gRPC status code."""
        self.codes[code if 0 <= code < _CODES_COUNT else UNKNOWN] += 1
        self.latency.observe(duration_s)

    @property
    def server_labels(self) -> tuple[str, str, str]:
        return self.grpc_type, self.service, self.method.rpartition("/")[2]


class GrpcMetrics:
    """All counts of this gateway's gRPC side. They outlive the routes that they are counted for."""

    def __init__(self) -> None:
        self.in_flight = InFlight()
        self._known = _KnownApplications()
        self._stats: dict[tuple[str, str, str], MethodStats] = {}

    def of_route(self, route: Route) -> MethodStats:
        """Counts of the calls of one method."""
        grpc_type = _TYPES[route.streams_request, route.streams_response]
        return self._get(route.deployment.app, route.full_name, grpc_type)

    def of_refused(self, application: str) -> MethodStats:
        """Counts of refused calls. `application` is a deployed one, or empty."""
        return self._get(application or OTHER, OTHER, _TYPES[True, True])

    @property
    def applications(self) -> frozenset[str]:
        """The names of those that have series of their own."""
        return self._known.names

    def set_applications(self, deployed: Iterable[str]) -> None:
        """Take the names of a new route table. Counts of older applications are added to "other": totals never fall."""
        self._known.update(deployed)
        known = self._known.names
        gone = [key for key in self._stats if key[0] not in known and key[0] != OTHER]
        for key in gone:
            _, method, grpc_type = key
            self._get(OTHER, method, grpc_type).add(self._stats.pop(key))

    def collect(self) -> Iterator[tuple[Family, list[Sample]]]:
        """All families with their samples, as a source of mesh.wire.telemetry."""
        stats = list(self._stats.values())
        yield REQUESTS, list(_by_code(stats, lambda each: (each.application, each.method), CODE_NAMES))
        yield LATENCY, [each.latency.sample((each.application, each.method)) for each in stats]
        yield ONGOING, [Sample((), self.in_flight.count)]
        yield STARTED, [Sample(each.server_labels, each.started) for each in stats]
        yield HANDLED, list(_by_code(stats, lambda each: each.server_labels, GO_CODE_NAMES))
        yield RECEIVED, [Sample(each.server_labels, each.received) for each in stats]
        yield SENT, [Sample(each.server_labels, each.sent) for each in stats]
        yield HANDLING, [each.latency.sample(each.server_labels) for each in stats]

    def _get(self, application: str, method: str, grpc_type: str) -> MethodStats:
        key = application, method, grpc_type
        if key not in self._stats:
            self._stats[key] = MethodStats(application, method, grpc_type)
        return self._stats[key]


class _KnownApplications:
    """The applications that have metric series of their own: those that are deployed and the last that were deleted."""

    def __init__(self) -> None:
        self._deployed: frozenset[str] = frozenset()
        self._deleted: dict[str, None] = {}
        """In the order of their deletion."""

    @property
    def names(self) -> frozenset[str]:
        return self._deployed.union(self._deleted)

    def update(self, deployed: Iterable[str]) -> None:
        """Take the names of a new route table."""
        before, self._deployed = self._deployed, frozenset(deployed)
        for name in before - self._deployed:
            self._deleted[name] = None
        for name in self._deployed & self._deleted.keys():
            del self._deleted[name]
        while len(self._deleted) > settings().gateway.deleted_applications_kept:
            del self._deleted[next(iter(self._deleted))]


def _by_code(
    stats: Iterable[MethodStats], labels: Callable[[MethodStats], tuple[str, ...]], code_names: Mapping[int, str]
) -> Iterator[Sample]:
    for each in stats:
        for code, count in enumerate(each.codes):
            if count:
                yield Sample((*labels(each), code_names[code]), count)
