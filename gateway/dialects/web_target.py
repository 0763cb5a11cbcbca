"""What serves a web request: the ingress deployment whose route prefix fits its path."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from gateway.dialects.served_method import CallCount, CallRouter
from gateway.ops.grpc_metrics import OTHER
from gateway.ops.http_metrics import WEBSOCKET, ApplicationWebStats, HttpMetrics
from gateway.ops.web_access_log import log_web_access
from gateway.requests.dialect_list import retry_after_field
from gateway.requests.exchange import Exchange, HttpHead
from gateway.requests.mesh_headers import MeshHeaders, read_mesh_headers, tenant_of, timeout_of
from gateway.requests.model_ids import model_id_of_path
from gateway.requests.route_prefixes import RoutePrefixes, decoded_path
from gateway.requests.routes import Refusal, RoutedApplication, Routes
from gateway.requests.trusted_proxies import TrustedProxies
from gateway.requests.web_encoding import encode_head
from gateway.requests.web_status import WebFailure, send_failure, too_large
from mesh.routing.choice.traffic_split import TrafficRule
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.wire.identity import Identity
from mesh.wire.request_context import RequestContext, new_request_id

_PATTERNS_KEPT = 1_024
_ECHO_MAX_CHARS = 100
"""A path is cut to this length in messages."""
_WAITING = WebFailure(503, "Route table is not populated yet. Retry, or ask /-/healthz first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """What `http_options` say about web requests."""

    root_path: str = ""
    """Where a proxy in front has mounted the mesh; without "/" at the end."""
    timeout_s: float = math.inf
    """Maximum duration of a request."""
    has_access_log: bool = False
    """Each request is logged when it has ended."""
    proxies: TrustedProxies | None = None
    """Proxies in front that say whom a request comes from."""


@dataclass(slots=True, eq=False)
class WebTarget:
    """What all web requests to one application share; made once per version of the routes."""

    application: str
    route_prefix: str
    root_path: str
    """Where the application is mounted, as ASGI says it: without "/" at the end."""
    router: CallRouter
    stats: ApplicationWebStats
    in_flight: CallCount
    options: WebOptions
    model_id_paths: tuple[str, ...] = ()
    """Beginnings of paths below the route prefix that name the multiplexed model."""
    traffic: TrafficRule | None = None
    """Which requests a canary of the application gets."""
    identity: Identity | None = None
    """Whose requests these are, where the gateway asks."""

    @property
    def full_name(self) -> str:
        """As limits name it."""
        return self.route_prefix

    def seen(self, head: HttpHead) -> HttpHead:
        """The head as the application sees it."""
        proxies = self.options.proxies
        return head if proxies is None else proxies.original(head)

    def route_of(self, pattern: str) -> str:
        """The route that served a request, as metrics and logs name it. `pattern`: the application's own, or empty."""
        return _full_pattern(self.route_prefix, pattern) if pattern else self.route_prefix

    def model_id_of(self, raw_path: str, headers: MeshHeaders) -> str:
        """The multiplexed model that a request is for, by its header or else by its path of `WebTargets.path_of`."""
        if headers.multiplexed_model_id or not self.model_id_paths:
            return headers.multiplexed_model_id
        return model_id_of_path(raw_path, self.root_path.count("/"), self.model_id_paths)

    def track_of(self, head: HttpHead) -> str:
        """For the context of a request whose header fields send it to a canary; empty for all others."""
        traffic = self.traffic
        if traffic is None or not traffic.header:
            return ""
        name = traffic.header.encode()
        values = (value.decode("latin-1") for each, value in head.fields if each == name)
        return traffic.canary_track if any(traffic.matches(traffic.header, value) for value in values) else ""

    def context_of(self, head: HttpHead, headers: MeshHeaders, model_id: str) -> RequestContext:
        """The context of a request with that head; `model_id` empty: any."""
        return RequestContext(
            headers.request_id or new_request_id(),
            self.route_prefix,
            self.application,
            model_id,
            headers.traceparent,
            headers.tracestate,
            self.identity,
            tenant_of(headers.tenant, self.identity),
            self.track_of(head),
        )

    def timeout_for(self, headers: MeshHeaders) -> float:
        """Seconds that a request may take; infinite if there is no limit. Raises ValueError for a wrong header."""
        if not headers.timeout:
            return self.options.timeout_s
        return min(timeout_of(headers.timeout), self.options.timeout_s)


@dataclass(slots=True, eq=False)
class RoutedHead:
    """What all requests with one head have in common; made once for a connection that repeats it."""

    routes: object
    """The routes that it was made with."""
    target: WebTarget
    headers: MeshHeaders
    model_id: str
    """The multiplexed model that they are for; empty: any."""
    timeout_s: float
    """How long they may take; infinite if there is no limit."""
    encoded: bytes
    """Of `encode_head`."""


