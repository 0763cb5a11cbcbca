"""When a process makes spans, and what turns them off."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from mesh.settings import trace_exporters
from mesh.tracing import trace_export
from mesh.v1 import control_pb2
from mesh.wire import request_context

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
    monkeypatch.setattr(request_context, "new_root", request_context.new_root)
    monkeypatch.setattr(trace_export, "_has_begun", False)
    monkeypatch.setattr(trace_export, "_spans", None)
    monkeypatch.setattr(trace_export, "_options", control_pb2.TracingOptions())


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


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ({"is_enabled": True}, {}, True),
        ({"is_enabled": True}, {"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"is_enabled": True}, {"OTEL_SDK_DISABLED": "true"}, False),
        ({"is_enabled": False}, {"OTEL_TRACES_EXPORTER": "console"}, False),
        ({"is_enabled": False, "exporter_import_path": "shop:spans"}, {}, False),
        ({"exporter_import_path": "shop:spans"}, {}, True),
        ({"exporter_import_path": "shop:spans"}, {"OTEL_SDK_DISABLED": "true"}, False),
        ({"sampling_ratio": 1.0}, {}, False),
    ],
)
def test_options_of_the_mesh_turn_tracing_on_and_off(
    options: dict[str, object], variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_SDK_DISABLED` of a node has the last word (item 59)."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made: list[object] = []
    monkeypatch.setattr(trace_export, "_make", lambda *given: made.append(given) or _Spans())
    trace_export.choose_tracing(control_pb2.TracingOptions(**options))  # type: ignore[arg-type]
    trace_export.begin_tracing({})
    assert (trace_export.span_maker() is not None) is bool(made) is expected


class _Spans:
    new_root = None


def test_a_path_that_cannot_be_imported_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process serves without spans (item 59)."""
    trace_export.choose_tracing(control_pb2.TracingOptions(exporter_import_path="no_such_module:spans"))
    with caplog.at_level(logging.WARNING, logger="mesh"):
        trace_export.begin_tracing({})
    assert trace_export.span_maker() is None
    assert "no spans are exported, though tracing is turned on: No module named 'no_such_module'" in caplog.text


def test_a_function_of_the_user_makes_the_processors_and_a_ratio_the_sampler() -> None:
    """In a process of its own: a tracer provider is for good (item 59)."""
    program = """
import sys, types
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from mesh.tracing import trace_export
from mesh.v1 import control_pb2
exporter = InMemorySpanExporter()
sys.modules["shop_spans"] = types.ModuleType("shop_spans")
sys.modules["shop_spans"].processors = lambda: [SimpleSpanProcessor(exporter)]
trace_export.choose_tracing(
    control_pb2.TracingOptions(exporter_import_path="shop_spans.processors", sampling_ratio=float(sys.argv[1]))
)
trace_export.begin_tracing({"service.name": "Store"})
trace.get_tracer("shop").start_span("own").end()
sampler = trace.get_tracer_provider().sampler.get_description()
print(len(exporter.get_finished_spans()), sampler)
"""
    ratios = {
        ratio: subprocess.run(
            [sys.executable, "-c", program, ratio],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"PYTHONPATH": ":".join(sys.path)},
        ).stdout.split(" ", 1)
        for ratio in ("0", "1")
    }
    assert {ratio: count for ratio, (count, _) in ratios.items()} == {"0": "0", "1": "1"}
    assert all("ParentBased" in sampler and "TraceIdRatioBased" in sampler for _, sampler in ratios.values())


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


def test_a_processor_that_fails_to_flush_keeps_no_process_from_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SpanProcessor):
        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            raise ConnectionError("no collector")

    provider = TracerProvider()
    provider.add_span_processor(Broken())
    monkeypatch.setattr(trace_export, "_provider", provider)
    asyncio.run(trace_export.flush_spans())
    assert "the last spans may be lost: ConnectionError: no collector" in caplog.text
