"""The listener of a gateway: on each port gRPC calls, whose method one dict look-up finds, and other dialects.

What serves a method is looked up once and kept until the routes change (`ServedMethods`), here together with the class
of its calls.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc

from gateway.dialects.call_guard import CallGuard
from gateway.dialects.grpc_call import GrpcCall, UnaryUnaryCall
from gateway.dialects.grpc_metadata import ClientHead
from gateway.dialects.grpc_status import refuse
from gateway.dialects.grpc_streams import StreamStreamCall, StreamUnaryCall, UnaryStreamCall
from gateway.dialects.method_lookup import NOT_SERVED, ServedMethods
from gateway.dialects.served_method import CallRouter, ServedMethod
from gateway.http1.http1_limits import Http1Limits
from gateway.http_server import HttpServer, ServerLimits
from gateway.listener_phase import LISTENER_TRANSITIONS, ListenerEvent, ListenerPhase
from gateway.ops.built_in_services import REQUEST_MAX_BYTES
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.cors_gate import CorsGate
from gateway.requests.dialect_list import Dialect, DialectList
from gateway.requests.exchange import Exchange, ExchangeReceiver
from gateway.requests.routes import Refusal, Routes
from mesh.http2.frame_format import MESSAGE_PREFIX_BYTES
from mesh.http2.limits import BufferBudget, Limits
from mesh.http2.stream import Receiver, Stream
from mesh.http2.upkeep import UpkeepPolicy
from mesh.phases.transitions import next_state
from mesh.routing.snapshot import DeploymentKey
from mesh.rpc.method_handlers import MethodHandlers
from mesh.settings import settings
from mesh.wire.identity import Identity

logger = logging.getLogger("mesh.gateway")

MESSAGE_MAX_BYTES = 2**31 - 1
"""gRPC's own limit. It applies where the options set none, so that the gateway accepts all that links can carry."""

_FRAME_MAX_BYTES = 1024 * 1024
"""Size of DATA frames, which are passed on as they arrive: larger frames cost less per byte."""

