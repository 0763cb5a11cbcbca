"""`TracedContext`: the context of a request that user code serves within a span."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mesh.wire.request_context import RequestContext, new_request_id

if TYPE_CHECKING:
    from opentelemetry.trace import Span
else:
    Span = Any


class CurrentSpans(Protocol):
    """What knows the current span of a task or thread; implemented by SpanMaker."""

    def attach(self, span: Span) -> None:
        """Make it the current one of the running task or context, until that ends."""

    def current(self) -> tuple[str, str] | None:
        """`traceparent` and `tracestate` of the current one; None if there is none."""


@dataclass(slots=True)
class TracedContext(RequestContext):
    """Calls that are made for the request are below the span that is current then: user code may open its own."""

    span: Span | None = None
    spans: CurrentSpans | None = None

    def for_child(self, multiplexed_model_id: str, tenant: str = "", route: str = "") -> RequestContext:
        current = self.spans.current() if self.spans is not None else None
        traceparent, tracestate = current or (self.traceparent, self.tracestate)
        return RequestContext(
            self.request_id or new_request_id(),
            route or self.route,
            self.app,
            multiplexed_model_id,
            traceparent,
            tracestate,
            self.identity,
            tenant or self.tenant,
            self.track,
            self.origin or self,
        )

    def attach(self) -> None:
        """Make its span the current one of the running task or thread's context."""
        if self.spans is not None and self.span is not None:
            self.spans.attach(self.span)

    def record(self, error: BaseException) -> None:
        """Note in its span that user code has raised, if that has not ended."""
        if self.span is not None and self.span.is_recording():
            record_error(self.span, error)


def record_error(span: Span, error: BaseException) -> None:
    """Note an exception of user code in a span, if it can be described."""
    with contextlib.suppress(BaseException):  # the user's __str__
        span.record_exception(error)
