"""Owns the gRPC port: one generic handler that finds the method of every call by one dict look-up.

Generic handlers only: registered ones would cost grpc.aio's accept loop a waiter per method and call, and a new service
would need a restart. What serves a method is looked up once and kept until the routes change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from gateway.dialects.grpc_call import CallRouter, GrpcCall, RefusedCall, ServedMethod, UnaryUnaryCall
from gateway.dialects.grpc_metadata import Invocation, read_invocation
from gateway.dialects.grpc_streams import StreamStreamCall, StreamUnaryCall, UnaryStreamCall
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import NO_ROUTES, UNAVAILABLE, Method, Refusal, Routes
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.wire.endpoints import start_server

MESSAGE_MAX_BYTES = 2**31 - 1
"""gRPC's own limit, and ours where options name none: the gateway does not refuse what the mesh can carry."""

_FORMS: dict[tuple[bool, bool], type[GrpcCall]] = {
    (False, False): UnaryUnaryCall,
    (False, True): UnaryStreamCall,
    (True, False): StreamUnaryCall,
    (True, True): StreamStreamCall,
}

_NOT_READY = Refusal(
    UNAVAILABLE, "This gateway has not received its routes yet. Retry, or ask its health service first."
)
_DRAINING = Refusal(UNAVAILABLE, "This gateway is draining. Retry on another gateway.")


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

        `built_in` handles the gateway's own services, whatever applications call theirs.
        """
        self._router_for = router_for
        self._metrics = metrics
        self._built_in = built_in
        self._timeout_s = timeout_s
        self._routes = NO_ROUTES
        self._closed: Refusal | None = _NOT_READY
        # By (application or None, full method name); only what the routes name gets in, so strangers cannot fill it.
        self._served: dict[tuple[str | None, str], tuple[type[GrpcCall], ServedMethod]] = {}
        self._server: grpc.aio.Server | None = None

    async def start(self, host: str, port: int, message_max_bytes: int = 0) -> int:
        """Listen; returns the port. Raises OSError naming the port when it is taken."""
        self._server, bound = await start_server([self], host, port, options=_server_options(message_max_bytes))
        return bound

    def set_routes(self, routes: Routes) -> None:
        """Serve by these routes from now on. Calls in progress are not touched."""
        self._routes = routes
        self._served = {}
        if self._closed is _NOT_READY:
            self._closed = None
        for application in routes.applications.values():
            if application.methods:
                # Asked for now, so that the first call does not wait for the replicas to become known.
                self._router_for(application.ingress, routes)

    def refuse_new_calls(self) -> None:
        """Draining: calls in progress go on, new ones are told to go elsewhere."""
        self._closed = _DRAINING
        self._served = {}

    async def stop(self, grace_s: float) -> None:
        """Close the port and end what is still in progress after `grace_s`."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Called by grpc.aio for every call: its handler."""
        invocation = read_invocation(handler_call_details.invocation_metadata)
        served = self._served.get((invocation.application, handler_call_details.method))
        if served is None:
            return self._look_up(handler_call_details, invocation)
        form, method = served
        return form(method, invocation)

    def _look_up(self, details: grpc.HandlerCallDetails, invocation: Invocation) -> Any:
        built_in = self._built_in.service(details)
        if built_in is not None:
            return built_in
        found = self._closed or self._routes.find(invocation.application, details.method)
        if isinstance(found, Refusal):
            stats = self._metrics.of_refused(found.application)
            return RefusedCall(found, stats, invocation.context.request_id)
        form, method = self._serve(found)
        self._served[invocation.application, details.method] = form, method
        return form(method, invocation)

    def _serve(self, method: Method) -> tuple[type[GrpcCall], ServedMethod]:
        return _FORMS[method.streams_request, method.streams_response], ServedMethod(
            full_name=method.full_name,
            application=method.deployment.app,
            router=self._router_for(method.deployment, self._routes),
            stats=self._metrics.of_method(method),
            in_flight=self._metrics.in_flight,
            timeout_s=self._timeout_s,
        )


def _server_options(message_max_bytes: int) -> tuple[tuple[str, int], ...]:
    metadata_max_bytes = settings().gateway.metadata_max_bytes
    # What links do not carry is refused here, where gRPC has a status for it.
    carried_max_bytes = min(MESSAGE_MAX_BYTES, settings().payload.message_max_bytes)
    return (
        ("grpc.max_receive_message_length", min(message_max_bytes or carried_max_bytes, carried_max_bytes)),
        ("grpc.max_send_message_length", -1),
        # The only gateway process of its node: a taken port is an error, not a port shared with whoever has it.
        ("grpc.so_reuseport", 0),
        # One limit: between gRPC's two it would refuse at random.
        ("grpc.max_metadata_size", metadata_max_bytes),
        ("grpc.absolute_max_metadata_size", metadata_max_bytes),
        ("grpc.max_concurrent_streams", settings().gateway.streams_max),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.enable_channelz", 0),
    )
