"""Limits of local applications at every door: handles, gRPC and HTTP; as tests/e2e/test_backpressure.py on a mesh."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import mesh
from mesh.exceptions import BackPressureError
from mesh.testing import MeshApp, RunMeshApp
from tests.e2e.gate import Gate
from tests.e2e.metrics import values
from tests.e2e.test_backpressure import LIMIT, QUEUE, Caller, Strict
from tests.unit.fakes.small_mesh import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

DEADLINE_S = 30.0


def counted(app: MeshApp, name: str, **labels: str) -> float:
    with urllib.request.urlopen(f"{app.http_url}/-/metrics", timeout=DEADLINE_S) as reply:
        return sum(values(reply.read().decode(), name, labels))


def test_a_local_replica_never_runs_more_calls_than_its_limit(mesh_app: RunMeshApp) -> None:
    """Handles and a deployment call it at the same time (items 146, 163)."""
    app = mesh_app(Caller.bind(Strict.bind()), name="strict")
    theirs = [app.handle.remote(300) for _ in range(2)]
    ours = [app.deployment("Strict").remote() for _ in range(600)]
    assert max(each.result(timeout_s=DEADLINE_S) for each in (*ours, *theirs)) == LIMIT


@mesh.deployment(max_ongoing_requests=1, max_queued_requests=QUEUE, backpressure_config={"status_code": 429})
class Door(shop_pb2_grpc.ShopServicer):
    """It is full while the gate is closed."""

    def __init__(self, gate: mesh.DeploymentHandle[Any]) -> None:
        self._gate = gate

    async def __call__(self, request: Any) -> str:
        return await self._gate.wait.remote(request if isinstance(request, str) else request.query_params["label"])

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=await self._gate.wait.remote(request.name))


@mesh.deployment(max_ongoing_requests=100)
class Porch(shop_pb2_grpc.ShopServicer):
    """In front of it: the back-pressure of a callee reaches every client."""

    def __init__(self, door: mesh.DeploymentHandle[Any]) -> None:
        self._door = door

    async def __call__(self, request: Any) -> str:
        return await self._door.remote(request if isinstance(request, str) else request.query_params["label"])

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=await self._door.remote(request.name))


@pytest.mark.parametrize("has_porch", [False, True], ids=["at the door", "behind a porch"])
def test_a_full_queue_refuses_at_every_door(mesh_app: RunMeshApp, has_porch: bool) -> None:
    """Its own clients, and those of the deployment in front of it (items 142–144, 168)."""
    door = Door.bind(Gate.options(max_ongoing_requests=100).bind())
    app = mesh_app(Porch.bind(door) if has_porch else door)
    gate = app.deployment("Gate")
    calls = [app.handle.remote("held")]
    until(lambda: gate.entered.remote().result(timeout_s=DEADLINE_S) == ["held"], "the first call to run")
    calls += [app.handle.remote("held") for _ in range(QUEUE)]
    until(lambda: counted(app, "mesh_handle_queued_requests", deployment="Door") == QUEUE, "the queue to be full")
    with grpc.insecure_channel(app.grpc_address) as channel:
        _refused_everywhere(app, channel)
    gate.open.remote("held").result(timeout_s=DEADLINE_S)
    assert {each.result(timeout_s=DEADLINE_S) for each in calls} == {"held"}


def _price(channel: grpc.Channel) -> Callable[..., Any]:
    return shop_pb2_grpc.ShopStub(channel).Price  # type: ignore[no-any-return]


def _refused_everywhere(app: MeshApp, channel: grpc.Channel) -> None:
    said = f"num_queued_requests={QUEUE}, max_queued_requests={QUEUE}"
    with pytest.raises(BackPressureError, match=said) as refused:
        app.handle.remote("held").result(timeout_s=DEADLINE_S)
    assert (refused.value.status_code, refused.value.retry_after_s) == (429, None)
    with pytest.raises(grpc.RpcError) as answered:
        _price(channel)(shop_pb2.Item(name="held"), timeout=DEADLINE_S)
    assert answered.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert said in answered.value.details()
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(f"{app.http_url}/?label=held", timeout=DEADLINE_S)
    with answer.value as body:
        assert body.code == 429
        assert said.encode() in body.read()
