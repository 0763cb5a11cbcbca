"""Batches: calls that come together are executed together, and each caller gets its own answer (items 132–141)."""

import asyncio
from typing import Any

import pytest

import mesh
from mesh.exceptions import MeshException
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.metrics import value
from tests.e2e.waiting import until

Handle = mesh.DeploymentHandle[Any]

SIZE = 8
LONG_S = 40.0


@small(max_ongoing_requests=100)
class Batched:
    def __init__(self, gate: Handle) -> None:
        self._gate = gate
        self._executed: list[list[Any]] = []

    @mesh.batch(max_batch_size=SIZE, batch_wait_timeout_s=LONG_S)
    async def double(self, numbers: list[int]) -> list[tuple[int, int]]:
        """Each number doubled, and how many were doubled together."""
        return [(2 * number, len(numbers)) for number in numbers]

    @mesh.batch(max_batch_size=SIZE, batch_wait_timeout_s=0.01)
    async def divide(self, left: list[int], right: list[int]) -> list[float]:
        return [one / other for one, other in zip(left, right, strict=True)]

    @mesh.batch(max_batch_size=1, batch_wait_timeout_s=0)
    async def one_by_one(self, labels: list[str]) -> list[str]:
        self._executed.append(labels)
        return [await self._gate.wait.remote(label) for label in labels]

    @mesh.batch(max_batch_size=SIZE, batch_wait_timeout_s=LONG_S)
    async def by_model(self, numbers: list[int]) -> list[tuple[str, int]]:
        return [(mesh.get_multiplexed_model_id(), len(numbers)) for _ in numbers]

    @mesh.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S)
    async def count(self, limits: list[int]) -> Any:
        for item in range(max(limits)):
            yield [item if item < limit else StopIteration for limit in limits]

    @mesh.batch(max_batch_size=SIZE, batch_wait_timeout_s=0)
    async def forgetful(self, numbers: list[int]) -> list[int]:
        return []

    async def executed(self) -> list[list[Any]]:
        return self._executed


@pytest.fixture(scope="module")
def batched(deploy: Deploy) -> Handle:
    return deploy(Batched.bind(Gate.bind()), "batch")


def test_calls_that_come_together_fill_a_batch(batched: Handle, gateway: Gateway) -> None:
    """Full batches do not wait (items 134, 137)."""
    calls = [batched.double.remote(number) for number in range(5 * SIZE)]
    assert [call.result(timeout_s=LONG_S / 2) for call in calls] == [(2 * n, SIZE) for n in range(5 * SIZE)]
    labels = {"application": "batch", "deployment": "Batched", "function_name": "double"}
    assert value(gateway, "mesh_batches_processed_total", **labels) == 5
    assert value(gateway, "mesh_actual_batch_size_sum", **labels) == 5 * SIZE


def test_an_error_reaches_every_caller_of_the_batch(batched: Handle) -> None:
    """So does a result of the wrong length (items 135, 136)."""
    with pytest.raises(ZeroDivisionError):
        batched.divide.remote(1, right=0).result(timeout_s=10)
    assert batched.divide.remote(right=2, left=1).result(timeout_s=10) == 0.5
    with pytest.raises(MeshException, match="doesn't preserve batch size"):
        batched.forgetful.remote(1).result(timeout_s=10)


def test_a_caller_that_is_cancelled_while_it_waits_is_left_out(batched: Handle) -> None:
    """The batch runs without it (item 139)."""
    gate = mesh.get_deployment_handle("Gate", "batch")
    first = batched.one_by_one.remote("first")
    until(lambda: "first" in gate.entered.remote().result(timeout_s=10))
    cancelled, last = batched.one_by_one.remote("cancelled"), batched.one_by_one.remote("last")
    cancelled.cancel()
    for label in ("first", "last", "cancelled"):
        gate.open.remote(label).result(timeout_s=10)
    assert (first.result(timeout_s=10), last.result(timeout_s=10)) == ("first", "last")
    assert ["last"] in batched.executed.remote().result(timeout_s=10)
    assert ["cancelled"] not in batched.executed.remote().result(timeout_s=10)


def test_a_batch_is_of_one_model(batched: Handle) -> None:
    """Callers with different model ids never meet (items 124, 141)."""
    calls = [batched.by_model.options(multiplexed_model_id=model).remote(n) for n in range(SIZE) for model in "ab"]
    assert [call.result(timeout_s=LONG_S / 2) for call in calls] == [
        (model, SIZE) for _ in range(SIZE) for model in "ab"
    ]


def test_streams_share_a_batch_and_end_each_for_itself(batched: Handle) -> None:
    """One stream may be longer than another (item 138)."""

    async def read() -> list[list[int]]:
        streams = [batched.count.options(stream=True).remote(limit) for limit in (2, 5)]
        return await asyncio.gather(*(collect(stream) for stream in streams))

    assert asyncio.run(read()) == [[0, 1], [0, 1, 2, 3, 4]]


async def collect(stream: Any) -> list[int]:
    return [item async for item in stream]
