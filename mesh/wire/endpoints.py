"""In-cluster gRPC servers and channels, with their options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from mesh.wire.link_tls import link_tls

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Two processes must never share a port silently: a caller would reach the wrong replica.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # A peer whose host vanished is noticed within 30 s, so that nothing waits for it.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.lookahead_bytes", 4 * 1024 * 1024),
    ("grpc.enable_channelz", 0),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A host that vanishes is noticed within 15 s; a process that dies breaks its connection immediately.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # How long an attempt may take, which TLS with a busy process does. One that is refused is repeated by the others.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Retries are the router's, on another replica.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.lookahead_bytes", 4 * 1024 * 1024),
    ("grpc.enable_channelz", 0),
)


async def start_server(handlers: Sequence[grpc.GenericRpcHandler], host: str) -> tuple[grpc.aio.Server, int]:
    """Start a server on a free port and return both. On the I/O loop. Raises OSError where it cannot listen."""
    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    server.add_generic_rpc_handlers(tuple(handlers))
    tls = link_tls()
    try:
        if tls is None:
            port = server.add_insecure_port(f"{host}:0")
        else:
            port = server.add_secure_port(f"{host}:0", tls.server_credentials())
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}: no port is free, or the interface does not exist") from error
    await server.start()
    return server, port


def open_channel(address: str, *, options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
    """A channel to another process of the mesh, with `options` in the place of ours. In a coroutine on the I/O loop."""
    tls, chosen = link_tls(), {**dict(CHANNEL_OPTIONS), **dict(options)}
    if tls is None:
        return grpc.aio.insecure_channel(address, options=list(chosen.items()))
    named = [*chosen.items(), ("grpc.ssl_target_name_override", tls.server_name)]
    return grpc.aio.secure_channel(address, tls.channel_credentials(), options=named)


class _Recorder:
    """Stands in for a server where generated code registers its handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        del generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        for name, handler in method_handlers.items():
            self.handlers[f"/{service_name}/{name}"] = handler


class _DictHandler(grpc.GenericRpcHandler):
    def __init__(self, handlers: dict[str, Any]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


def generic_handlers(add_to_server: Callable[[Any, Any], None], servicer: object) -> grpc.GenericRpcHandler:
    """Handlers of a generated `add_XServicer_to_server`, found by one dict look-up.

    Registered handlers would cost grpc.aio's accept loop one waiter per method and call.
    """
    recorder = _Recorder()
    add_to_server(servicer, recorder)
    return _DictHandler(recorder.handlers)
