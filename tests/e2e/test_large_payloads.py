"""Large payloads: arrays and bytes of up to 100 MB both ways, beside small calls that must not wait for them."""

import io
import statistics
import threading
import time
from contextlib import redirect_stdout
from typing import Any

import grpc
import numpy as np
import pytest
import ray
from ray._private import internal_api

import mesh
from mesh.exceptions import MeshException
from tests.e2e.conftest import MESSAGE_MAX_BYTES, Deploy
from tests.e2e.gate import small
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]

METADATA = (("application", "large"),)
BULK_BYTES = 50_000_000
STORED_ITEMS = 1_100_000
"""Of eight bytes: an array that goes through the object store."""


@small(max_ongoing_requests=100)
class Arrays(shop_pb2_grpc.ShopServicer):
    async def __call__(self, value: Any) -> Any:
        return value

    async def total(self, left: np.ndarray, *, right: np.ndarray) -> float:
        return float(left.sum() + right.sum())

    def make(self, megabytes: int) -> np.ndarray:
        return np.full(megabytes * 1_000_000 // 8, 0.5)

    async def stream(self, megabytes: int, items: int) -> Any:
        for item in range(items):
            yield np.full(megabytes * 1_000_000 // 8, float(item))

    async def bulk(self, size_bytes: int) -> bytes:
        return bytes(size_bytes)

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(name=request.name, amount=len(request.name))


@small(max_ongoing_requests=100)
class Relay:
    def __init__(self, arrays: Handle) -> None:
        self._arrays = arrays

    async def __call__(self, megabytes: int) -> float:
        made = self._arrays.make.remote(megabytes)
        return await self._arrays.total.remote(made, right=await made)


@pytest.fixture(scope="module")
def arrays(deploy: Deploy) -> Handle:
    return deploy(Arrays.bind(), "large")


@pytest.mark.parametrize("megabytes", [1, 10, 100])
def test_an_array_makes_the_round_trip(arrays: Handle, megabytes: int) -> None:
    sent = np.arange(megabytes * 1_000_000 // 8, dtype=np.int64)
    received = arrays.remote(sent).result(timeout_s=30)
    assert received.dtype == sent.dtype
    assert np.array_equal(received, sent)


@pytest.mark.parametrize("megabytes", [1, 10, 100])
def test_arrays_go_one_way_as_arguments_and_as_results(arrays: Handle, megabytes: int) -> None:
    made = arrays.make.remote(megabytes).result(timeout_s=30)
    assert made.nbytes == megabytes * 1_000_000
    assert arrays.total.remote(made, right=made[:8]).result(timeout_s=30) == made.sum() + 4


def test_arrays_pass_between_deployments_and_un_awaited(deploy: Deploy, arrays: Handle) -> None:
    """A response that holds an array is an argument like any other (item 29)."""
    relay = deploy(Relay.bind(arrays), "large-relay")
    assert relay.remote(10).result(timeout_s=30) == 10_000_000 / 8


def test_large_items_stream_in_order(arrays: Handle) -> None:
    items = list(arrays.options(stream=True).stream.remote(2, 20))
    assert [item[-1] for item in items] == list(range(20))


def test_an_argument_may_change_after_the_call_was_made(arrays: Handle) -> None:
    for size in (1_000, 100_000, STORED_ITEMS):
        sent = np.ones(size)
        response = arrays.remote(sent)
        sent[:] = 2
        assert response.result(timeout_s=30).sum() == size


def test_small_calls_on_the_link_do_not_wait_for_a_large_one(arrays: Handle) -> None:
    """Bytes, unlike arrays, travel on the link itself, in parts."""
    took_s: list[float] = []
    payload = bytes(BULK_BYTES)
    is_over = threading.Event()

    def send_large_ones() -> None:
        for _ in range(5):
            began_s = time.perf_counter()
            assert len(arrays.remote(payload).result(timeout_s=30)) == BULK_BYTES
            took_s.append(time.perf_counter() - began_s)
        is_over.set()

    sender = threading.Thread(target=send_large_ones)
    sender.start()
    latencies_s: list[float] = []
    while not is_over.is_set() and sender.is_alive():
        began_s = time.perf_counter()
        assert arrays.remote(7).result(timeout_s=30) == 7
        latencies_s.append(time.perf_counter() - began_s)
    sender.join()
    assert len(took_s) == 5
    assert len(latencies_s) > 20
    assert statistics.median(latencies_s) < statistics.median(took_s) / 5, (latencies_s, took_s)


def test_what_exceeds_the_limit_fails_alone_and_says_so(arrays: Handle) -> None:
    """Neither the link nor other calls on it notice."""
    too_much = bytes(MESSAGE_MAX_BYTES + 1)
    with pytest.raises(MeshException, match=r"MESH_MESSAGE_MAX_BYTES"):
        arrays.remote(too_much)
    bystander = arrays.bulk.remote(1_000_000)
    with pytest.raises(MeshException, match=r"MESH_MESSAGE_MAX_BYTES"):
        arrays.bulk.remote(len(too_much)).result(timeout_s=30)
    assert len(bystander.result(timeout_s=30)) == 1_000_000
    assert arrays.remote("on the same link").result(timeout_s=10) == "on the same link"


def test_20_mb_pass_through_the_gateway_both_ways(arrays: Handle, channel: grpc.Channel) -> None:
    sent = "x" * 20_000_000
    reply = shop_pb2_grpc.ShopStub(channel).Price(shop_pb2.Item(name=sent), metadata=METADATA, timeout=30)
    assert reply.amount == len(sent)
    assert reply.name == sent


def test_the_object_store_is_empty_when_no_array_is_in_use(arrays: Handle) -> None:
    for _ in range(20):
        arrays.remote(np.ones(STORED_ITEMS)).result(timeout_s=30)
    cancelled = [arrays.remote(np.ones(STORED_ITEMS)) for _ in range(20)]
    for response in cancelled:
        response.cancel()
    del cancelled, response
    until(lambda: ", 0 objects" in object_store_report(), timeout_s=20)
    assert "Plasma memory usage 0 MiB, 0 objects" in object_store_report()


def object_store_report() -> str:
    """Of this Ray: other tests have theirs."""
    with redirect_stdout(io.StringIO()):
        return str(internal_api.memory_summary(address=ray.get_runtime_context().gcs_address, stats_only=True))
