"""Executions of a replica that makes spans: each call has one, from its admission to its outcome.

It is the current span of the user's code, so spans that the code opens itself, and calls that it makes, are below it.
"""

from __future__ import annotations

import time
from typing import Any

from mesh.link.callee_link import IncomingCall, RunningCall
from mesh.replica.execution import Execution
from mesh.replica.executor import Executor
from mesh.replica.web_execution import WebExecution
from mesh.routing.snapshot import DeploymentKey
from mesh.tracing.span_maker import SERVER, SpanMaker
from mesh.tracing.traced_context import TracedContext
from mesh.tracing.traced_router import call_attributes, plain_name
from mesh.wire.outcome import Outcome


class TracedExecution(Execution):
    """Its request has a `TracedContext`."""

    __slots__ = ()

    async def _run(self) -> None:
        _attach(self.request.context)
        await super()._run()

    def _run_in_thread(self) -> None:
        _attach(self.request.context)
        super()._run_in_thread()


class TracedWebExecution(WebExecution):
    """The same."""

    __slots__ = ()

    async def _run(self) -> None:
        _attach(self.request.context)
        await super()._run()

    def _end(self, error: BaseException | None) -> None:
        context = self.request.context
        # Frameworks answer 500 and raise behind it: the outcome knows nothing of that.
        if error is not None and isinstance(context, TracedContext) and self.request.cancel_reason is None:
            context.record(error)
        super()._end(error)


class TracedExecutor(Executor):
    """Begins and ends the spans. I/O loop only."""

    execution_type = TracedExecution
    web_execution_type = TracedWebExecution

    def __init__(self, spans: SpanMaker, key: DeploymentKey, *args: Any) -> None:
        self._spans = spans
        self._key = key
        super().__init__(*args)

    def start(self, call: IncomingCall) -> RunningCall | None:
        request = call.request
        name = f"{self._key.name}/{plain_name(request.method)}"
        attributes = call_attributes(self._key, request.method, request.context)
        age_s = time.monotonic() - call.started_at_s
        span = self._spans.begin(name, SERVER, request.context, attributes, age_s=age_s)
        request.context = self._spans.served(span, request.context)
        return super().start(call)

    def _end(self, call: IncomingCall, outcome: Outcome) -> None:
        super()._end(call, outcome)
        context = call.request.context
        if isinstance(context, TracedContext) and context.span is not None:
            self._spans.end(context.span, SERVER, outcome)


def _attach(context: object) -> None:
    if isinstance(context, TracedContext):
        context.attach()
