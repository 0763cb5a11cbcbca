"""The text format that Prometheus reads, written by prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from gateway.ops.metric_sums import Families
from mesh.wire.telemetry import COUNTER, GAUGE, Family, Sample


def render(families: Families, accept: str) -> tuple[bytes, str]:
    """Body and content type: OpenMetrics if the Accept header asks for it, else the classic text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Families(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family, samples in self._families:
            yield _metric(family, samples)


def _metric(family: Family, samples: Iterable[Sample]) -> Metric:
    if family.kind == COUNTER:
        counter = CounterMetricFamily(family.name, family.help, labels=family.label_names)
        for sample in samples:
            counter.add_metric(sample.label_values, sample.value)
        return counter
    if family.kind == GAUGE:
        gauge = GaugeMetricFamily(family.name, family.help, labels=family.label_names)
        for sample in samples:
            gauge.add_metric(sample.label_values, sample.value)
        return gauge
    histogram = HistogramMetricFamily(family.name, family.help, labels=family.label_names)
    for sample in samples:
        histogram.add_metric(sample.label_values, _cumulative(family.bounds, sample.buckets), sample.sum)
    return histogram


def _cumulative(bounds: tuple[float, ...], buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    pairs: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, bounds), "+Inf"), buckets, strict=True):
        total += count
        pairs.append((bound, total))
    return pairs
