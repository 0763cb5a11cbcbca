"""The counts of a replica and its metric families. Written on the I/O loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mesh.link.admission import Admission
from mesh.rpc.status_codes import status_code
from mesh.wire.telemetry import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    LATENCY_BOUNDS,
    CountsByMethod,
    Family,
    HistogramCounts,
    MethodCounts,
    Sample,
)

_DEPLOYMENT = ("application", "deployment")
REQUESTS = Family(
    "mesh_replica_requests_total", COUNTER, "Calls that ended, by gRPC status code.", (*_DEPLOYMENT, "method", "code")
)
PROCESSING = Family(
    "mesh_replica_processing_latency_seconds",
    HISTOGRAM,
    "Time from admission to the last response.",
    (*_DEPLOYMENT, "method"),
    LATENCY_BOUNDS,
)
ONGOING = Family("mesh_replica_ongoing_requests", GAUGE, "Calls being executed.", _DEPLOYMENT)
REJECTED = Family("mesh_replica_rejected_total", COUNTER, "Calls refused: full or draining.", _DEPLOYMENT)
CANCELLED = Family("mesh_replica_cancelled_total", COUNTER, "Calls cancelled while they were here.", _DEPLOYMENT)
LINKS = Family("mesh_replica_links", GAUGE, "Callers connected.", _DEPLOYMENT)
VERSION_REQUESTS = Family(
    "mesh_version_requests_total",
    COUNTER,
    "Calls that ended, by the version of the replicas: code and options.",
    (*_DEPLOYMENT, "version", "code"),
)
VERSION_PROCESSING = Family(
    "mesh_version_processing_latency_seconds",
    HISTOGRAM,
    "Time from admission to the last response, by the version of the replicas.",
    (*_DEPLOYMENT, "version"),
    LATENCY_BOUNDS,
)


class ReplicaCounts:
    """Everything one replica counts; `samples` is its telemetry source."""

    __slots__ = ("_admission", "_labels", "_links", "_version", "cancelled", "methods")

    def __init__(self, app: str, deployment: str, admission: Admission, links: set[object], version: str = "") -> None:
        """`version`: of the replica's code and options; empty: no metrics tell versions apart."""
        self._labels = (app, deployment)
        self._version = version
        self._admission = admission
        self._links = links
        self.methods = CountsByMethod()
        self.cancelled = 0

    def samples(self) -> Iterator[tuple[Family, list[Sample]]]:
        labels = self._labels
        methods = list(self.methods.items())
        yield (
            REQUESTS,
            [
                Sample((*labels, name, status_code(code).name), number)
                for name, counts in methods
                for code, number in list(counts.by_code.items())
            ],
        )
        yield PROCESSING, [counts.latency.sample((*labels, name)) for name, counts in methods]
        yield ONGOING, [Sample(labels, self._admission.ongoing)]
        yield REJECTED, [Sample(labels, self._admission.rejected)]
        yield CANCELLED, [Sample(labels, self.cancelled)]
        yield LINKS, [Sample(labels, len(self._links))]
        if self._version:
            yield from self._version_samples(methods)

    def _version_samples(self, methods: Iterable[tuple[str, MethodCounts]]) -> Iterator[tuple[Family, list[Sample]]]:
        labels = (*self._labels, self._version)
        by_code: dict[int, int] = {}
        latency = HistogramCounts()
        for _, counts in methods:
            latency.add(counts.latency)
            for code, number in list(counts.by_code.items()):
                by_code[code] = by_code.get(code, 0) + number
        yield (
            VERSION_REQUESTS,
            [Sample((*labels, status_code(code).name), number) for code, number in by_code.items()],
        )
        yield VERSION_PROCESSING, [latency.sample(labels)]
