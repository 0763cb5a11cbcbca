"""Limits: max_ongoing_requests is strict, the queue is first come first served and bounded (items 146, 158, 168)."""

import asyncio
from typing import Any

import grpc
import pytest

import mesh
from mesh.exceptions import BackPressureError, QueueTimeoutError
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.metrics import value
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]

LIMIT = 3
QUEUE = 5


@small(max_ongoing_requests=LIMIT)
class Strict:
    """Counts how many of its calls run at the same time."""

    def __init__(self) -> None:
        self._running = 0
        self._peak = 0

    async def __call__(self) -> int:
        """The most calls that were ever running."""
        self._running += 1
        self._peak = max(self._peak, self._running)
        for _ in range(5):
            await asyncio.sleep(0)
        self._running -= 1
        return self._peak


@small(max_ongoing_requests=100)
class Caller:
    def __init__(self, strict: Handle) -> None:
        self._strict = strict

    async def __call__(self, calls: int) -> int:
        return max(await asyncio.gather(*(wait_for(self._strict.remote()) for _ in range(calls))))


async def wait_for(response: Any) -> Any:
    return await response


@small(max_ongoing_requests=1)
class InOrder:
    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def __call__(self, label: str) -> str:
        return await self._gate.wait.remote(label)


@small(max_ongoing_requests=1, max_queued_requests=QUEUE)
class Bounded(shop_pb2_grpc.ShopServicer):
    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def __call__(self, label: str) -> str:
        return await self._gate.wait.remote(label)

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=await self._gate.wait.remote(request.name))


@small(max_ongoing_requests=100)
class Above:
    """A caller in between: the back-pressure of its callee is passed on unchanged."""

    def __init__(self, bounded: Handle) -> None:
        self._bounded = bounded

    async def __call__(self, label: str) -> str:
        return await self._bounded.remote(label)


def test_a_replica_never_runs_more_calls_than_its_limit(deploy: Deploy, gateway: Gateway) -> None:
    """Two processes call at the same time and neither knows what the other sends (items 146, 163)."""
    caller = deploy(Caller.bind(Strict.bind()), "strict")
    strict = mesh.get_deployment_handle("Strict", "strict")
    theirs = [caller.remote(300) for _ in range(2)]
    ours = [strict.remote() for _ in range(600)]
    peaks = [response.result(timeout_s=30) for response in (*ours, *theirs)]
    assert max(peaks) == LIMIT
    until(lambda: value(gateway, "mesh_handle_queued_requests", application="strict") == 0)
    answered = value(gateway, "mesh_replica_requests_total", application="strict", deployment="Strict", code="OK")
    assert answered == 1200


def test_queued_calls_are_served_in_their_order(deploy: Deploy) -> None:
    """First come, first served (item 158)."""
    handle = deploy(InOrder.bind(Gate.bind()), "order")
    gate = mesh.get_deployment_handle("Gate", "order")
    labels = [f"call {number}" for number in range(20)]
    calls = [handle.remote(label) for label in labels]
    for number, (label, call) in enumerate(zip(labels, calls, strict=True), start=1):
        until(lambda number=number: len(gate.entered.remote().result(timeout_s=10)) == number)
        gate.open.remote(label).result(timeout_s=10)
        assert call.result(timeout_s=10) == label
    assert gate.entered.remote().result(timeout_s=10) == labels


def shown_load(app: str, deployment: str) -> tuple[float, int, float]:
    shown = mesh.status().applications[app].deployments[deployment]
    return shown.busy, shown.places, shown.waiting


def test_a_full_queue_refuses_and_says_so_at_every_door(deploy: Deploy, gateway: Gateway, channel: Any) -> None:
    """Back-pressure of a child reaches handle and gRPC client as such (items 143, 144, 168)."""
    bounded = deploy(Bounded.bind(Gate.bind()), "bounded")
    above = deploy(Above.bind(mesh.get_app_handle("bounded")), "above")
    gate = mesh.get_deployment_handle("Gate", "bounded")
    running = bounded.remote("held")
    until(lambda: gate.entered.remote().result(timeout_s=10) == ["held"])
    queued = [bounded.remote("held") for _ in range(QUEUE)]
    with pytest.raises(BackPressureError, match=rf"num_queued_requests={QUEUE}, max_queued_requests={QUEUE}"):
        bounded.remote("held").result(timeout_s=10)

    stub = shop_pb2_grpc.ShopStub(channel)
    request = {"request": shop_pb2.Item(name="held"), "metadata": (("application", "bounded"),), "timeout": 30}
    clients = [stub.Price.future(**request) for _ in range(QUEUE)]
    labels = {"application": "bounded", "deployment": "Bounded"}
    until(lambda: value(gateway, "mesh_handle_queued_requests", **labels) == 2 * QUEUE)
    until(lambda: shown_load("bounded", "Bounded") == (1, 1, 2 * QUEUE))
    with pytest.raises(grpc.RpcError) as refused:
        stub.Price(**request)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_queued_requests" in refused.value.details()

    relayed = [above.remote("held") for _ in range(QUEUE)]
    until(lambda: value(gateway, "mesh_handle_queued_requests", **labels) == 3 * QUEUE)
    with pytest.raises(BackPressureError):
        above.remote("held").result(timeout_s=10)
    assert value(gateway, "mesh_handle_dropped_total", **labels) == 3

    gate.open.remote("held").result(timeout_s=10)
    assert {call.result(timeout_s=20) for call in (running, *queued, *relayed)} == {"held"}
    assert {client.result(timeout=20).name for client in clients} == {"held"}


def test_a_call_that_waits_longer_than_its_deployment_says_is_not_sent(deploy: Deploy) -> None:
    """No place becomes free in time for it (item 168)."""
    hasty = deploy(Gate.options(name="Hasty", max_ongoing_requests=1, queue_timeout_s=0.5).bind(), "hasty")
    holder = hasty.wait.remote("never opened")
    with pytest.raises(
        QueueTimeoutError, match=r"waited \d\.\d s for a free place of hasty/Hasty.*queue_timeout_s is 0\.5"
    ):
        hasty.entered.remote().result(timeout_s=20)
    holder.cancel()
