"""The metrics of this process: plain numbers on the hot path, collected only at a scrape.

Whatever counts keeps ordinary attributes that one thread writes; a registered source turns them into samples on demand.
So counting costs an addition: no lock, no label look-up.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mesh.v1 import telemetry_pb2

COUNTER = telemetry_pb2.METRIC_KIND_COUNTER
GAUGE = telemetry_pb2.METRIC_KIND_GAUGE
HISTOGRAM = telemetry_pb2.METRIC_KIND_HISTOGRAM

LATENCY_BOUNDS: tuple[float, ...] = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Upper bounds in seconds."""
METHODS_MAX = 100
"""Methods with series of their own; a class has fewer, so more means invented names."""
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: what its samples mean and how they are labelled."""

    name: str
    kind: telemetry_pb2.MetricKind
    help: str
    label_names: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


@dataclass(slots=True)
class Sample:
    """One series of a family. Histograms fill `buckets` (not cumulative, last is +Inf) and `sum`."""

    label_values: tuple[str, ...] = ()
    value: float = 0.0
    buckets: list[int] = field(default_factory=list)
    sum: float = 0.0


class HistogramCounts:
    """Observations counted into buckets. One thread observes; others may read a slightly torn picture."""

    __slots__ = ("bounds", "buckets", "sum")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: HistogramCounts) -> None:
        """Count what another of the same bounds has counted too."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.sum += other.sum

    def sample(self, label_values: tuple[str, ...]) -> Sample:
        return Sample(label_values, buckets=list(self.buckets), sum=self.sum)


class MethodCounts:
    """Ended calls of one method: number by status code, and their seconds."""

    __slots__ = ("by_code", "latency")

    def __init__(self) -> None:
        self.by_code: dict[int, int] = {}
        self.latency = HistogramCounts()

    def count(self, code: int, seconds: float) -> None:
        self.by_code[code] = self.by_code.get(code, 0) + 1
        self.latency.observe(seconds)


class CountsByMethod(dict[str, MethodCounts]):
    """Method counts by name, bounded: names beyond the limit share one."""

    def __missing__(self, name: str) -> MethodCounts:
        key = name if len(self) < METHODS_MAX else OTHER
        return self.setdefault(key, MethodCounts())


Source = Callable[[], Iterable[tuple[Family, Iterable[Sample]]]]

_lock = threading.Lock()
_sources: list[Source] = []


def register(source: Source) -> None:
    """Ask `source` for samples at every scrape from now on."""
    with _lock:
        _sources.append(source)


def unregister(source: Source) -> None:
    with _lock:
        if source in _sources:
            _sources.remove(source)


def collect() -> list[tuple[Family, list[Sample]]]:
    """Samples of all sources; families that several sources share are merged by name."""
    with _lock:
        sources = list(_sources)
    merged: dict[str, tuple[Family, list[Sample]]] = {}
    for source in sources:
        for family, samples in source():
            merged.setdefault(family.name, (family, []))[1].extend(samples)
    return list(merged.values())


def to_reply(process_id: str) -> telemetry_pb2.MetricsReply:
    """All metrics of this process as the Process service sends them."""
    reply = telemetry_pb2.MetricsReply(process_id=process_id)
    for family, samples in collect():
        message = reply.families.add(
            name=family.name, help=family.help, kind=family.kind, bounds=family.bounds, label_names=family.label_names
        )
        for sample in samples:
            message.samples.add(
                label_values=sample.label_values, value=sample.value, buckets=sample.buckets, sum=sample.sum
            )
    return reply
