"""Several gateways on one port: each ends and comes back alone, and clients lose no call when one is drained."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray

import mesh
from mesh.cluster.keys import gateway_name
from mesh.cluster.ray_core import NAMESPACE
from mesh.status import GatewayStatus
from mesh.v1 import control_pb2
from tests.e2e.conftest import Gateway
from tests.e2e.gate import small
from tests.e2e.load import Load
from tests.e2e.metrics import value
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

PROCESSES = 2
CLIENTS = 12
METADATA = (("application", "shared"),)


@small(max_ongoing_requests=1000)
class Shop(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=context.peer())


class Client:
    """Calls on a connection of its own, and keeps its failures."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = shop_pb2_grpc.ShopStub(channel)
        self.port = 0
        """Of its connection, as the gateway sees it."""
        self.failures: list[grpc.RpcError] = []

    def call(self) -> None:
        try:
            reply = self._stub.Price(shop_pb2.Item(), metadata=METADATA, timeout=10)
        except grpc.RpcError as error:
            self.failures.append(error)
        else:
            self.port = int(reply.name.rpartition(":")[2])


@pytest.fixture(scope="module", autouse=True)
def processes(gateway: Gateway) -> Iterator[None]:
    """A mesh with several gateways; after it the run's mesh is there again."""
    mesh.shutdown()
    mesh.start(
        http_options={"port": gateway.http_port}, grpc_options={"port": gateway.grpc_port, "processes": PROCESSES}
    )
    mesh.run(Shop.bind(), name="shared", route_prefix=None)
    yield
    mesh.shutdown()
    gateway.start_mesh()


@pytest.fixture
def clients(gateway: Gateway) -> Iterator[list[Client]]:
    """Some on each gateway."""
    with ExitStack() as stack:
        clients: list[Client] = []

        def are_spread() -> bool:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(gateway.grpc_address, options=options))
            clients.append(Client(channel))
            clients[-1].call()
            counts = [len(client_ports(pid_of(index), gateway.grpc_port)) for index in range(PROCESSES)]
            return len(clients) >= CLIENTS and min(counts) >= 2

        until(are_spread)
        yield clients


def ready_of(index: int) -> control_pb2.GatewayReady | None:
    """What the gateway says of itself; None while there is none."""
    (node_id,) = {each.node_id for each in mesh.status().gateways}
    try:
        actor = ray.get_actor(gateway_name(node_id, index), namespace=NAMESPACE)
        return control_pb2.GatewayReady.FromString(ray.get(actor.start.remote(), timeout=10))
    except (ValueError, ray.exceptions.RayError):
        return None


def pid_of(index: int) -> int:
    ready = ready_of(index)
    return ready.pid if ready is not None else 0


def client_ports(pid: int, port: int) -> set[int]:
    """The clients' ports of the connections to `port` that a process has."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(os.readlink(descriptor))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        int(remote.rpartition(":")[2], 16)
        for _, local, remote, _, _, _, _, _, _, inode, *_ in rows
        if int(local.rpartition(":")[2], 16) == port and f"socket:[{inode}]" in sockets and not remote.endswith(":0000")
    }


def drain(actor: Any) -> None:
    """As the controller does it: Ray would wait for the actor's other methods before its process ends."""
    finished, _ = ray.wait([actor.drain.remote()], timeout=30)
    assert finished
    ray.kill(actor)


def until_replaced(index: int, pid: int) -> None:
    until(lambda: pid_of(index) not in (0, pid), timeout_s=30)
    until(lambda: [each.status for each in mesh.status().gateways] == [GatewayStatus.HEALTHY] * PROCESSES)


def test_the_status_has_each_gateway_and_the_first_ones_metrics_are_those_of_all(
    gateway: Gateway, clients: list[Client]
) -> None:
    """Each has its own row (item 126)."""
    gateways = sorted(mesh.status().gateways, key=lambda each: each.index)
    assert [each.index for each in gateways] == [0, 1]
    assert {each.grpc_address.rpartition(":")[2] for each in gateways} == {str(gateway.grpc_port)}
    assert [bool(each.http_address) for each in gateways] == [True, False]
    assert value(gateway, "mesh_gateway_grpc_connections") == len(clients)
    assert value(gateway, "mesh_gateways_wanted") == PROCESSES


def test_a_gateway_that_is_drained_loses_no_call_and_is_replaced_alone(clients: list[Client]) -> None:
    first, second = pid_of(0), pid_of(1)
    (node_id,) = {each.node_id for each in mesh.status().gateways}
    with Load(*[client.call for client in clients]) as load:
        load.until_answered(200)
        drain(ray.get_actor(gateway_name(node_id, 1), namespace=NAMESPACE))
        until_replaced(1, second)
        load.until_answered(200)
    assert [each for client in clients for each in client.failures] == []
    assert pid_of(0) == first


def test_a_gateway_that_is_killed_breaks_its_own_connections_only(gateway: Gateway, clients: list[Client]) -> None:
    first, second = pid_of(0), pid_of(1)
    with Load(*[client.call for client in clients]) as load:
        load.until_answered(200)
        victims = client_ports(first, gateway.grpc_port)
        spared = [client for client in clients if client.port not in victims]
        assert 0 < len(spared) < len(clients)
        os.kill(first, signal.SIGKILL)
        load.until_answered(200)
        until_replaced(0, first)
        load.until_answered(200)
    assert [each for client in spared for each in client.failures] == []
    failures = [each for client in clients for each in client.failures]
    assert {each.code() for each in failures} <= {grpc.StatusCode.UNAVAILABLE}
    assert pid_of(1) == second


def test_a_node_gets_more_gateways_and_fewer_without_a_failed_call(clients: list[Client]) -> None:
    """From a shared port to one that is a single process's, and back (item 52)."""
    with Load(*[client.call for client in clients]) as load:
        for number in (3, 1, 2):
            load.until_answered(200)
            mesh.start(grpc_options={"processes": number})
            until(lambda number=number: indexes() == list(range(number)), timeout_s=30)  # type: ignore[misc]
        load.until_answered(200)
    assert [each for client in clients for each in client.failures] == []


def indexes() -> list[int]:
    """Of all gateways, also those that drain: until these have ended, one is there twice."""
    return sorted(each.index for each in mesh.status().gateways)
