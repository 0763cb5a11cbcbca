"""`SpanMaker`: makes spans, and translates them from and to the W3C context that travels with calls."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mesh.context import REQUEST, Request, current_request
from mesh.rpc.status_codes import status_code
from mesh.tracing.traced_context import TracedContext, record_error
from mesh.wire.outcome import Outcome, describe
from mesh.wire.request_context import RequestContext, new_request_id

if TYPE_CHECKING:
    from opentelemetry.context import Context as ContextOfSpans
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger("mesh")

SERVER, CLIENT, INTERNAL = "SERVER", "CLIENT", "INTERNAL"
"""Kinds of spans: a request that came, a call that is made, work inside of a process."""

_SERVERS_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Statuses that count as errors of the one who answers, as the conventions of OpenTelemetry have it for gRPC."""

Attributes = Mapping[str, Any]


class SpanMaker:
    """The tracer of this process. From any thread."""

    def __init__(self, tracer: Tracer) -> None:
        """Needs opentelemetry-api."""
        from opentelemetry import context, trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._trace = trace
        self._contexts = context
        self._w3c = TraceContextTextMapPropagator()
        self._has_failed = False

    def begin(
        self, name: str, kind: str, parent: RequestContext, attributes: Attributes, *, age_s: float = 0.0
    ) -> Span:
        """A span below what `parent` names, which began `age_s` ago; of a trace of its own if it names nothing.

        That span itself, of which nothing is recorded here, where a sampler or processor raises: they are others' code.
        """
        carrier = {"traceparent": parent.traceparent, "tracestate": parent.tracestate}
        context = self._w3c.extract(carrier, self._contexts.Context())
        return self._start(name, context, kind, attributes, start_time=time.time_ns() - int(age_s * 1e9))

    def below(self, span: Span, context: RequestContext) -> RequestContext:
        """The context of calls that are made within a span: `context` with that span as their parent."""
        traceparent, tracestate = w3c_of(span)
        return replace(context, traceparent=traceparent, tracestate=tracestate, origin=context.origin or context)

    def served(self, span: Span, context: RequestContext) -> TracedContext:
        """The context of a request that user code serves within a span."""
        traceparent, tracestate = w3c_of(span)
        return TracedContext(
            context.request_id,
            context.route,
            context.app,
            context.multiplexed_model_id,
            traceparent,
            tracestate,
            context.identity,
            context.tenant,
            context.track,
            context.origin or context,
            span=span,
            spans=self,
        )

    def attach(self, span: Span) -> None:
        """Make it the current span of the running task or context, until that ends."""
        self._contexts.attach(self._trace.set_span_in_context(span))

    def current(self) -> tuple[str, str] | None:
        """`traceparent` and `tracestate` of the current span; None outside of one."""
        span = self._trace.get_current_span()
        return w3c_of(span) if span.get_span_context().is_valid else None

    def new_root(self, multiplexed_model_id: str, tenant: str) -> RequestContext:
        """The context of a call that serves no request, below the current span if there is one."""
        traceparent, tracestate = self.current() or ("", "")
        return RequestContext(
            new_request_id(),
            multiplexed_model_id=multiplexed_model_id,
            traceparent=traceparent,
            tracestate=tracestate,
            tenant=tenant,
        )

    def end(self, span: Span, kind: str, outcome: Outcome) -> None:
        """End the span of a call with how that ended."""
        if span.is_recording():
            name = status_code(outcome.code).name
            span.set_attribute("rpc.response.status_code", name)
            if not outcome.is_ok:
                self._describe(span, outcome, is_error=kind == CLIENT or name in _SERVERS_FAULTS)
        self._end(span)

    def fail(self, span: Span, error_type: str, text: str) -> None:
        """Mark the span as failed."""
        span.set_attribute("error.type", error_type)
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, text))

    @contextmanager
    def internal(self, name: str, attributes: Attributes, sharers: Sequence[Context] = ()) -> Iterator[None]:
        """Work inside of a process, below the current span; calls that it makes are below this one.

        `sharers`: contexts of the requests that share the work. Their spans and this one are linked in both directions.
        """
        spans = [context.run(self._trace.get_current_span) for context in sharers]
        links = [self._trace.Link(each.get_span_context()) for each in spans if each.get_span_context().is_valid]
        span = self._start(name, self._contexts.get_current(), INTERNAL, attributes, links=links)
        for each in spans:
            if each.is_recording():
                each.add_link(span.get_span_context())
        request = current_request()
        token = REQUEST.set(Request(self.served(span, request.context))) if request is not None else None
        try:
            with self._trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        except Exception as error:
            self.fail(span, type(error).__qualname__, describe(error))
            record_error(span, error)
            raise
        finally:
            if token is not None:
                REQUEST.reset(token)
            self._end(span)

    def _start(self, name: str, context: ContextOfSpans, kind: str, attributes: Attributes, **options: Any) -> Span:
        """A span below the current one of a context. Where that fails, one that names it and records nothing."""
        try:
            return self._tracer.start_span(name, context, self._trace.SpanKind[kind], attributes, **options)
        except Exception:
            self._log_failure()
            return self._trace.NonRecordingSpan(self._trace.get_current_span(context).get_span_context())

    def _end(self, span: Span) -> None:
        try:
            span.end()
        except Exception:  # a processor, as in `_start`
            self._log_failure()

    def _log_failure(self) -> None:
        """Once, and not for each span."""
        if not self._has_failed:
            self._has_failed = True
            logger.exception("spans are lost: a sampler or span processor raises. Further failures are not logged")

    def _describe(self, span: Span, outcome: Outcome, *, is_error: bool) -> None:
        error_type = outcome.exception_type or status_code(outcome.code).name
        if is_error:
            self.fail(span, error_type, outcome.message)
        if outcome.remote_traceback:
            told = {"type": error_type, "message": outcome.message, "stacktrace": outcome.remote_traceback}
            span.add_event("exception", {f"exception.{name}": text for name, text in told.items()})


def w3c_of(span: Span) -> tuple[str, str]:
    """`traceparent` and `tracestate` that name a span as the parent of others."""
    context = span.get_span_context()
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return traceparent, context.trace_state.to_header()
