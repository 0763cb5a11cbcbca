"""The text that Prometheus reads, read back by Prometheus's own parsers."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.ops.exposition import render
from mesh.wire.telemetry import COUNTER, GAUGE, HISTOGRAM, Family, Sample

FAMILIES = [
    (Family("calls_total", COUNTER, "Calls.", ("method",)), [Sample(('/a.B/"C"\n',), 3)]),
    (Family("busy", GAUGE, "Busy."), [Sample((), 2)]),
    (Family("time_seconds", HISTOGRAM, "Time.", ("app",), (0.5, 1.0)), [Sample(("a",), buckets=[1, 2, 3], sum=9.5)]),
]
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def values(parse: object, body: bytes) -> dict[tuple[str, str], float]:
    assert callable(parse)
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


EXPECTED = {
    ("calls_total", '/a.B/"C"\n'): 3,
    ("busy", ""): 2,
    ("time_seconds_bucket", "a,0.5"): 1,
    ("time_seconds_bucket", "a,1.0"): 3,
    ("time_seconds_bucket", "a,+Inf"): 6,
    ("time_seconds_count", "a"): 6,
    ("time_seconds_sum", "a"): 9.5,
}


def test_classic_text_is_the_default():
    body, content_type = render(FAMILIES, "")
    assert content_type.startswith("text/plain; version=0.0.4")
    assert values(parse_text, body) == EXPECTED


def test_openmetrics_is_used_if_the_client_accepts_it():
    body, content_type = render(FAMILIES, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert values(parse_openmetrics, body) == EXPECTED


def test_types_and_help_are_included():
    body, _ = render(FAMILIES, "")
    kinds = {family.name: (family.type, family.documentation) for family in parse_text(body.decode())}
    assert kinds == {
        "calls": ("counter", "Calls."),
        "busy": ("gauge", "Busy."),
        "time_seconds": ("histogram", "Time."),
    }
