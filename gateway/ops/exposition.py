"""The text format that Prometheus reads, written by prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from gateway.ops.metric_sums import Families
from mesh.wire.telemetry import COUNTER, GAUGE, Family, Sample

_OPENMETRICS = "application/openmetrics-text"


class TextForm(Enum):
    """How the metrics are written; the values are content types."""

    CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST


def accepted_form(accept: str) -> TextForm:
    """OpenMetrics 1 if the Accept header names it, else the classic text format, which every scraper reads."""
    for each in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in each.split(";"))
        if media_type == _OPENMETRICS and _has_version_1(parameters):
            return TextForm.OPENMETRICS
    return TextForm.CLASSIC


def render(families: Families, form: TextForm) -> bytes:
    """The body of a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    if form is TextForm.CLASSIC:
        return generate_latest(registry)
    body: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    return body


def _has_version_1(parameters: list[str]) -> bool:
    """Also where none is named."""
    versions = [each.removeprefix("version=").strip('"') for each in parameters if each.startswith("version=")]
    return all(each.split(".")[0] == "1" for each in versions)


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
