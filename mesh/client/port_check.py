"""The check, before anything is started, that the ports of the gateways are free on this machine."""

from __future__ import annotations

import errno
import socket

from mesh.client.mesh_lifecycle import head_node_id
from mesh.client.polling import poll
from mesh.cluster import ray_core
from mesh.v1 import control_pb2

_WAIT_S = 3.0
"""The gateway of a mesh that was shut down just now may still have the port."""
_ALL_INTERFACES = {"0.0.0.0", "::", ""}


def require_free(options: control_pb2.GatewayOptions, running: control_pb2.GatewayOptions | None = None) -> None:
    """Raises OSError naming a port that another process has. Ports of the gateways that are `running` are not asked.

    Without effect on machines other than the head node, which is the one that always has a gateway.
    """
    head = head_node_id()
    if head and not ray_core.is_ray_client() and ray_core.node_id() == head:
        require_free_here(options, running)


def require_free_here(options: control_pb2.GatewayOptions, running: control_pb2.GatewayOptions | None = None) -> None:
    """The same on the machine that is, or is to be, the head node."""
    if options.location == control_pb2.GATEWAY_LOCATION_DISABLED:
        return
    _require_two_ports(options)
    own = {running.grpc_port, running.http_port} if running is not None else set()
    for host, port, kind in (
        (options.grpc_host, options.grpc_port, "grpc"),
        (options.http_host, options.http_port, "http"),
    ):
        if port not in own:
            _require(host, port, kind)


def _require_two_ports(options: control_pb2.GatewayOptions) -> None:
    """Raises OSError if both are the same port of the same interface."""
    is_same = options.grpc_port == options.http_port > 0
    if is_same and (options.grpc_host == options.http_host or {options.grpc_host, options.http_host} & _ALL_INTERFACES):
        raise OSError(
            f"Port {options.grpc_port} is named twice, for gRPC and for HTTP. A port serves both: name it once and "
            "turn the other one off with {'port': None}, or choose another one, in grpc_options or http_options of "
            "mesh.start(), or by --grpc-port or --http-port."
        )


def _require(host: str, port: int, kind: str) -> None:
    if port > 0 and not poll(lambda: _is_free(host, port), _WAIT_S):
        raise OSError(
            f"Port {port} of {host} is taken by another process. Choose another one, or 0 for any free one: "
            f"{kind}_options={{'port': ...}} of mesh.start(), or --{kind}-port of `mesh run` and `mesh start`."
        )


def _is_free(host: str, port: int) -> bool:
    """Whether a gateway can have the port on each address of the host; of `localhost` it takes the IPv4 one."""
    family = socket.AF_INET if host == "localhost" else socket.AF_UNSPEC
    try:
        for found, _, _, _, address in socket.getaddrinfo(host or None, port, family, socket.SOCK_STREAM):
            socket.create_server(address, family=found).close()
    except OSError as error:  # any other one is for the gateway to report
        return error.errno != errno.EADDRINUSE
    return True
