"""The ASGI scope of a web request. Pure."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from mesh.context import Request
from mesh.v1 import web_pb2
from mesh.web.asgi_types import Scope
from mesh.wire.request_context import RequestContext
from mesh.wire.web_messages import KEPT_BYTES_MAX, REQUEST, decode_request, header_pairs

_ASGI = {"version": "3.0", "spec_version": "2.4"}
"""Since 2.4 an application learns from an OSError of `send` that its client has left, and needs no task for that."""

_REQUEST_ID = b"x-request-id"
_KEPT_MAX = 1_024
_scopes: dict[bytes, dict[str, Any]] = {}
"""The scopes of HTTP requests, by their heads."""


def read_web_request(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The scope of a serialised WebRequest, and its body. Raises DecodeError.

    A client sends the same head again and again: its scope is made once, and each request gets a copy.
    """
    parts = REQUEST.split(data)
    known = None if parts is None else _scopes.get(parts[0]) or _read_head(parts[0])
    if parts is None or known is None:
        request = decode_request(data)
        return asgi_scope(request), request.body
    scope = known.copy()
    scope["headers"] = [*known["headers"], (_REQUEST_ID, parts[1])] if parts[1] else known["headers"].copy()
    scope["extensions"] = {}
    return scope, parts[2]


def _read_head(head: bytes) -> dict[str, Any] | None:
    """None for one that is not kept."""
    request = decode_request(head)
    if request.is_websocket or request.body or len(head) > KEPT_BYTES_MAX:
        return None
    if len(_scopes) >= _KEPT_MAX:
        _scopes.clear()
    scope = _scopes[head] = asgi_scope(request)
    return scope


def asgi_scope(request: web_pb2.WebRequest) -> dict[str, Any]:
    """The scope of type "http" or "websocket"; its path begins with its root_path."""
    raw_path = request.raw_path
    path = raw_path.decode("latin-1")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": _ASGI,
        "http_version": request.http_version,
        "method": request.method,
        "scheme": request.scheme,
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": request.query_string,
        "root_path": request.root_path,
        "headers": header_pairs(request.headers),
        "client": _address(request.client_host, request.client_port),
        "server": _address(request.server_host, request.server_port),
        "extensions": {},
    }
    if request.is_websocket:
        scope["type"] = "websocket"
        del scope["method"]
        scope["subprotocols"] = list(request.subprotocols)
        scope["extensions"] = {"websocket.http.response": {}}
    return scope


def route_pattern(scope: Scope) -> str:
    """The pattern of the route that the application has chosen, below the route prefix; empty if it does not say.

    A pattern and not a path: it becomes a label of metrics, which must have few values.
    """
    route = scope.get("route")
    if route is None:
        return ""
    try:
        # Of a router that was included with a prefix, FastAPI keeps the whole pattern here.
        included = scope.get("fastapi", {}).get("effective_route_context")
        pattern = getattr(included, "path", None) or getattr(route, "path", "")
    except Exception:  # code of the application may have put anything there
        return ""
    return pattern if isinstance(pattern, str) else ""


class ServedWebRequest(Request):
    """The request that the code of a web call serves. Its route is the pattern that the application has matched."""

    __slots__ = ("scope",)

    is_http_request = True

    def __init__(self, context: RequestContext, deadline_at_s: float | None) -> None:
        super().__init__(context, deadline_at_s)
        self.scope: Scope | None = None

    def outliving(self) -> ServedWebRequest:
        request = ServedWebRequest(self.context, deadline_at_s=None)
        request.scope = self.scope
        return request

    @property
    def is_websocket(self) -> bool:
        return self.scope is not None and self.scope.get("type") == "websocket"

    @property
    def title(self) -> str:
        """ "GET /PREFIX/items/{item_id}", for logs."""
        method = "WS" if self.is_websocket else (self.scope or {}).get("method", "web request")
        return f"{method} {self.route}"

    @property
    def route(self) -> str:
        """ "/PREFIX/items/{item_id}" (item 131), and only the prefix where no pattern is known."""
        prefix = self.context.route
        pattern = route_pattern(self.scope) if self.scope is not None else ""
        return prefix.rstrip("/") + pattern if pattern else prefix


def _address(host: str, port: int) -> tuple[str, int] | None:
    return (host, port) if host else None
