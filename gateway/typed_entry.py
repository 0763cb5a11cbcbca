"""`TypedEntry`: the typed methods of a gateway in the dialects of HTTP other than gRPC, and their description."""

from __future__ import annotations

import grpc

from gateway.built_in.built_in_entry import BuiltInEntry
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

    def __init__(
        self, methods: ServedMethods, built_in: grpc.GenericRpcHandler | None = None, *, root_path: str = ""
    ) -> None:
        """`built_in` handles the gateway's own services. `root_path`: where a proxy has mounted the gateway."""
        self._methods = methods
        self._built_in = None if built_in is None else BuiltInEntry(built_in)
        self._json = JsonDialect(methods)
        self._sockets = MethodSocketDialect(methods, self._json.json_methods)
        self._api_docs = ApiDocsDialect(root_path)
        self._calls = GrpcWebDialect(methods), ConnectDialect(methods)

    @property
    def docs(self) -> Dialect:
        """Some of the paths below `/-/`: asked before the operators' dialect, which claims all of them."""
        return self._api_docs

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """Those that call methods: JSON comes last, because it knows its requests by their paths only."""
        own = () if self._built_in is None else (self._built_in,)
        return *own, self._sockets, *self._calls, self._json

    def calls_method(self, head: HttpHead) -> bool:
        """Whether a request, or a WebSocket, is one of a typed method."""
        is_own = self._built_in is not None and self._built_in.claims(head)
        return is_own or self._methods.has(head.path) or self._json.claims(head)

    def set_routes(self, routes: Routes) -> None:
        """Use these routes for new requests."""
        self._json.set_routes(routes)
        self._api_docs.set_routes(routes)

    def drain(self) -> None:
        """Close all WebSockets, and end calls of the gateway's own services. Other requests are not touched."""
        self._sockets.drain()
        if self._built_in is not None:
            self._built_in.drain()