class WebTargets:
    """All targets of the current routes. I/O loop only."""

    def __init__(
        self,
        router_for: Callable[[DeploymentKey, object], CallRouter],
        metrics: HttpMetrics,
        options: WebOptions | None = None,
    ) -> None:
        """`router_for` gives the router of a deployment, which stays while the second argument lives."""
        self.metrics = metrics
        self.options = options or WebOptions()
        self._router_for = router_for
        self._prefixes: RoutePrefixes[WebTarget | WebFailure] | None = None

    def set_routes(self, routes: Routes) -> None:
        """Use these routes for new requests."""
        applications = [each for each in routes.applications.values() if each.route_prefix]
        self._prefixes = RoutePrefixes((each.route_prefix, self._target(each, routes)) for each in applications)

    def path_of(self, head: HttpHead) -> str:
        """The path as applications see it, percent-encoded."""
        return self.options.root_path + head.path

    def find(self, path: str) -> WebTarget | WebFailure:
        """What serves a path of `path_of`."""
        if self._prefixes is None:
            return _WAITING
        below_root = path[len(self.options.root_path) :]
        return self._prefixes.find(decoded_path(below_root)) or _unknown(below_root)

    def routed(self, exchange: Exchange) -> RoutedHead | None:
        """What serves a request, and with what; None if it has been answered."""
        head = exchange.head
        known: RoutedHead | None = head.readings.get(self)
        if known is None or known.routes is not self._prefixes:
            known = self._route(exchange)
            if known is not None:
                head.readings[self] = known
        return known

    def admit(self, target: WebTarget, exchange: Exchange) -> WebTarget | WebFailure:
        """What serves one request that is to begin now; a failure if its caller is above a limit."""
        found: WebTarget | Refusal = target if exchange.caller is None else exchange.caller.admit(target)
        return _above_limit(found) if isinstance(found, Refusal) else found

    def refuse(
        self, exchange: Exchange, failure: WebFailure, headers: MeshHeaders, target: WebTarget | None = None
    ) -> None:
        """Answer a request that makes no call. `target`: which it was for, if any."""
        request_id = headers.request_id or new_request_id()
        send_failure(exchange, failure, request_id)
        head = exchange.head
        method = WEBSOCKET if head.is_websocket else head.method
        route = OTHER if target is None else target.route_prefix
        stats = self.metrics.of("") if target is None else target.stats
        stats.end(route, method, failure.status, 0.0)
        if self.options.has_access_log:
            log_web_access(method, head.path if target is None else route, failure.status, 0.0, request_id)

    def _route(self, exchange: Exchange) -> RoutedHead | None:
        head = exchange.head
        headers = read_mesh_headers(head.fields)
        raw_path = self.path_of(head)
        target = self.find(raw_path)
        if isinstance(target, WebFailure):
            self.refuse(exchange, target, headers)
            return None
        try:
            timeout_s = target.timeout_for(headers)
        except ValueError as error:
            self.refuse(exchange, WebFailure(400, str(error)), headers, target)
            return None
        if head.content_length is not None and head.content_length > body_max_bytes():
            self.refuse(exchange, too_large(body_max_bytes()), headers, target)
            return None
        encoded = encode_head(target.seen(head), raw_path, target.root_path)
        return RoutedHead(self._prefixes, target, headers, target.model_id_of(raw_path, headers), timeout_s, encoded)

    def _target(self, application: RoutedApplication, routes: Routes) -> WebTarget | WebFailure:
        if not application.serves_web:
            return _not_web(application)
        return WebTarget(
            application.name,
            application.route_prefix,
            self.options.root_path + application.route_prefix.rstrip("/"),
            self._router_for(application.ingress, routes),
            self.metrics.of(application.name),
            self.metrics.in_flight,
            self.options,
            application.model_id_paths,
            application.traffic,
        )


def body_max_bytes() -> int:
    """Size of the body of one request."""
    return settings().gateway.http_body_max_bytes


@lru_cache(_PATTERNS_KEPT)
def _full_pattern(route_prefix: str, pattern: str) -> str:
    return route_prefix.rstrip("/") + pattern


def _above_limit(refusal: Refusal) -> WebFailure:
    fields = () if refusal.retry_after_s is None else (retry_after_field(refusal.retry_after_s),)
    return WebFailure(429, refusal.message, fields)


def _unknown(path: str) -> WebFailure:
    shown = path if len(path) <= _ECHO_MAX_CHARS else path[:_ECHO_MAX_CHARS] + "…"
    return WebFailure(404, f"Path '{shown}' not found. GET /-/routes lists the route prefixes of applications.")


def _not_web(application: RoutedApplication) -> WebFailure:
    return WebFailure(
        404,
        f"Application '{application.name}' at '{application.route_prefix}' takes no web requests: give its ingress "
        "deployment a __call__ method, or @mesh.ingress with an ASGI application. Its gRPC methods are served.",
    )
