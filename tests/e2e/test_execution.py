"""How replicas run user code: on a loop of its own or inline, `def` methods in threads, in any mixture."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

import mesh
from mesh.exceptions import RequestCancelledError
from tests.e2e.conftest import Deploy
from tests.e2e.gate import Gate, small
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]

PLACES = 8


@small(max_ongoing_requests=PLACES)
class Mixed(shop_pb2_grpc.ShopServicer):
    """Every kind of method."""

    def __init__(self, gate: Handle) -> None:
        self._gate = gate
        self._together = threading.Barrier(PLACES)
        self._unblocked = threading.Event()

    async def on_loop(self) -> str:
        return threading.current_thread().name

    def in_thread(self) -> str:
        return threading.current_thread().name

    def meet(self) -> int:
        """Comes back when as many calls as there are places run at the same time."""
        return self._together.wait(timeout=20)

    async def wait(self, label: str) -> str:
        return await self._gate.wait.remote(label)

    def wait_in_thread(self, label: str) -> str:
        """Sync code calls with `.result()`."""
        return self._gate.wait.remote(label).result(timeout_s=20)

    async def relay(self, label: str) -> AsyncIterator[str]:
        async for item in self._gate.options(stream=True).stream.remote(label):
            yield item

    def relay_in_thread(self, label: str) -> Iterator[str]:
        yield from self._gate.options(stream=True).stream.remote(label)

    def block(self) -> bool:
        """Comes back when `unblock` was called."""
        return self._unblocked.wait(timeout=20)

    async def unblock(self) -> None:
        self._unblocked.set()

    async def Price(self, request: Any, context: Any) -> Any:
        return shop_pb2.Item(amount=request.amount + 1)

    def Total(self, request_iterator: Iterator[Any], context: Any) -> Any:
        return shop_pb2.Item(amount=sum(item.amount for item in request_iterator))

    def Haggle(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        for item in request_iterator:
            yield shop_pb2.Item(amount=item.amount + 1)


@pytest.fixture(scope="module", params=["isolated", "inline"])
def mixed(deploy: Deploy, request: pytest.FixtureRequest) -> Handle:
    deployment = Mixed.options(isolate_user_loop=request.param == "isolated")
    return deploy(deployment.bind(Gate.bind()), f"mixed-{request.param}")


@pytest.fixture
def gate(mixed: Handle) -> Handle:
    return mesh.get_deployment_handle("Gate", mixed.app_name)


def test_async_methods_share_a_loop_and_def_methods_have_threads(mixed: Handle) -> None:
    """A `def` method never runs on the loop (item 147)."""
    loop_threads = {mixed.on_loop.remote().result(timeout_s=10) for _ in range(5)}
    assert len(loop_threads) == 1
    assert mixed.in_thread.remote().result(timeout_s=10) not in loop_threads
    if mixed.app_name == "mixed-inline":
        assert loop_threads == {"mesh-io"}


def test_as_many_def_methods_run_at_once_as_calls_are_allowed(mixed: Handle) -> None:
    """There is a thread for each allowed call (item 147)."""
    calls = [mixed.meet.remote() for _ in range(PLACES)]
    assert sorted(call.result(timeout_s=20) for call in calls) == list(range(PLACES))


@pytest.mark.parametrize("method", ["wait", "wait_in_thread"])
def test_methods_of_either_kind_call_other_deployments(mixed: Handle, gate: Handle, method: str) -> None:
    label = f"called by {method}"
    call = mixed.options(method_name=method).remote(label)
    until(lambda: label in gate.entered.remote().result(timeout_s=10))
    gate.open.remote(label).result(timeout_s=10)
    assert call.result(timeout_s=10) == label


@pytest.mark.parametrize("method", ["relay", "relay_in_thread"])
def test_generators_of_either_kind_relay_items_as_they_come(mixed: Handle, gate: Handle, method: str) -> None:
    """An item does not wait for the next one (item 47)."""
    label = f"relayed by {method}"
    items = mixed.options(method_name=method, stream=True).remote(label)
    assert next(items) == "first"
    gate.open.remote(label).result(timeout_s=10)
    assert list(items) == [label]


@pytest.mark.parametrize("method", ["wait", "wait_in_thread"])
def test_a_cancel_reaches_the_children_of_either_kind(mixed: Handle, gate: Handle, method: str) -> None:
    """A thread is not interrupted, but the call it waits for is cancelled (items 36, 38)."""
    label = f"cancelled in {method}"
    call = mixed.options(method_name=method).remote(label)
    until(lambda: label in gate.entered.remote().result(timeout_s=10))
    call.cancel()
    with pytest.raises(RequestCancelledError):
        call.result(timeout_s=10)
    until(lambda: label in gate.cancelled_at_s.remote().result(timeout_s=10))


def test_def_methods_that_block_do_not_hold_up_async_ones(mixed: Handle) -> None:
    blocking = [mixed.block.remote() for _ in range(PLACES - 1)]
    for _ in range(20):
        mixed.on_loop.remote().result(timeout_s=10)
    mixed.unblock.remote().result(timeout_s=10)
    assert all(call.result(timeout_s=10) for call in blocking)


def test_servicer_methods_may_be_def_or_async(mixed: Handle, channel: grpc.Channel) -> None:
    """All four kinds of methods may be either (items 211, 216)."""
    stub = shop_pb2_grpc.ShopStub(channel)
    options = {"metadata": (("application", mixed.app_name),), "timeout": 20}
    items = [shop_pb2.Item(amount=number) for number in range(300)]
    assert stub.Price(items[1], **options).amount == 2
    assert stub.Total(iter(items), **options).amount == sum(range(300))
    assert [item.amount for item in stub.Haggle(iter(items), **options)] == list(range(1, 301))


def test_calls_from_inside_an_event_loop_run_concurrently(mixed: Handle) -> None:
    async def call_all() -> int:
        responses = [mixed.meet.remote() for _ in range(PLACES)]
        return sum([await response for response in responses])

    assert asyncio.run(call_all()) == sum(range(PLACES))
