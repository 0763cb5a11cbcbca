"""Settings of gateways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Gateways."""

    PREFIX: ClassVar[str] = "GATEWAY_"

    host: str = "0.0.0.0"
    """Interface of the gRPC port."""
    http_host: str = "localhost"
    """Interface of the HTTP port, unless `http_options` say otherwise."""
    lame_duck_s: float = 1.0
    """From reporting NOT_SERVING to closing the port: the time that balancers have to notice."""
    drain_timeout_s: float = 30.0
    """How long a draining gateway waits for its calls before it ends them."""
    handover_timeout_s: float = 5.0
    """How long a gateway and the one that it replaces wait for each other while ports are handed over."""
    stop_grace_s: float = 0.5
    """How long a stopped gateway lets open calls finish before it breaks them."""
    metadata_max_bytes: int = 16 * 1024
    """Metadata of one gRPC call, or header fields of one HTTP request, that a gateway accepts."""
    streams_max: int = 10_000
    """Concurrent gRPC calls on one client connection; more wait in the client."""
    connections_max: int = 10_000
    """Client connections; more are closed at once, HTTP/1.1 ones with status 503."""
    buffer_max_bytes: int = 1024 * 1024 * 1024
    """Bytes of messages that wait in a gateway, requests and responses; what is above ends with RESOURCE_EXHAUSTED."""
    files_interval_s: float = 5.0
    """Pause between two looks at the files of certificates, keys and tokens."""
    limited_callers_max: int = 10_000
    """Identities and addresses that a gateway counts for limits; further ones share a count while all are busy."""
    http_body_timeout_s: float = 60.0
    """How long a client may pause in the middle of a request's body; on HTTP/2 streams may between two messages."""
    http_body_rate_min_bytes_per_s: float = 100.0
    """A body, or a message of a stream, that brings less than this for that long is given up as well; 0: no limit."""
    http_body_max_bytes: int = 2 * 1024 * 1024 * 1024
    """Body of one web request; a longer one is refused with 413. Bodies pass through in pieces and are not kept."""
    json_max_bytes: int = 16 * 1024 * 1024
    """Body of one JSON request of a typed method, decompressed; a longer one is refused with 413."""
    decompressed_max_bytes: int = 32 * 1024 * 1024
    """One compressed message of gRPC, gRPC-Web or Connect, decompressed; a longer one ends with RESOURCE_EXHAUSTED."""
    trusted_proxies: str = ""
    """Addresses or networks, with commas between them, whose X-Forwarded-For and -Proto count; `*` for all."""
    websocket_message_max_bytes: int = 16 * 1024 * 1024
    """One message from the client of a WebSocket, decompressed; a longer one closes it with 1009."""
    websocket_decompressed_max_bytes: int = 4 * 1024 * 1024
    """One compressed frame from the client of a WebSocket, decompressed; a longer one closes it with 1009."""
    websocket_ping_interval_s: float = 20.0
    """A WebSocket whose client has sent nothing for this long gets a ping."""
    websocket_ping_timeout_s: float = 20.0
    """A client that sends nothing for this long after a ping is gone."""
    websocket_close_timeout_s: float = 10.0
    """How long the other side may take once one side has closed a WebSocket: the client to answer, the application to
    end."""
    metric_routes_max: int = 200
    """Route patterns of an application that have metric series of their own; the rest counts as one."""
    deleted_applications_kept: int = 32
    """Deleted applications that keep metric series of their own; older ones are added up as one."""
