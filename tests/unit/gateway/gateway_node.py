"""A whole gateway of one node with both ports; its process is a fake."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.node_gateway import NodeGateway
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2
from tests.free_ports import free_ports
from tests.unit.gateway.fakes import FakeRouter, echo


class FakeProcess:
    def __init__(self, router: FakeRouter) -> None:
        self.peers: tuple[control_pb2.Peer, ...] = ()
        self.has_controller = True
        self.publish: Callable[[control_pb2.RouteTable], None] = lambda table: None
        self.announce_replicas: Callable[[], None] = lambda: None
        self._router = router

    def use(self, key: DeploymentKey, user: object) -> FakeRouter:
        return self._router

    def on_routes(self, callback: Callable[[control_pb2.RouteTable], None]) -> None:
        self.publish = callback

    def on_replicas(self, callback: Callable[[], None]) -> None:
        self.announce_replicas = callback


class Node:
    """One running gateway and its clients."""

    def __init__(self, router: FakeRouter, **options: Any) -> None:
        self.router = router
        self.process = FakeProcess(router)
        grpc_port, http_port = free_ports(2)
        asked = control_pb2.GatewayOptions(
            grpc_host="127.0.0.1",
            grpc_port=grpc_port,
            http_port=http_port,
            **{"http_host": "127.0.0.1", **options},
        )
        self.spec = control_pb2.GatewaySpec(gateway_id="g", node_id="n", options=asked)
        self.gateway = NodeGateway(self.spec, self.process, "127.0.0.1")
        self.ready: control_pb2.GatewayReady
        self.channel: grpc.aio.Channel

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        return await asyncio.to_thread(fetch, f"http://{self.ready.http_address}{path}", method)

    async def ask(self, address: str, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request, with what httpx takes."""
        async with httpx.AsyncClient(verify=False, timeout=10) as client:
            return await client.request(method, f"http://{address}{path}", **options)

    async def health(self) -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        return int(reply.status)


def fetch(url: str, method: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@asynccontextmanager
async def running(router: FakeRouter | None = None, **options: Any) -> AsyncIterator[Node]:
    """`options` are those of GatewayOptions in control.proto."""
    node = Node(router or FakeRouter(echo), **options)
    node.ready = await node.gateway.start()
    async with grpc.aio.insecure_channel(node.ready.grpc_address) as channel:
        node.channel = channel
        try:
            yield node
        finally:
            await node.gateway.close()
