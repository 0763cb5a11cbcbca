"""`NodeGateway`: the gateway of one node, and the order in which its parts start and stop. I/O loop only."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from gateway.dialects.served_method import CallRouter
from gateway.gateway_listener import ConnectionRules, GatewayListener
from gateway.gateway_ports import GatewayPorts
from gateway.http1.http1_limits import Http1Limits
from gateway.listener_phase import ListenerPhase
from gateway.ops.built_in_services import PUBLIC_SERVICES, BuiltInServices
from gateway.ops.connections_page import connections_page
from gateway.ops.grpc_health import Health, named_states
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.ops.grpc_reflection import Reflection
from gateway.ops.node_metrics import NodeMetrics
from gateway.ops.operators import Operations, OperatorsDialect
from gateway.ops.serve_api import ServeApi
from gateway.requests.cors import CorsPolicy
from gateway.requests.routes import NO_ROUTES, RoutedApplication, Routes, read_routes
from gateway.security import Security
from gateway.typed_entry import TypedEntry
from gateway.web_entry import WebEntry
from mesh.exceptions import MeshException
from mesh.http2.upkeep import UpkeepPolicy
from mesh.options.calls.call_policies import read_policies
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.tracing.trace_export import flush_spans
from mesh.v1 import control_pb2
from mesh.wire import telemetry
from mesh.wire.telemetry import GAUGE, Family, Sample

logger = logging.getLogger("mesh.gateway")

CONTROLLER_CONNECTED = Family(
    "mesh_gateway_controller_connected", GAUGE, "Gateways of the node that the controller answers: 1 or 0."
)
CONNECTIONS = Family("mesh_gateway_grpc_connections", GAUGE, "Client connections of HTTP/2, gRPC or not.")
HTTP1_CONNECTIONS = Family("mesh_gateway_http1_connections", GAUGE, "Client connections of HTTP/1.1.")
EXCHANGES = Family("mesh_gateway_http_ongoing_exchanges", GAUGE, "Requests in progress that are not gRPC.")
BUFFERED = Family(
    "mesh_gateway_grpc_buffered_bytes",
    GAUGE,
    "Bytes of messages that wait in the gateway, see MESH_GATEWAY_BUFFER_MAX_BYTES.",
)


class ReplicaRouter(CallRouter, Protocol):
    """A router that knows whether calls can be answered: there are replicas, or the first call starts one."""

    @property
    def can_serve(self) -> bool: ...


class GatewayProcess(Protocol):
    """What the gateway needs of its process; implemented by mesh.membership.mesh_process."""

    @property
    def peers(self) -> Sequence[control_pb2.Peer]:
        """The other processes of the mesh on this node."""

    @property
    def has_controller(self) -> bool:
        """Whether the controller answers."""

    def use(self, key: DeploymentKey, user: object) -> ReplicaRouter:
        """The router of a deployment. It stays at least while `user` lives."""

    def on_routes(self, callback: Callable[[control_pb2.RouteTable], None]) -> None:
        """Call `callback` with every route table, first with the one that has already arrived, if any."""

    def on_replicas(self, callback: Callable[[], None]) -> None:
        """Call `callback` when a router may have other replicas than before."""


class NodeGateway:
    """Opens the ports, serves by the route tables that arrive, and drains."""

    def __init__(self, spec: control_pb2.GatewaySpec, process: GatewayProcess, node_ip: str) -> None:
        options = spec.options
        self._spec = spec
        self._process = process
        self._routes: Routes = NO_ROUTES
        self.health = Health()
        self.metrics = GrpcMetrics()
        self._node_metrics = NodeMetrics(lambda: process.peers, lambda: self.metrics.applications)
        built_in = self._built_in_services()
        self.listener = GatewayListener(
            process.use,
            self.metrics,
            built_in,
            timeout_s=options.request_timeout_s if options.HasField("request_timeout_s") else None,
            rules=ConnectionRules(
                upkeep=_upkeep_policy(options), http1=_http1_limits(options), root_path=options.http_root_path
            ),
        )
        self.listener.methods.policies = read_policies(options)
        self._typed = TypedEntry(self.listener.methods, built_in, root_path=options.http_root_path)
        self._web = WebEntry(process.use, options)
        self.listener.add_dialects(
            self._typed.docs,
            OperatorsDialect(self._operations()),
            *self._typed.dialects,
            *self._web.dialects,
        )
        self.listener.cors.policy = _cors_policy(options)
        self.listener.cors.calls_method = self._typed.calls_method
        self._security = Security(options)
        self.ports = GatewayPorts(spec, node_ip, self.listener)

    def __repr__(self) -> str:
        return f"<NodeGateway {self._spec.gateway_id} {self.listener.phase.name} node={self._spec.node_id}>"

    async def start(self) -> control_pb2.GatewayReady:
        """Open the ports. Raises OSError with the name of a port that is taken; then no port stays open.

        Raises ValueError, OSError or ImportError naming the option for files and functions that cannot be used.
        """
        spec = self._spec
        try:
            await self._security.load()
            self.listener.guard = self._security.guard(self.metrics.in_flight)
            if spec.takes_over:
                # Clients of the gateway that it replaces must not be refused. The controller ends a start that hangs.
                await self._routed()
            addresses = await self.ports.open(self._security)
        except (OSError, ValueError, ImportError, TypeError):
            await self.close()
            raise
        telemetry.register(self._collect)
        if not spec.takes_over:
            self._process.on_routes(self._take_routes)
        self._process.on_replicas(self._show_health)
        self._show_health()
        return control_pb2.GatewayReady(
            gateway_id=spec.gateway_id,
            node_id=spec.node_id,
            index=spec.index,
            revision=spec.revision,
            pid=os.getpid(),
            grpc_address=addresses.get("grpc", ""),
            http_address=addresses.get("http", ""),
        )

    def offer_ports(self) -> str:
        """Where a gateway that is to replace this one gets its listening sockets."""
        return self.ports.offer()

    async def drain(self) -> None:
        """Report NOT_SERVING, serve on while balancers notice, then let clients go elsewhere and close the ports.

        No call of a connected client fails: until its connection has told it to open new calls elsewhere, they are
        served here, and calls in progress end. Where another gateway serves on the same ports, nothing is reported.
        """
        if not self.ports.is_replaced:
            self.health.set_not_serving()
        self.listener.announce_drain()
        self.ports.leave()
        await asyncio.sleep(settings().gateway.lame_duck_s)
        self.listener.drain()
        self._typed.drain()
        self._web.drain()
        timeout_s = settings().gateway.drain_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self.listener.idle()
        except TimeoutError:
            logger.warning(
                "%r: ending %d calls and %d HTTP requests that are in progress %g s after the drain began",
                self,
                self.metrics.in_flight.count,
                self.listener.exchanges,
                timeout_s,
            )
        await self.close()

    async def close(self) -> None:
        """Close the ports. Calls in progress end after a short grace period."""
        self.health.close()
        self.ports.close()
        await self.listener.stop(settings().gateway.stop_grace_s)
        await self._node_metrics.close()
        await self._security.close()
        telemetry.unregister(self._collect)
        await flush_spans()

    async def check_health(self) -> None:
        """Raises MeshException when a port is closed. Callers need a timeout for an I/O loop that hangs."""
        if not self.listener.server.sockets.is_listening and self.listener.phase is not ListenerPhase.DRAINING:
            raise MeshException("A port of the gateway is closed.")

    def why_unhealthy(self) -> str:
        """Why clients should use another gateway; empty when this one serves."""
        match self.listener.phase:
            case ListenerPhase.DRAINING:
                return "" if self.ports.is_replaced else "This node is being drained."
            case ListenerPhase.WAITING:
                return "Route table is not populated yet."
        called = [each for each in self._routes.applications.values() if each.methods or each.serves_web]
        if called and not any(map(self._can_serve, called)):
            return "No replicas are available yet."
        return ""

    def _collect(self) -> Iterator[tuple[Family, list[Sample]]]:
        yield from self.metrics.collect()
        yield from self._web.collect()
        yield CONTROLLER_CONNECTED, [Sample((), float(self._process.has_controller))]
        yield CONNECTIONS, [Sample((), self.listener.connections - self.listener.server.http1_connections)]
        yield HTTP1_CONNECTIONS, [Sample((), self.listener.server.http1_connections)]
        yield EXCHANGES, [Sample((), self.listener.exchanges)]
        yield BUFFERED, [Sample((), self.listener.buffered_bytes)]
        yield from self._security.collect()

    async def _routed(self) -> None:
        """Until there are routes."""
        arrived = asyncio.Event()

        def take(table: control_pb2.RouteTable) -> None:
            self._take_routes(table)
            arrived.set()

        self._process.on_routes(take)
        await arrived.wait()

    def _take_routes(self, table: control_pb2.RouteTable) -> None:
        self._routes = routes = read_routes(table, self._routes)
        self.listener.set_routes(routes)
        self._typed.set_routes(routes)
        self.metrics.set_applications(routes.applications)
        self._web.set_routes(routes, self.metrics.applications)
        self._show_health()

    def _show_health(self) -> None:
        if self.listener.phase is ListenerPhase.SERVING:
            states = named_states(self._routes, self._can_serve)
            self.health.set_serving(states | dict.fromkeys((each.full_name for each in PUBLIC_SERVICES), True))

    def _can_serve(self, application: RoutedApplication) -> bool:
        return self._process.use(application.ingress, self._routes).can_serve

    def _built_in_services(self) -> BuiltInServices:
        reflection = Reflection(lambda: self._routes)
        serve_api = ServeApi(self.why_unhealthy, lambda: self._routes.applications)
        with_reflection = not self._spec.options.HasField("has_reflection") or self._spec.options.has_reflection
        handlers = [self.health.handler(), serve_api.handler(), *(reflection.handlers() if with_reflection else ())]
        return BuiltInServices(handlers)

    def _operations(self) -> Operations:
        return Operations(
            why_unhealthy=self.why_unhealthy,
            routes=lambda: {
                each.route_prefix: each.name for each in self._routes.applications.values() if each.route_prefix
            },
            scrape=self._node_metrics.scrape,
            connections=lambda: connections_page(self.listener.server.client_connections, self._spec.gateway_id),
        )


def _cors_policy(options: control_pb2.GatewayOptions) -> CorsPolicy | None:
    if not options.HasField("cors"):
        return None
    cors = options.cors
    return CorsPolicy(
        origins=cors.origins,
        methods=cors.methods,
        headers=cors.headers,
        has_credentials=cors.has_credentials,
        max_age_s=cors.max_age_s,
    )


def _upkeep_policy(options: control_pb2.GatewayOptions) -> UpkeepPolicy:
    usual = UpkeepPolicy()
    return UpkeepPolicy(
        keepalive_after_s=_given(options, "keepalive_s", usual.keepalive_after_s),
        keepalive_timeout_s=_given(options, "keepalive_timeout_s", usual.keepalive_timeout_s),
        body_timeout_s=settings().gateway.http_body_timeout_s,
        body_min_bytes=_body_min_bytes(),
        idle_timeout_s=_given(options, "max_connection_idle_s", math.inf),
        age_max_s=_given(options, "max_connection_age_s", math.inf),
        # A gateway that ends has a limit of its own, see NodeGateway.drain.
        drain_timeout_s=_given(options, "max_connection_age_grace_s", math.inf),
    )


def _http1_limits(options: control_pb2.GatewayOptions) -> Http1Limits:
    return Http1Limits(
        fields_max_bytes=settings().gateway.metadata_max_bytes,
        body_timeout_s=settings().gateway.http_body_timeout_s,
        body_min_bytes=_body_min_bytes(),
        keep_alive_timeout_s=_given(options, "http_keep_alive_timeout_s", Http1Limits().keep_alive_timeout_s),
    )


def _given(options: control_pb2.GatewayOptions, name: str, otherwise: float) -> float:
    return getattr(options, name) if options.HasField(name) else otherwise


def _body_min_bytes() -> int:
    limits = settings().gateway
    return max(1, math.ceil(limits.http_body_rate_min_bytes_per_s * limits.http_body_timeout_s))
