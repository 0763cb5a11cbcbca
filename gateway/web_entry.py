"""`WebEntry`: web requests and WebSockets of a gateway, with their routes and counts. I/O loop only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from gateway.dialects.served_method import CallRouter
from gateway.dialects.web import WebDialect
from gateway.dialects.web_target import WebOptions, WebTargets
from gateway.dialects.websocket import WebSocketDialect
from gateway.ops.http_metrics import HttpMetrics
from gateway.requests.dialect_list import Dialect
from gateway.requests.routes import Routes
from gateway.requests.trusted_proxies import TrustedProxies
from gateway.traced_web import traced_calls
from mesh.options.logging_options import logging_of_mesh
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.tracing.trace_export import span_maker
from mesh.v1 import control_pb2
from mesh.wire.telemetry import Family, Sample


class WebEntry:
    """The part of a gateway that serves what is neither a gRPC method nor for operators."""

    def __init__(
        self, router_for: Callable[[DeploymentKey, object], CallRouter], options: control_pb2.GatewayOptions
    ) -> None:
        """`router_for` gives the router of a deployment, which stays while the second argument lives."""
        self._metrics = HttpMetrics()
        self._targets = WebTargets(router_for, self._metrics, web_options(options))
        new_request, new_socket = traced_calls(span_maker())
        self._websockets = WebSocketDialect(self._targets, new_socket)
        self._requests = WebDialect(self._targets, new_request)

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """For the end of the list: together they claim everything."""
        return self._websockets, self._requests

    def set_routes(self, routes: Routes, counted: Iterable[str]) -> None:
        """Use these routes for new requests. `counted`: the applications that have metric series of their own."""
        self._metrics.keep(counted)
        self._targets.set_routes(routes)

    def drain(self) -> None:
        """Close all WebSockets. Requests in progress are not touched."""
        self._websockets.drain()

    def collect(self) -> Iterator[tuple[Family, list[Sample]]]:
        """As a source of mesh.wire.telemetry."""
        yield from self._metrics.collect()


def web_options(options: control_pb2.GatewayOptions) -> WebOptions:
    """What the options of a gateway say about web requests."""
    proxies = settings().gateway.trusted_proxies
    return WebOptions(
        root_path=options.http_root_path,
        timeout_s=options.http_request_timeout_s if options.HasField("http_request_timeout_s") else math.inf,
        has_access_log=logging_of_mesh(options).has_access_log,
        proxies=TrustedProxies(proxies) if proxies else None,
    )
