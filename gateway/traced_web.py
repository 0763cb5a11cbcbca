"""Web requests and WebSockets of a gateway that makes spans: each has one, from its head to the end of its answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.dialects.web import NewWebCall, WebCall
from gateway.dialects.web_target import RoutedHead, WebTarget
from gateway.dialects.websocket import NewSocketCall, WebSocketCall
from gateway.ops.http_metrics import WEBSOCKET
from gateway.requests.exchange import Exchange
from gateway.requests.mesh_headers import MeshHeaders
from gateway.requests.web_status import INTERNAL_ERROR
from gateway.websockets.websocket_keeper import WebSocketKeeper
from mesh.tracing.span_maker import SERVER, SpanMaker
from mesh.wire.request_context import RequestContext

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class TracedWebCall(WebCall):
    """A web request with a span; its call on the mesh is below that."""

    __slots__ = ("_span", "_spans")

    def __init__(self, spans: SpanMaker, exchange: Exchange, target: WebTarget, routed: RoutedHead) -> None:
        super().__init__(exchange, target, routed)
        self._spans = spans
        self._span = _begin(spans, exchange.head.method, exchange, target, self._context)
        self._context = spans.below(self._span, self._context)

    def _count(self, status: int, pattern: str = "") -> None:
        super()._count(status, pattern)
        if self._download is not None:
            pattern = self._download.pattern
        _name(self._span, self._exchange.head.method, self._target.route_of(pattern))
        _end(self._spans, self._span, status)


class TracedSocketCall(WebSocketCall):
    """A WebSocket with a span."""

    __slots__ = ("_span", "_spans")

    def __init__(
        self, spans: SpanMaker, exchange: Exchange, target: WebTarget, headers: MeshHeaders, keeper: WebSocketKeeper
    ) -> None:
        super().__init__(exchange, target, headers, keeper)
        self._spans = spans
        self._span = _begin(spans, WEBSOCKET, exchange, target, self._context)
        self._context = spans.below(self._span, self._context)

    def _count(self) -> None:
        status, pattern = self._answered
        super()._count()
        _name(self._span, WEBSOCKET, self._target.route_of(pattern))
        _end(self._spans, self._span, status)


def traced_calls(spans: SpanMaker | None) -> tuple[NewWebCall | None, NewSocketCall | None]:
    """What makes the calls of the two dialects; None for both where tracing is off."""
    return (None, None) if spans is None else (partial(TracedWebCall, spans), partial(TracedSocketCall, spans))


def _begin(spans: SpanMaker, verb: str, exchange: Exchange, target: WebTarget, context: RequestContext) -> Span:
    head = exchange.head
    attributes = {
        "http.request.method": head.method,
        "http.route": target.route_prefix,
        "url.path": head.path,
        "client.address": head.peer,
        "mesh.application": target.application,
        "mesh.request_id": context.request_id,
    }
    return spans.begin(f"{verb} {target.route_prefix}", SERVER, context, attributes)


def _name(span: Span, verb: str, route: str) -> None:
    """By what the application has said about its route."""
    span.update_name(f"{verb} {route}")
    span.set_attribute("http.route", route)


def _end(spans: SpanMaker, span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= INTERNAL_ERROR:
        spans.fail(span, str(status), "")
    span.end()
