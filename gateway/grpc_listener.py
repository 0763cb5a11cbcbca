"""The gRPC port of a gateway: one generic handler that finds the method of every call by one dict look-up.

It is a generic handler because registered methods would cost grpc.aio's accept loop a waiter per method and call, and a
new service would need a restart. What serves a method is looked up once and kept until the routes change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from gateway.dialects.grpc_call import GrpcCall, RefusedCall, UnaryUnaryCall
from gateway.dialects.grpc_metadata import Invocation, read_invocation
from gateway.dialects.grpc_streams import StreamStreamCall, StreamUnaryCall, UnaryStreamCall
from gateway.dialects.served_method import CallRouter, ServedMethod
from gateway.listener_phase import LISTENER_TRANSITIONS, ListenerEvent, ListenerPhase
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import NO_ROUTES, UNAVAILABLE, Refusal, Route, Routes
from mesh.phases.transitions import next_state
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.wire.endpoints import start_server

logger = logging.getLogger("mesh.gateway")

MESSAGE_MAX_BYTES = 2**31 - 1
"""gRPC's own limit. It applies where the options set none, so that the gateway accepts all that links can carry."""

_CALL_TYPES: dict[tuple[bool, bool], type[GrpcCall]] = {
    (False, False): UnaryUnaryCall,
    (False, True): UnaryStreamCall,
    (True, False): StreamUnaryCall,
    (True, True): StreamStreamCall,
}

_REFUSALS = {
    ListenerPhase.WAITING: Refusal(
        UNAVAILABLE, "This gateway has not received its routes yet. Retry, or ask its health service first."
    ),
    ListenerPhase.DRAINING: Refusal(UNAVAILABLE, "This gateway is draining. Retry on another gateway."),
}
"""What new calls get in each phase but SERVING."""


class GrpcListener(grpc.GenericRpcHandler):
    """Serves all gRPC calls of one port, as grpc.aio's one generic handler. I/O loop only."""

    def __init__(
        self,
        router_for: Callable[[DeploymentKey, object], CallRouter],
        metrics: GrpcMetrics,
        built_in: grpc.GenericRpcHandler,
        *,
        timeout_s: float | None = None,
    ) -> None:
        """`router_for` gives the router of a deployment, which stays while the second argument lives.

        `built_in` handles the gateway's own services; they come before those of applications.
        """
        self._router_for = router_for
        self._metrics = metrics
        self._built_in = built_in
        self._timeout_s = timeout_s
        self._routes = NO_ROUTES
        self._phase = ListenerPhase.WAITING
        # By (application or None, full method name). It only holds methods of the routes, so clients cannot fill it.
        self._served: dict[tuple[str | None, str], tuple[type[GrpcCall], ServedMethod]] = {}
        self._server: grpc.aio.Server | None = None

    @property
    def phase(self) -> ListenerPhase:
        """Also the phase of the whole gateway."""
        return self._phase

    def __repr__(self) -> str:
        return f"<GrpcListener {self._phase.name} applications={len(self._routes.applications)}>"

    async def start(self, host: str, port: int, message_max_bytes: int = 0) -> int:
        """Listen; returns the port. Raises OSError naming the port when it is taken."""
        self._server, bound = await start_server([self], host, port, options=_server_options(message_max_bytes))
        return bound

    def set_routes(self, routes: Routes) -> None:
        """Use these routes for new calls. Calls in progress are not touched."""
        self._routes = routes
        self._served = {}
        self._change_phase(ListenerEvent.ROUTES, f"route table {routes.version} has arrived")
        for application in routes.applications.values():
            if application.methods:
                # Make the router now, so that the first call does not wait for the list of replicas.
                self._router_for(application.ingress, routes)

    def refuse_new_calls(self) -> None:
        """Drain: calls in progress go on, new ones are refused as UNAVAILABLE."""
        self._served = {}
        self._change_phase(ListenerEvent.DRAIN, f"{self._metrics.in_flight.count} calls in progress")

    async def stop(self, grace_s: float) -> None:
        """Close the port and end the calls that are still in progress after `grace_s`."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of one call; grpc.aio asks for it."""
        invocation = read_invocation(handler_call_details.invocation_metadata)
        served = self._served.get((invocation.application, handler_call_details.method))
        if served is None:
            return self._look_up(handler_call_details, invocation)
        call_type, method = served
        return call_type(method, invocation)

    def _look_up(self, details: grpc.HandlerCallDetails, invocation: Invocation) -> Any:
        built_in = self._built_in.service(details)
        if built_in is not None:
            return built_in
        found = _REFUSALS.get(self._phase) or self._routes.find(invocation.application, details.method)
        if isinstance(found, Refusal):
            stats = self._metrics.of_refused(found.application)
            return RefusedCall(found, stats, invocation.context.request_id)
        call_type, method = self._serve(found)
        self._served[invocation.application, details.method] = call_type, method
        return call_type(method, invocation)

    def _serve(self, route: Route) -> tuple[type[GrpcCall], ServedMethod]:
        return _CALL_TYPES[route.streams_request, route.streams_response], ServedMethod(
            full_name=route.full_name,
            application=route.deployment.app,
            router=self._router_for(route.deployment, self._routes),
            stats=self._metrics.of_route(route),
            in_flight=self._metrics.in_flight,
            timeout_s=self._timeout_s,
        )

    def _change_phase(self, event: ListenerEvent, reason: str) -> None:
        before, self._phase = self._phase, next_state(LISTENER_TRANSITIONS, self._phase, event)
        if self._phase is not before:
            logger.info("gRPC listener: %s -> %s, %s", before.name, self._phase.name, reason)


def _server_options(message_max_bytes: int) -> tuple[tuple[str, int], ...]:
    metadata_max_bytes = settings().gateway.metadata_max_bytes
    # Refuse messages that links cannot carry here, where gRPC has a status for it.
    carried_max_bytes = min(MESSAGE_MAX_BYTES, settings().payload.message_max_bytes)
    return (
        ("grpc.max_receive_message_length", min(message_max_bytes or carried_max_bytes, carried_max_bytes)),
        ("grpc.max_send_message_length", -1),
        # A node has one gateway process. A port that another process has is an error and must not be shared.
        ("grpc.so_reuseport", 0),
        # Both limits are equal: between a lower and a higher one gRPC refuses at random.
        ("grpc.max_metadata_size", metadata_max_bytes),
        ("grpc.absolute_max_metadata_size", metadata_max_bytes),
        ("grpc.max_concurrent_streams", settings().gateway.streams_max),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.enable_channelz", 0),
    )
