"""The gateway's own metrics of web requests: plain integers per route, turned into samples at a scrape.

Label values are bounded: what no route serves counts as "other", and so do methods that HTTP does not define and the
patterns of an application that has very many. Nothing that only a client chooses makes a series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.ops.grpc_metrics import OTHER
from gateway.requests.in_flight import InFlight
from mesh.settings import settings
from mesh.wire.telemetry import COUNTER, GAUGE, HISTOGRAM, LATENCY_BOUNDS, Family, HistogramCounts, Sample

WEBSOCKET = "WS"
"""Stands for the method of a WebSocket."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", WEBSOCKET})

_LABELS = ("application", "route", "method")

HTTP_REQUESTS = Family(
    "mesh_gateway_http_requests_total",
    COUNTER,
    "Web requests that ended at the gateway, by status; 499: the client has left, 101: a WebSocket.",
    (*_LABELS, "status"),
)
HTTP_LATENCY = Family(
    "mesh_gateway_http_request_latency_seconds",
    HISTOGRAM,
    "Time from a web request's arrival at the gateway to its last byte. Without WebSockets.",
    _LABELS,
    LATENCY_BOUNDS,
)
HTTP_ONGOING = Family("mesh_gateway_http_ongoing_requests", GAUGE, "Web requests in progress, WebSockets included.")
HTTP_RECEIVED = Family(
    "mesh_gateway_http_received_bytes_total",
    COUNTER,
    "Bytes of the bodies of web requests, and of WebSocket messages from clients.",
    ("application",),
)
HTTP_SENT = Family(
    "mesh_gateway_http_sent_bytes_total",
    COUNTER,
    "Bytes of the bodies of web responses, and of WebSocket messages to clients.",
    ("application",),
)
WEBSOCKETS = Family("mesh_gateway_websockets", GAUGE, "Open WebSockets of web applications.")


class _Ends:
    """Requests to one route, with one method, that ended with one status."""

    __slots__ = ("count", "latency")

    def __init__(self, latency: HistogramCounts) -> None:
        self.count = 0
        self.latency = latency
        """The latency of requests of all statuses."""


class ApplicationWebStats:
    """Counts of the web requests of one application. Only the I/O loop writes them."""

    __slots__ = ("_ends", "_latencies", "_routes", "application", "received_bytes", "sent_bytes")

    def __init__(self, application: str) -> None:
        self.application = application
        self.received_bytes = 0
        self.sent_bytes = 0
        self._routes: set[str] = set()
        self._ends: dict[tuple[str, str, int], _Ends] = {}
        self._latencies: dict[tuple[str, str], HistogramCounts] = {}

    def end(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Count a request that has ended. `route`: the prefix, with the pattern if the application has said it."""
        ends = self._ends.get((route, method, status))
        if ends is None:
            ends = self._of(self._admitted(route), method if method in _METHODS else OTHER, status)
        ends.count += 1
        if method != WEBSOCKET:
            ends.latency.observe(duration_s)

    def add(self, other: ApplicationWebStats) -> None:
        """Add the counts of the other, which has no series of its own any more."""
        self.received_bytes += other.received_bytes
        self.sent_bytes += other.sent_bytes
        for (_, method, status), ends in other._ends.items():
            self._of(OTHER, method, status).count += ends.count
        for (_, method), latency in other._latencies.items():
            self._latency(OTHER, method).add(latency)

    def requests(self) -> Iterator[Sample]:
        for (route, method, status), ends in list(self._ends.items()):
            yield Sample((self.application, route, method, str(status)), ends.count)

    def latencies(self) -> Iterator[Sample]:
        for labels, latency in list(self._latencies.items()):
            if labels[1] != WEBSOCKET:
                yield latency.sample((self.application, *labels))

    def _of(self, route: str, method: str, status: int) -> _Ends:
        key = route, method, status
        if key not in self._ends:
            self._ends[key] = _Ends(self._latency(route, method))
        return self._ends[key]

    def _latency(self, route: str, method: str) -> HistogramCounts:
        key = route, method
        if key not in self._latencies:
            self._latencies[key] = HistogramCounts()
        return self._latencies[key]

    def _admitted(self, route: str) -> str:
        if route not in self._routes:
            if len(self._routes) >= settings().gateway.metric_routes_max:
                return OTHER
            self._routes.add(route)
        return route


class HttpMetrics:
    """All counts of this gateway's web requests. They outlive the routes that they are counted for."""

    def __init__(self) -> None:
        self.in_flight = InFlight()
        self.websockets = 0
        """Open ones."""
        self._by_application: dict[str, ApplicationWebStats] = {}

    def of(self, application: str) -> ApplicationWebStats:
        """Counts of one application's requests; of no application's, if the name is empty."""
        name = application or OTHER
        if name not in self._by_application:
            self._by_application[name] = ApplicationWebStats(name)
        return self._by_application[name]

    def keep(self, applications: Iterable[str]) -> None:
        """Applications that have series of their own; counts of all others are added to "other": totals never fall."""
        for name in self._by_application.keys() - {*applications, OTHER}:
            gone = self._by_application.pop(name)
            self.of(OTHER).add(gone)

    def collect(self) -> Iterator[tuple[Family, list[Sample]]]:
        """All families with their samples, as a source of mesh.wire.telemetry."""
        every = list(self._by_application.values())
        yield HTTP_REQUESTS, [sample for each in every for sample in each.requests()]
        yield HTTP_LATENCY, [sample for each in every for sample in each.latencies()]
        yield HTTP_ONGOING, [Sample((), self.in_flight.count)]
        yield HTTP_RECEIVED, [Sample((each.application,), each.received_bytes) for each in every]
        yield HTTP_SENT, [Sample((each.application,), each.sent_bytes) for each in every]
        yield WEBSOCKETS, [Sample((), self.websockets)]
