"""When a process makes spans, and what turns them off."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from mesh.settings import trace_exporters
from mesh.tracing import trace_export

VARIABLES = (
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(trace_export, "_has_begun", False)
    monkeypatch.setattr(trace_export, "_spans", None)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ()),
        ({"OTEL_TRACES_EXPORTER": "none"}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp_proto_grpc",)),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ("otlp_proto_http",)),
        (
            {
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ("otlp_proto_http",),
        ),
        ({"OTEL_TRACES_EXPORTER": " console , OTLP"}, ("console", "otlp_proto_grpc")),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, ()),
    ],
)
def test_the_standard_variables_choose_the_exporters(
    variables: dict[str, str], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert trace_exporters() == expected


def test_without_the_variable_there_are_no_spans() -> None:
    trace_export.begin_tracing({})
    assert trace_export.span_maker() is None


def test_an_unknown_exporter_is_a_warning_and_the_process_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    with caplog.at_level(logging.WARNING, logger="mesh"):
        trace_export.begin_tracing({})
    assert trace_export.span_maker() is None
    assert "there is no exporter 'pigeon'" in caplog.text
    assert "raymesh[tracing]" in caplog.text


def test_a_missing_sdk_is_a_warning_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with caplog.at_level(logging.WARNING, logger="mesh"):
        trace_export.begin_tracing({})
    assert trace_export.span_maker() is None
    assert "opentelemetry-sdk is not installed; install it with: pip install 'raymesh[tracing]'" in caplog.text


def test_the_resource_of_a_process_gives_way_to_the_environment() -> None:
    """In a process of its own: a tracer provider is for good."""
    program = """
from opentelemetry import trace
from mesh.tracing.trace_export import begin_tracing, span_maker
begin_tracing({"service.name": "Store", "service.instance.id": "Store#1"})
assert span_maker() is not None
attributes = trace.get_tracer_provider().resource.attributes
print(attributes["service.name"], attributes["service.instance.id"], attributes["zone"])
"""
    environment = {"OTEL_TRACES_EXPORTER": "console", "OTEL_RESOURCE_ATTRIBUTES": "service.name=mine,zone=a"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path), **environment},
    )
    assert ran.stdout.split() == ["mine", "Store#1", "a"]
