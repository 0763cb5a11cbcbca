"""The headers of an HTTP request that speak to the mesh, in all their spellings. Pure."""

from __future__ import annotations

import re
from itertools import product
from typing import NamedTuple

from gateway.requests.exchange import Fields
from mesh.wire.identity import Identity
from mesh.wire.request_context import new_request_id

REQUEST_ID_MAX_CHARS = 200
TIMEOUT_NAME = "x-request-timeout-seconds"

_DECIMAL = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}").fullmatch
"""`float` takes more: "1_0", "1e3", "inf", spaces around, and the digits of other alphabets."""


class MeshHeaders(NamedTuple):
    """What a request says to the mesh; most requests say nothing and share one record."""

    request_id: str = ""
    """Empty where the client sent none that can be returned."""
    multiplexed_model_id: str = ""
    session_id: str = ""
    tenant: str = ""
    traceparent: str = ""
    tracestate: str = ""
    timeout: str = ""
    """As sent; see `timeout_of`."""
    outlives_client: bool = False
    """The request goes on when its client has left."""


def _spellings(name: str) -> list[bytes]:
    """A name with every choice of "-" and "_": proxies and frameworks prefer one or the other."""
    words = name.split("-")
    return [
        "".join(map(str.__add__, words, (*separators, ""))).encode()
        for separators in product("-_", repeat=len(words) - 1)
    ]


_FIELD_OF = {
    spelling: field
    for field, names in {
        "request_id": ("x-request-id", "request-id"),
        "multiplexed_model_id": (
            "serve-multiplexed-model-id",
            "ray-serve-multiplexed-model-id",
            "mesh-multiplexed-model-id",
            "multiplexed-model-id",
        ),
        "session_id": ("x-session-id", "session-id"),
        "tenant": ("x-tenant-id", "tenant-id", "x-tenant", "tenant"),
        "traceparent": ("traceparent",),
        "tracestate": ("tracestate",),
        "timeout": (TIMEOUT_NAME,),
        "outlives_client": ("x-request-disconnect-disabled",),
    }.items()
    for name in names
    for spelling in _spellings(name)
}

NO_MESH_HEADERS = MeshHeaders()


def read_mesh_headers(fields: Fields) -> MeshHeaders:
    """Read from fields with names in lower case. Where one is there twice, the first counts."""
    found: dict[str, str] = {}
    for name, value in fields:
        field = _FIELD_OF.get(name)
        if field is not None and value:
            found.setdefault(field, value.decode("utf-8", "replace"))
    if not found:
        return NO_MESH_HEADERS
    request_id = found.get("request_id", "")
    return MeshHeaders(
        request_id if is_returnable(request_id) else "",
        found.get("multiplexed_model_id", ""),
        found.get("session_id", ""),
        found.get("tenant", ""),
        found.get("traceparent", ""),
        found.get("tracestate", ""),
        found.get("timeout", ""),
        found.get("outlives_client") == "?1",
    )


def request_id_of(fields: Fields) -> str:
    """The id of a request that makes no call: its client's, or a new one."""
    return read_mesh_headers(fields).request_id or new_request_id()


def tenant_of(said: str, identity: Identity | None) -> str:
    """The tenant of a request whose client has named `said`. That of a client that belongs to one cannot be chosen."""
    own = identity.attributes.get("tenant", "") if identity is not None else ""
    return own or said


def timeout_of(text: str) -> float:
    """Seconds of the timeout header. Raises ValueError with what is wrong."""
    timeout_s = float(text) if _DECIMAL(text) else 0.0
    if not timeout_s:
        raise ValueError(f"Header {TIMEOUT_NAME} must be a number of seconds above 0, such as 2.5.")
    return timeout_s


def is_returnable(request_id: str) -> bool:
    """Whether every dialect can send it back. If gRPC could not, the call would end without a status."""
    return len(request_id) <= REQUEST_ID_MAX_CHARS and request_id.isascii() and request_id.isprintable()
