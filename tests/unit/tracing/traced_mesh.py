"""A small mesh in this process that makes spans, and where they end up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from mesh.replica.traced.traced_execution import TracedExecutor
from mesh.tracing.span_maker import SpanMaker
from mesh.tracing.traced_router import TracedRouter
from mesh.wire import request_context
from tests.unit.fakes.small_mesh import KEY, SmallMesh, mesh_of, until


class Spans:
    """A tracer, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = self.provider.get_tracer("test")
        self.maker = SpanMaker(self.tracer)

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Those of a name, as soon as there are as many."""
        until(lambda: len(self._named(name)) >= count, f"{count} spans named {name}")
        return self._named(name)

    def one(self, name: str, kind: str) -> ReadableSpan:
        until(lambda: [span for span in self._named(name) if span.kind.name == kind], f"a span {name}")
        [found] = [span for span in self._named(name) if span.kind.name == kind]
        return found

    def _named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.ended if span.name == name]


@dataclass
class TracedMesh:
    mesh: SmallMesh
    spans: Spans

    def handle(self, method: str, **options: Any) -> Any:
        return self.mesh.handle(method, **options)

    @property
    def router(self) -> TracedRouter:
        assert isinstance(self.mesh.router, TracedRouter)
        return self.mesh.router


@contextmanager
def traced_mesh_of(*targets: object, **options: Any) -> Iterator[TracedMesh]:
    """`mesh_of` with the parts that make spans."""
    spans = Spans()

    def traced_router(key: Any, identity: Any, on_no_replica: Any) -> TracedRouter:
        return TracedRouter(key, identity, on_no_replica, spans.maker)

    with (
        patch("tests.unit.fakes.small_mesh.Executor", partial(TracedExecutor, spans.maker, KEY)),
        patch("tests.unit.fakes.small_mesh.Router", traced_router),
        patch("mesh.tracing.trace_export._spans", spans.maker),
        patch.object(request_context, "new_root", spans.maker.new_root),
        mesh_of(*targets, **options) as mesh,
    ):
        yield TracedMesh(mesh, spans)
        mesh.assert_idle()
        until(lambda: not mesh.router.open_spans, "no span left open")  # type: ignore[attr-defined]


def parent_id(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def own_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)
