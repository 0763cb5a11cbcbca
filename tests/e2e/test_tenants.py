"""Tenants on a real Ray: named by metadata, headers, queries and handles, through a gateway and two deployments."""

from __future__ import annotations

import json
from typing import Any

import grpc
import httpx
import pytest
from websockets.sync.client import connect

import mesh
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import small
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

TENANTS = [f"tenant-{number}" for number in range(12)]


@small(num_replicas=3, max_ongoing_requests=100)
class Back:
    def seen(self) -> str:
        """The tenant, and the replica that its calls reach."""
        request = mesh.context.current_request()
        return f"{request.tenant if request else None} {mesh.get_replica_context().replica_tag}"


@small(max_ongoing_requests=100)
class Front(shop_pb2_grpc.ShopServicer):
    def __init__(self, back: Any) -> None:
        self._back = back

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=await self._back.seen.remote())

    async def __call__(self, request: Any) -> str:
        return str(await self._back.seen.remote())


@pytest.fixture(scope="module")
def front(deploy: Deploy) -> mesh.DeploymentHandle[Any]:
    return deploy(Front.bind(Back.bind()), "tenants")


def test_a_tenant_is_the_same_in_every_dialect_and_reaches_the_same_replica(
    front: mesh.DeploymentHandle[Any], gateway: Gateway, channel: grpc.Channel
) -> None:
    """The replica is chosen by the deployment behind the one that the gateway calls (item 206)."""
    price = f"{gateway.http_url}/mesh.tests.Shop/Price"
    application = {"application": "tenants"}
    stub = shop_pb2_grpc.ShopStub(channel)

    def by_grpc(tenant: str) -> str:
        metadata = (("application", "tenants"), ("tenant", tenant))
        return str(stub.Price(shop_pb2.Item(), metadata=metadata, timeout=20).name)

    def by_socket(tenant: str) -> str:
        url = f"ws://127.0.0.1:{gateway.http_port}/tenants/mesh.tests.Shop/Price?tenant={tenant}"
        with connect(url, proxy=None, open_timeout=20) as socket:
            socket.send("{}")
            return str(json.loads(socket.recv(timeout=20))["name"])

    def replicas_without_a_tenant() -> set[str]:
        return {by_grpc("") for _ in range(12)}

    # A caller begins with the first replica that it has a link to.
    until(lambda: len(replicas_without_a_tenant()) == 3, timeout_s=30)
    with httpx.Client(timeout=20) as client:
        ways = {
            "gRPC": by_grpc,
            "web": lambda tenant: client.get(f"{gateway.http_url}/tenants", headers={"X-Tenant-Id": tenant}).text,
            "header": lambda tenant: client.post(price, json={}, headers={**application, "x-tenant": tenant}).json()[
                "name"
            ],
            "query": lambda tenant: client.post(price, json={}, params={"tenant": tenant}, headers=application).json()[
                "name"
            ],
            "WebSocket": by_socket,
        }
        replicas = set()
        for tenant in TENANTS:
            answers = {way: ask(tenant) for way, ask in ways.items()}
            assert {answer.partition(" ")[0] for answer in answers.values()} == {tenant}
            assert len(set(answers.values())) == 1, answers
            replicas |= set(answers.values())
    assert len({each.partition(" ")[2] for each in replicas}) == 3
    back = mesh.get_deployment_handle("Back", "tenants").options(method_name="seen")
    until(lambda: back.options(tenant=TENANTS[0]).remote().result(timeout_s=20) in replicas, timeout_s=30)
