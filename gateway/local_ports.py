"""A gateway in the process of a test, for a local application."""

from __future__ import annotations

from contextlib import AbstractContextManager

from gateway.node_gateway import NodeGateway
from mesh.local.local_application import LocalApplication
from mesh.local.mesh_app import Ports, RunMeshApp, mesh_apps
from mesh.options.gateway import gateway_options
from mesh.v1 import control_pb2
from mesh.wire.io_thread import io_thread

_ANY_PORT = {"host": "127.0.0.1", "port": 0}


def open_ports(application: LocalApplication) -> Ports:
    """Serve it on free ports of the loopback interface."""
    options = gateway_options.parse(None, _ANY_PORT, {"port": 0}).to_message()
    options.grpc_host = "127.0.0.1"
    spec = control_pb2.GatewaySpec(gateway_id="local", node_id="local", options=options)

    async def start() -> tuple[NodeGateway, control_pb2.GatewayReady]:
        gateway = NodeGateway(spec, application, "127.0.0.1")
        return gateway, await gateway.start()

    gateway, ready = io_thread().run(start())
    return Ports(ready.grpc_address, ready.http_address, lambda: io_thread().run(gateway.close()))


def local_apps() -> AbstractContextManager[RunMeshApp]:
    """What runs local applications with ports, until the context ends."""
    return mesh_apps(open_ports)
