"""The invocation metadata of a gRPC client, read for the mesh.

Everything but gRPC's own keys is passed on, so a servicer sees what its client sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gateway.requests.exchange import HttpHead
from gateway.requests.mesh_headers import is_returnable, tenant_of
from gateway.requests.route_prefixes import method_without_root
from mesh.http2.hpack_decoder import Field
from mesh.rpc.grpc_fields import Entry
from mesh.rpc.request_head import RequestHead, read_request_head
from mesh.wire.identity import Identity
from mesh.wire.request_context import RequestContext, new_request_id

REQUEST_ID_KEY = "request_id"

_RESERVED_PREFIX = "grpc-"


class Invocation(NamedTuple):
    """The metadata of a call, shared by all calls that send the same."""

    application: str | None = None
    """The application that the client named."""
    request_id: str = ""
    """Empty where the client sent none that gRPC can return: each call then gets one of its own."""
    multiplexed_model_id: str = ""
    session_id: str = ""
    traceparent: str = ""
    tracestate: str = ""
    tenant: str = ""
    passed_on: tuple[Entry, ...] = ()

    def context(self, route: str, app: str, identity: Identity | None = None) -> RequestContext:
        """The context of one call."""
        return RequestContext(
            self.request_id or new_request_id(),
            route,
            app,
            self.multiplexed_model_id,
            self.traceparent,
            self.tracestate,
            identity,
            tenant_of(self.tenant, identity),
        )


_NO_INVOCATION = Invocation()


@dataclass(slots=True, kw_only=True, eq=False)
class ClientHead(RequestHead):
    """The head of a client's request with what it says to the mesh."""

    invocation: Invocation = _NO_INVOCATION
    http: HttpHead | None = None
    """What other dialects see of it; made by the first request with this head, for all others of its connection."""

    def __post_init__(self) -> None:
        self.invocation = read_invocation(self.metadata)


def read_client_head(fields: list[Field], root_path: str = "") -> ClientHead:
    """`root_path`: where a proxy in front has mounted the gateway."""
    head = read_request_head(fields, ClientHead, takes_websockets=True)
    if root_path:
        head.path = method_without_root(root_path, head.path)
    return head


def read_invocation(entries: Iterable[Entry]) -> Invocation:
    """Read the metadata of a call."""
    texts: dict[str, str] = {}
    passed_on: list[Entry] = []
    for entry in entries:
        key, value = entry
        if key[:5] == _RESERVED_PREFIX:
            continue
        passed_on.append(entry)
        if isinstance(value, str):
            texts[key] = value
    request_id = texts.get(REQUEST_ID_KEY, "")
    return Invocation(
        texts.get("application") or None,
        request_id if is_returnable(request_id) else "",
        texts.get("multiplexed_model_id", ""),
        texts.get("session_id", ""),
        texts.get("traceparent", ""),
        texts.get("tracestate", ""),
        texts.get("tenant", ""),
        tuple(passed_on),
    )
