"""`BuiltInEntry`: the gateway's own services (health, reflection, Ray Serve's API) in the dialects of HTTP."""

from __future__ import annotations

import grpc

from gateway.built_in.built_in_calls import BuiltInRouter
from gateway.dialects.json_http.json_dialect import JsonDialect
from gateway.dialects.json_http.method_socket import MethodSocketDialect
from gateway.dialects.method_lookup import ServedMethods
from gateway.ops.built_in_services import PUBLIC_DESCRIPTORS, PUBLIC_SERVICES, REQUEST_MAX_BYTES
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.dialect_list import DialectList
from gateway.requests.exchange import Exchange, ExchangeReceiver, HttpHead
from gateway.requests.routes import Refusal, Route, RoutedApplication, Routes, service_of
from gateway.web_rpc.connect import ConnectDialect
from gateway.web_rpc.grpc_web import GrpcWebDialect
from mesh.routing.snapshot import DeploymentKey

_NO_DEPLOYMENT = DeploymentKey("", "")
"""No deployment serves them."""
_METHODS = {
    f"/{service.full_name}/{method.name}": Route(
        f"/{service.full_name}/{method.name}", _NO_DEPLOYMENT, method.streams_request, method.streams_response
    )
    for service in PUBLIC_SERVICES
    for method in service.methods
}


class _OwnRoutes(Routes):
    """One application without a name. Which one a client names is for the services to see, not for their routes."""

    __slots__ = ()

    def find(self, application: str | None, full_name: str, *, advises: bool = True) -> Route | Refusal:
        return super().find(None, full_name, advises=advises)


class BuiltInEntry:
    """A dialect: it claims the paths of these methods before any application can, as for gRPC. I/O loop only."""

    def __init__(self, handler: grpc.GenericRpcHandler) -> None:
        """`handler`: of all the services that this gateway serves; the methods of others are UNIMPLEMENTED."""
        self._router = BuiltInRouter(handler)
        # Not those of the gateway: as for gRPC, calls of its own services are not counted.
        methods = ServedMethods(lambda *_: self._router, GrpcMetrics())
        methods.message_max_bytes = REQUEST_MAX_BYTES
        json = JsonDialect(methods)
        self._sockets = MethodSocketDialect(methods, json.json_methods)
        self._dialects = DialectList(self._sockets, GrpcWebDialect(methods), ConnectDialect(methods), json)
        application = RoutedApplication("", "", _NO_DEPLOYMENT, _METHODS, descriptors=PUBLIC_DESCRIPTORS)
        routes = _OwnRoutes(1, {"": application}, _METHODS, {service_of(each): ("",) for each in _METHODS})
        methods.set_routes(routes)
        json.set_routes(routes)

    def claims(self, head: HttpHead) -> bool:
        return head.path in _METHODS

    def open(self, exchange: Exchange) -> ExchangeReceiver | None:
        # As for gRPC, calls of these services count in no limit.
        exchange.caller = None
        return self._dialects.open(exchange)

    def refuse(self, exchange: Exchange, refusal: Refusal) -> bool:
        """See `RefusingDialect`."""
        return self._dialects.refuse(exchange, refusal)

    def answer_fault(self, exchange: Exchange, status: int, text: str) -> bool:
        """See `FaultDialect`."""
        return self._dialects.answer_fault(exchange, status, text)

    def drain(self) -> None:
        """End all calls: one that watches would otherwise last as long as its client likes."""
        self._router.drain()
        self._sockets.drain()
