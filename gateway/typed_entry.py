"""`TypedEntry`: the typed methods of a gateway in the dialects of HTTP that are no gRPC, and their description."""

from __future__ import annotations

from gateway.dialects.json_http.json_dialect import JsonDialect
from gateway.dialects.json_http.method_socket import MethodSocketDialect
from gateway.dialects.method_lookup import ServedMethods
from gateway.openapi.api_docs import ApiDocsDialect
from gateway.requests.dialect_list import Dialect
from gateway.requests.exchange import HttpHead
from gateway.requests.routes import Routes
from gateway.web_rpc.connect import ConnectDialect
from gateway.web_rpc.grpc_web import GrpcWebDialect


class TypedEntry:
    """I/O loop only."""

    def __init__(self, methods: ServedMethods) -> None:
        self._methods = methods
        self._json = JsonDialect(methods)
        self._sockets = MethodSocketDialect(methods, self._json.json_methods)
        self._api_docs = ApiDocsDialect()
        self._calls = GrpcWebDialect(methods), ConnectDialect(methods)

    @property
    def docs(self) -> Dialect:
        """Some of the paths below `/-/`: asked before the operators' dialect, which claims all of them."""
        return self._api_docs

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """Those that call methods: JSON comes last, because it knows its requests by their paths only."""
        return self._sockets, *self._calls, self._json

    def calls_method(self, head: HttpHead) -> bool:
        """Whether a request, a WebSocket or a preflight is one of a typed method."""
        return self._methods.has(head.path) or self._json.claims(head)

    def set_routes(self, routes: Routes) -> None:
        """Use these routes for new requests."""
        self._json.set_routes(routes)
        self._api_docs.set_routes(routes)

    def drain(self) -> None:
        """Close all WebSockets. Requests in progress are not touched."""
        self._sockets.drain()
