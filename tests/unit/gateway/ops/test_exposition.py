"""The text that Prometheus reads, read back by Prometheus's own parsers."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.ops.exposition import TextForm, accepted_form, render
from mesh.wire.telemetry import COUNTER, GAUGE, HISTOGRAM, Family, Sample

FAMILIES = [
    (Family("calls_total", COUNTER, "Calls.", ("method",)), [Sample(('/a.B/"C"\n',), 3)]),
    (Family("busy", GAUGE, "Busy."), [Sample((), 2)]),
    (Family("time_seconds", HISTOGRAM, "Time.", ("app",), (0.5, 1.0)), [Sample(("a",), buckets=[1, 2, 3], sum=9.5)]),
]


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


def test_classic_text_is_read_back():
    assert TextForm.CLASSIC.value.startswith("text/plain; version=0.0.4")
    assert values(parse_text, render(FAMILIES, TextForm.CLASSIC)) == EXPECTED


def test_openmetrics_is_read_back():
    assert TextForm.OPENMETRICS.value.startswith("application/openmetrics-text; version=1.0.0")
    body = render(FAMILIES, TextForm.OPENMETRICS)
    assert body.endswith(b"# EOF\n")
    assert values(parse_openmetrics, body) == EXPECTED


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", TextForm.OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; escaping=allow-utf-8; q=0.5,*/*;q=0.1", TextForm.OPENMETRICS),
        ("Application/OpenMetrics-Text", TextForm.OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", TextForm.CLASSIC),
        ("application/openmetrics-text;version=x,text/plain", TextForm.CLASSIC),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", TextForm.CLASSIC),
        ("*/*", TextForm.CLASSIC),
        ("", TextForm.CLASSIC),
    ],
)
def test_openmetrics_is_used_if_the_client_accepts_its_first_version(accept: str, form: TextForm) -> None:
    """The classic text is the default; an unknown version makes no other page, and no error."""
    assert accepted_form(accept) is form


def test_types_and_help_are_included():
    body = render(FAMILIES, TextForm.CLASSIC)
    kinds = {family.name: (family.type, family.documentation) for family in parse_text(body.decode())}
    assert kinds == {
        "calls": ("counter", "Calls."),
        "busy": ("gauge", "Busy."),
        "time_seconds": ("histogram", "Time."),
    }
