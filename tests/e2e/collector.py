"""An OTLP receiver over gRPC: keeps the spans that processes export, and finds them by name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.e2e.waiting import until


@dataclass(frozen=True)
class CollectedSpan:
    """A span as it was exported; ids in hexadecimal digits."""

    service: str
    message: trace_pb2.Span

    @property
    def trace_id(self) -> str:
        return self.message.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.message.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.message.parent_span_id.hex()

    @property
    def is_error(self) -> bool:
        return self.message.status.code == trace_pb2.Status.STATUS_CODE_ERROR

    @property
    def links(self) -> set[str]:
        return {link.span_id.hex() for link in self.message.links}

    @property
    def attributes(self) -> dict[str, Any]:
        return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in self.message.attributes}

    @property
    def lasted_s(self) -> float:
        return (self.message.end_time_unix_nano - self.message.start_time_unix_nano) / 1e9


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps all that arrives."""

    spans: list[CollectedSpan] = field(default_factory=list)
    port: int = 0

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [CollectedSpan(names.get("service.name", ""), span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str, trace_id: str) -> list[CollectedSpan]:
        return [span for span in list(self.spans) if span.message.name == name and span.trace_id == trace_id]

    def one(self, name: str, trace_id: str) -> CollectedSpan:
        """The only span of this name in a trace, once it is here."""
        until(lambda: self.named(name, trace_id))
        (found,) = self.named(name, trace_id)
        return found


@contextmanager
def running_collector() -> Iterator[Collector]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()