_CALL_TYPES: dict[tuple[bool, bool], type[GrpcCall]] = {
    (False, False): UnaryUnaryCall,
    (False, True): UnaryStreamCall,
    (True, False): StreamUnaryCall,
    (True, True): StreamStreamCall,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRules:
    """What holds for all client connections of a gateway."""

    upkeep: UpkeepPolicy = field(default_factory=UpkeepPolicy)
    http1: Http1Limits = field(default_factory=Http1Limits)
    """Of those that speak HTTP/1.1."""
    root_path: str = ""
    """Where a proxy in front has mounted the gateway; requests are the same with it and without."""


class GatewayListener:
    """Serves all calls of all ports. I/O loop only."""

    def __init__(
        self,
        router_for: Callable[[DeploymentKey, object], CallRouter],
        metrics: GrpcMetrics,
        built_in: grpc.GenericRpcHandler,
        *,
        timeout_s: float | None = None,
        rules: ConnectionRules | None = None,
    ) -> None:
        """`router_for` gives the router of a deployment, which stays while the second argument lives.

        `built_in` handles the gateway's own services; they come before those of applications.
        `rules`: of client connections.
        """
        rules = rules or ConnectionRules()
        self._metrics = metrics
        self._built_in = MethodHandlers(message_max_bytes=REQUEST_MAX_BYTES)
        self._built_in.add_generic_rpc_handlers([built_in])
        self._budget = BufferBudget(settings().gateway.buffer_max_bytes)
        self._dialects = DialectList()
        limits = ServerLimits(
            http2=_limits(),
            http1=rules.http1,
            upkeep=rules.upkeep,
            budget=self._budget,
            connections_max=settings().gateway.connections_max,
        )
        self.cors = CorsGate(None, lambda head: self.methods.has(head.path), self._open)
        self.server = HttpServer(
            self._accept, self.cors.open, limits, self._refuse_head, self._answer_fault, root_path=rules.root_path
        )
        self._phase = ListenerPhase.WAITING
        self.methods = ServedMethods(router_for, metrics, timeout_s=timeout_s)
        """Those of all applications, for dialects too."""
        # By (application or None, full method name). It only holds methods of the routes, so clients cannot fill it.
        self._served: dict[tuple[str | None, str], tuple[type[GrpcCall], ServedMethod]] = {}
        self.guard: CallGuard | None = None
        """Asks who calls, and limits calls; None: every client may call."""

    @property
    def phase(self) -> ListenerPhase:
        """Also the phase of the whole gateway."""
        return self._phase

    @property
    def connections(self) -> int:
        return self.server.connections

    @property
    def exchanges(self) -> int:
        """Requests in progress that are not gRPC."""
        return self.server.in_flight.count

    @property
    def buffered_bytes(self) -> int:
        """Bytes of messages that are not complete, wait for credit, or wait for their client."""
        return self._budget.used_bytes

    def __repr__(self) -> str:
        return f"<GatewayListener {self._phase.name} applications={self.methods.applications}>"

    async def start(
        self,
        host: str,
        port: int,
        message_max_bytes: int = 0,
        *,
        shares_port: bool = False,
        tls: Callable[[], ssl.SSLContext] | None = None,
        inherited: Sequence[socket.socket] = (),
    ) -> int:
        """Listen on one more port; returns it. Raises OSError naming it when it is taken.

        `tls`: gives the context for the next handshake; None: plain text.
        `shares_port`: other gateways of the node may listen on it too. `inherited`: sockets that listen on it already.
        """
        # Refuse messages that links cannot carry here, where gRPC has a status for it.
        carried_max_bytes = min(MESSAGE_MAX_BYTES, settings().payload.message_max_bytes)
        # A connection gets at most half of what may be buffered.
        buffered_max_bytes = settings().gateway.buffer_max_bytes // 2 - MESSAGE_PREFIX_BYTES
        self.methods.message_max_bytes = min(
            message_max_bytes or carried_max_bytes, carried_max_bytes, buffered_max_bytes
        )
        return await self.server.sockets.listen(host, port, tls=tls, shares_port=shares_port, inherited=inherited)

    def add_dialects(self, *dialects: Dialect) -> None:
        """For requests that are not gRPC; they are asked in the order in which they were added."""
        self._dialects.add(*dialects)

    def set_routes(self, routes: Routes) -> None:
        """Use these routes for new calls. Calls in progress are not touched. Dialects get them in the same turn."""
        self._served = {}
        self._dialects.forget()
        if self.guard is not None:
            self.guard.methods.forget()
        self._change_phase(ListenerEvent.ROUTES, f"route table {routes.version} has arrived")
        self.methods.set_routes(routes)

    def announce_drain(self) -> None:
        """Enter the phase DRAINING, which health checks report. The gateway still serves all calls."""
        self._change_phase(ListenerEvent.DRAIN, f"{self._metrics.in_flight.count} calls in progress")
        self.server.announce_drain()

    def drain(self) -> None:
        """Close the ports, and ask clients to open new calls elsewhere. Those that are on their way are served."""
        self.server.sockets.drain()

    async def idle(self) -> None:
        """Wait until no call and no exchange is in progress."""
        await self._metrics.in_flight.idle()
        await self.server.in_flight.idle()

    async def stop(self, grace_s: float) -> None:
        """Drain, and end the calls that are still in progress after `grace_s`."""
        await self.server.sockets.stop(grace_s)

    def _open(self, exchange: Exchange) -> ExchangeReceiver | None:
        if self.guard is None:
            return self._dialects.accept(exchange)
        return self.guard.open(exchange, self._dialects)

    def _answer_fault(self, exchange: Exchange, status: int, text: str) -> bool:
        """In the form of the dialect that has opened the exchange; False if that has none of its own."""
        return self._dialects.answer_fault(self.cors.readable(exchange), status, text)

    def _accept(self, stream: Stream, head: ClientHead, peer: str) -> Receiver | None:
        if self.guard is not None:
            return self.guard.accept(stream, head, peer, lambda caller: self._accept_of(stream, head, peer, caller))
        served = self._served.get((head.invocation.application, head.path)) or self._look_up(stream, head, peer)
        if not isinstance(served, tuple):
            return served
        call_type, method = served
        return call_type(stream, head, method, peer)

    def _accept_of(
        self, stream: Stream, head: ClientHead, peer: str, caller: Identity | Refusal | None
    ) -> Receiver | None:
        """Begin the call of a client that the guard has let in, or refuse it."""
        if isinstance(caller, Refusal):
            self._refuse(stream, head, caller)
            return None
        is_stranger = self.guard is not None and self.guard.is_stranger(caller)
        served = self._served.get((head.invocation.application, head.path)) or self._look_up(
            stream, head, peer, is_stranger=is_stranger
        )
        if not isinstance(served, tuple):
            return served
        call_type, method = served
        of_caller = self.guard.methods.admit(method, caller, peer) if self.guard is not None else method
        if isinstance(of_caller, Refusal):
            refuse(stream, of_caller, method.stats, head.invocation.request_id)
            return None
        return call_type(stream, head, of_caller, peer)

    def _look_up(
        self, stream: Stream, head: ClientHead, peer: str, *, is_stranger: bool = False
    ) -> tuple[type[GrpcCall], ServedMethod] | Receiver | None:
        """What serves the call: a method of an application, or the receiver that one of our own services has made."""
        if self._built_in.find(head) is not None:
            return self._built_in.accept(stream, head, peer)
        method = self.methods.find(head.invocation.application, head.path)
        if isinstance(method, Refusal):
            # A client without an identity, on an open path, does not learn which methods there are.
            self._refuse(stream, head, NOT_SERVED if is_stranger else method)
            return None
        call_type = _CALL_TYPES[method.streams_request, method.streams_response]
        served = self._served[head.invocation.application, head.path] = call_type, method
        return served

    def _refuse_head(self, stream: Stream, head: ClientHead) -> None:
        """Of a call whose metadata or deadline are wrong, or whose messages cannot be decompressed."""
        self._refuse(stream, head, Refusal(head.refusal_code, head.refusal))

    def _refuse(self, stream: Stream, head: ClientHead, refusal: Refusal) -> None:
        refuse(stream, refusal, self._metrics.of_refused(refusal.application), head.invocation.request_id)

    def _change_phase(self, event: ListenerEvent, reason: str) -> None:
        before, self._phase = self._phase, next_state(LISTENER_TRANSITIONS, self._phase, event)
        if self._phase is not before:
            logger.info("listener: %s -> %s, %s", before.name, self._phase.name, reason)


def _limits() -> Limits:
    return Limits(
        streams_max=settings().gateway.streams_max,
        header_list_max_bytes=settings().gateway.metadata_max_bytes,
        takes_websockets=True,
        frame_max_bytes=_FRAME_MAX_BYTES,
    )
