"""Whether this process makes spans, and where they go: as the standard variables of OpenTelemetry say.

`OTEL_TRACES_EXPORTER` turns tracing on. The SDK itself reads the other variables: endpoint, headers, sampler, resource,
limits. A tracer provider that is there already, of `opentelemetry-instrument` or of user code, is used as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from mesh.settings import settings, trace_exporters
from mesh.tracing.span_maker import SpanMaker
from mesh.wire import request_context
from mesh.wire.blocking_work import Work, run_blocking

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger("mesh")

_INSTALL = "install it with: pip install 'raymesh[tracing]'"
_lock = threading.Lock()
_has_begun = False
_spans: SpanMaker | None = None
_provider: TracerProvider | None = None


def span_maker() -> SpanMaker | None:
    """What makes the spans of this process; None where tracing is off, and before `begin_tracing`."""
    return _spans


def begin_tracing(resource: Mapping[str, str]) -> None:
    """Turn tracing on where the environment says so; from any thread, once. Blocks while it imports the SDK.

    `resource` says what this process is, for example `service.name`. A process that cannot export logs why, and goes
    on without spans.
    """
    global _has_begun, _spans
    with _lock:
        if _has_begun:
            return
        _has_begun = True
        exporters = trace_exporters()
        if not exporters:
            return
        try:
            _spans = _make(exporters, resource)
        except Exception as error:  # the SDK and exporters are others' code, and a mesh serves without spans as well
            logger.warning("no spans are exported, though OTEL_TRACES_EXPORTER is set: %s", error)
            return
        request_context.new_root = _spans.new_root


async def flush_spans() -> None:
    """Export what waits, for processes that end. Takes a limited time."""
    if _provider is None:
        return
    timeout_s = settings().process.trace_flush_timeout_s
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await run_blocking(Work.EXPORT, _provider.force_flush, int(timeout_s * 1000))


def _make(exporters: tuple[str, ...], resource: Mapping[str, str]) -> SpanMaker:
    global _provider
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ImportError(f"opentelemetry-sdk is not installed; {_INSTALL}") from error
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        own = Resource.create().merge(Resource(dict(resource)))
        _provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()))
        for name in exporters:
            _provider.add_span_processor(BatchSpanProcessor(_exporter_type(name)()))
        trace.set_tracer_provider(_provider)
    return SpanMaker(trace.get_tracer("raymesh"))


def _exporter_type(name: str):  # type: ignore[no-untyped-def]  # of the SDK
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise LookupError(f"there is no exporter {name!r}; {_INSTALL}, or the package that has this exporter")
    return next(iter(found)).load()
