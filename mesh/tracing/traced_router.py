"""`TracedRouter`: a router whose calls have spans. I/O loop only.

A call has one span from its submission to its outcome, and one below it for its time in the queue if it had to wait.
What the replica does is below the first one too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mesh.link.outgoing_call import OutgoingCall
from mesh.routing.link_pool import CallerIdentity
from mesh.routing.router import Router
from mesh.routing.snapshot import DeploymentKey
from mesh.tracing.span_maker import CLIENT, INTERNAL, SERVER, SpanMaker
from mesh.wire.outcome import Outcome
from mesh.wire.request_context import RequestContext
from mesh.wire.web_messages import WEB_METHOD

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class TracedRouter(Router):
    """A router of any process."""

    def __init__(
        self,
        key: DeploymentKey,
        identity: CallerIdentity,
        on_no_replica: Callable[[Router], None],
        spans: SpanMaker,
    ) -> None:
        super().__init__(key, identity, on_no_replica)
        self._spans = spans
        self.open_spans: dict[int, Span] = {}
        """By id of a call that is on its way."""

    def submit(self, call: OutgoingCall) -> None:
        request = call.request
        span = self._spans.begin(
            f"{self.key.name}/{plain_name(request.method)}",
            CLIENT,
            request.context,
            call_attributes(self.key, request.method, request.context),
            age_s=time.monotonic() - call.started_at_s,
        )
        request.context = self._spans.below(span, request.context)
        self.open_spans[call.call_id] = span
        super().submit(call)

    def _finish(self, call: OutgoingCall, outcome: Outcome) -> None:
        span = self.open_spans.pop(call.call_id, None)
        super()._finish(call, outcome)
        if span is None:
            return
        if call.waited_s > 0:
            self._add_queue_span(call)
        if call.failed_attempts:
            span.set_attribute("mesh.failed_attempts", call.failed_attempts)
        self._spans.end(span, CLIENT, outcome)

    def _add_queue_span(self, call: OutgoingCall) -> None:
        """The wait is known only when it is over."""
        age_s = time.monotonic() - call.started_at_s
        queue = self._spans.begin("queue", INTERNAL, call.request.context, {}, age_s=age_s)
        queue.end(time.time_ns() - int((age_s - call.waited_s) * 1e9))


class EntryRouter(TracedRouter):
    """A router of a gateway: calls of typed methods have one more span, as clients see the method.

    Web requests have theirs from the dialect, which knows their statuses.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._entries: dict[int, Span] = {}
        """By id of a call that is on its way."""

    def submit(self, call: OutgoingCall) -> None:
        request = call.request
        if request.method != WEB_METHOD:
            attributes = call_attributes(self.key, request.method, request.context)
            attributes["client.address"] = request.peer
            age_s = time.monotonic() - call.started_at_s
            span = self._spans.begin(request.method.lstrip("/"), SERVER, request.context, attributes, age_s=age_s)
            request.context = self._spans.below(span, request.context)
            self._entries[call.call_id] = span
        super().submit(call)

    def _finish(self, call: OutgoingCall, outcome: Outcome) -> None:
        span = self._entries.pop(call.call_id, None)
        super()._finish(call, outcome)
        if span is not None:
            self._spans.end(span, SERVER, outcome)


def call_attributes(key: DeploymentKey, method: str, context: RequestContext) -> dict[str, Any]:
    """What the spans of a call say of it."""
    attributes = {
        "rpc.system.name": "grpc",
        "rpc.method": plain_name(method),
        "mesh.application": key.app,
        "mesh.deployment": key.name,
        "mesh.request_id": context.request_id,
    }
    if context.multiplexed_model_id:
        attributes["mesh.model_id"] = context.multiplexed_model_id
    return attributes


def plain_name(method: str) -> str:
    """A method as spans name it."""
    return method.lstrip("/@")
