"""Deadlines: they reach grandchildren, the smaller one counts, and what is late is stopped everywhere (item 220)."""

import time
from typing import Any

import grpc
import pytest

import mesh
from mesh.context import current_request
from mesh.exceptions import DeadlineExceededError
from tests.e2e.conftest import Deploy
from tests.e2e.gate import Gate, small
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

Handle = mesh.DeploymentHandle[Any]

METADATA = (("application", "deadlines"),)
SOON_S = 1.0
"""Time for a call to reach the last deployment, on a busy machine too."""
BUSY = "1 of 1 calls busy on 1 replica; raise max_ongoing_requests or num_replicas"


@small(max_ongoing_requests=100)
class Last:
    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def remaining_s(self) -> float | None:
        request = current_request()
        return request.remaining_s if request else None

    async def wait(self, label: str) -> str:
        return await self._gate.wait.remote(label)


@small(max_ongoing_requests=100)
class Middle:
    def __init__(self, last: Handle) -> None:
        self._last = last

    async def remaining_s(self, own_timeout_s: float | None = None) -> float | None:
        return await self._last.remaining_s.options(timeout_s=own_timeout_s).remote()

    async def wait(self, label: str) -> str:
        return await self._last.wait.remote(label)


@small(max_ongoing_requests=100)
class First(shop_pb2_grpc.ShopServicer):
    def __init__(self, middle: Handle) -> None:
        self._middle = middle

    async def Price(self, request: Any, context: Any) -> Any:
        """The milliseconds that the last deployment has left, or as many as wait for nothing."""
        if request.name:
            return shop_pb2.Item(name=await self._middle.wait.remote(request.name))
        return shop_pb2.Item(amount=int(await self._middle.remaining_s.remote() * 1000))


@small(max_ongoing_requests=1)
class Single:
    async def __call__(self, gate: Handle, label: str) -> str:
        return await gate.wait.remote(label)


@small(max_ongoing_requests=1)
class Chat(shop_pb2_grpc.ShopServicer):
    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def Price(self, request: Any, context: Any) -> Any:
        return request

    async def echo(self, item: Any) -> Any:
        return item

    async def List(self, request: Any, context: Any) -> Any:
        async for label in self._gate.options(stream=True).stream.remote(request.name):
            yield shop_pb2.Item(name=label)


@small(max_ongoing_requests=100)
class Relay(shop_pb2_grpc.ShopServicer):
    def __init__(self, chat: Handle) -> None:
        self._chat = chat

    async def Price(self, request: Any, context: Any) -> Any:
        return await self._chat.echo.remote(request)


@pytest.fixture(scope="module")
def middle(deploy: Deploy) -> Handle:
    deploy(First.bind(Middle.bind(Last.bind(Gate.bind()))), "deadlines")
    middle = mesh.get_deployment_handle("Middle", "deadlines")
    # The first call also connects each replica to the next one.
    mesh.get_deployment_handle("Gate", "deadlines").open.remote("first").result(timeout_s=20)
    assert middle.wait.remote("first").result(timeout_s=20) == "first"
    return middle


@pytest.fixture
def gate(middle: Handle) -> Handle:
    return mesh.get_deployment_handle("Gate", "deadlines")


def test_a_deadline_reaches_grandchildren_and_none_is_none(middle: Handle, channel: grpc.Channel) -> None:
    assert 29 < middle.options(timeout_s=30).remaining_s.remote().result(timeout_s=10) <= 30
    assert middle.remaining_s.remote().result(timeout_s=10) is None
    stub = shop_pb2_grpc.ShopStub(channel)
    # gRPC rounds a timeout up to what its header can say, by up to a hundredth.
    assert 19_000 < stub.Price(shop_pb2.Item(), metadata=METADATA, timeout=20).amount <= 20_200


@pytest.mark.parametrize(("inherited_s", "own_s"), [(10, 30), (30, 10)])
def test_the_smaller_of_the_own_and_the_inherited_deadline_counts(
    middle: Handle, inherited_s: float, own_s: float
) -> None:
    remaining_s = middle.options(timeout_s=inherited_s).remaining_s.remote(own_s).result(timeout_s=10)
    assert 0 < remaining_s <= 10


def test_an_expired_deadline_stops_the_whole_chain(middle: Handle, gate: Handle) -> None:
    began_s = time.monotonic()
    with pytest.raises(DeadlineExceededError) as caught:
        middle.options(timeout_s=SOON_S).wait.remote("late").result(timeout_s=10)
    assert time.monotonic() - began_s >= SOON_S
    assert isinstance(caught.value, TimeoutError)
    until(lambda: "late" in gate.cancelled_at_s.remote().result(timeout_s=10))


def test_a_clients_deadline_stops_the_whole_chain(middle: Handle, gate: Handle, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        shop_pb2_grpc.ShopStub(channel).Price(shop_pb2.Item(name="late client"), metadata=METADATA, timeout=SOON_S)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: "late client" in gate.cancelled_at_s.remote().result(timeout_s=10))


def test_a_call_expires_while_it_is_queued(deploy: Deploy, gate: Handle) -> None:
    single = deploy(Single.bind(), "deadline-queue")
    running = single.remote(gate, "holds the place")
    until(lambda: "holds the place" in gate.entered.remote().result(timeout_s=10))
    with pytest.raises(DeadlineExceededError, match=f"waited .* s for a free place of deadline-queue/Single: {BUSY}"):
        single.options(timeout_s=SOON_S).remote(gate, "never sent").result(timeout_s=10)
    gate.open.remote("holds the place").result(timeout_s=10)
    assert running.result(timeout_s=10) == "holds the place"
    assert "never sent" not in gate.entered.remote().result(timeout_s=10)


def test_a_grpc_client_learns_that_its_deadline_was_spent_in_a_queue(
    deploy: Deploy, gate: Handle, channel: grpc.Channel
) -> None:
    """An open stream holds the only place. A call that waits one hop further says so too."""
    chat = deploy(Chat.bind(gate), "chat")
    deploy(Relay.bind(chat), "relay")
    stub = shop_pb2_grpc.ShopStub(channel)
    stream = stub.List(shop_pb2.Item(name="chats"), metadata=(("application", "chat"),), timeout=30)
    assert next(iter(stream)).name == "first"
    for app in ("chat", "relay"):
        # On a busy machine the answer may come after the client's deadline, which then says nothing.
        until(lambda app=app: f"s for a free place of chat/Chat: {BUSY}" in details_of_late_call(stub, app))
    gate.open.remote("chats").result(timeout_s=10)
    assert [item.name for item in stream] == ["chats"]


def details_of_late_call(stub: shop_pb2_grpc.ShopStub, app: str) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Price(shop_pb2.Item(), metadata=(("application", app),), timeout=SOON_S)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    return str(caught.value.details())


def test_a_stream_that_is_late_delivers_what_it_had_and_then_says_so(gate: Handle) -> None:
    items = gate.options(stream=True, timeout_s=SOON_S).stream.remote("late stream")
    assert next(items) == "first"
    with pytest.raises(DeadlineExceededError):
        next(items)
    until(lambda: "late stream" in gate.cancelled_at_s.remote().result(timeout_s=10))


def test_a_deadline_in_the_past_fails_at_once(middle: Handle) -> None:
    with pytest.raises(DeadlineExceededError):
        middle.options(timeout_s=0).remaining_s.remote().result(timeout_s=10)
