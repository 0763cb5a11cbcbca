"""Whether this process makes spans, and where they go: as `tracing_config` and OpenTelemetry's standard variables say.

`OTEL_TRACES_EXPORTER` or `tracing_config` of `mesh.start` turns tracing on. The SDK itself reads the other variables:
endpoint, headers, sampler, resource, limits. A tracer provider that is there already, of `opentelemetry-instrument` or
of user code, is used as it is.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from mesh.settings import is_tracing_disabled, settings, trace_exporters
from mesh.tracing.span_maker import SpanMaker
from mesh.v1 import control_pb2
from mesh.wire import request_context
from mesh.wire.blocking_work import Work, run_blocking
from mesh.wire.outcome import describe

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import Sampler

logger = logging.getLogger("mesh")

_INSTALL = "install it with: pip install 'raymesh[tracing]'"
_lock = threading.Lock()
_has_begun = False
_options = control_pb2.TracingOptions()
_spans: SpanMaker | None = None
_provider: TracerProvider | None = None


def span_maker() -> SpanMaker | None:
    """What makes the spans of this process; None where tracing is off, and before `begin_tracing`."""
    return _spans


def choose_tracing(options: control_pb2.TracingOptions) -> None:
    """What the user chose for this process of the mesh, before it joins."""
    global _options
    _options = options


def begin_tracing(resource: Mapping[str, str]) -> None:
    """Turn tracing on where options or environment say so; from any thread, once. Blocks while it imports the SDK.

    `resource` says what this process is, for example `service.name`. A process that cannot export logs why, and goes
    on without spans.
    """
    global _has_begun, _spans
    with _lock:
        if _has_begun:
            return
        _has_begun = True
        if not _is_wanted(_options):
            return
        try:
            _spans = _make(_options, resource)
        except Exception as error:  # the SDK and exporters are others' code, and a mesh serves without spans as well
            logger.warning("no spans are exported, though tracing is turned on: %s", error)
            return
        request_context.new_root = _spans.new_root


async def flush_spans() -> None:
    """Export what waits, for processes that end. Takes a limited time. Raises nothing: what fails is logged."""
    if _provider is None:
        return
    timeout_s = settings().process.trace_flush_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            await run_blocking(Work.EXPORT, _provider.force_flush, int(timeout_s * 1000))
    except Exception as error:  # exporters and processors are others' code
        logger.warning("the last spans may be lost: %s", describe(error))


def _is_wanted(options: control_pb2.TracingOptions) -> bool:
    if is_tracing_disabled() or (options.HasField("is_enabled") and not options.is_enabled):
        return False
    return bool(options.exporter_import_path or _exporters(options))


def _exporters(options: control_pb2.TracingOptions) -> tuple[str, ...]:
    return trace_exporters(default="otlp" if options.is_enabled else "")


def _make(options: control_pb2.TracingOptions, resource: Mapping[str, str]) -> SpanMaker:
    global _provider
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as error:
        raise ImportError(f"opentelemetry-sdk is not installed; {_INSTALL}") from error
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        own = Resource.create().merge(Resource(dict(resource)))
        merged = own.merge(OTELResourceDetector().detect())
        _provider = TracerProvider(sampler=_sampler(options), resource=merged)
        for processor in _processors(options):
            _provider.add_span_processor(processor)
        trace.set_tracer_provider(_provider)
    return SpanMaker(trace.get_tracer("raymesh"))


def _sampler(options: control_pb2.TracingOptions) -> Sampler | None:
    """None: the SDK reads `OTEL_TRACES_SAMPLER`."""
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    if not options.HasField("sampling_ratio"):
        return None
    return ParentBased(TraceIdRatioBased(options.sampling_ratio))


def _processors(options: control_pb2.TracingOptions) -> Iterable[SpanProcessor]:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if not options.exporter_import_path:
        return [BatchSpanProcessor(_exporter_type(name)()) for name in _exporters(options)]
    module, _, function = options.exporter_import_path.replace(":", ".").rpartition(".")
    made = getattr(importlib.import_module(module), function)()
    return made if isinstance(made, (list, tuple)) else [made]


def _exporter_type(name: str):  # type: ignore[no-untyped-def]  # of the SDK
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise LookupError(f"there is no exporter {name!r}; {_INSTALL}, or the package that has this exporter")
    return next(iter(found)).load()
