"""A gateway with its own limit on the time of calls, and one that is drained while clients keep calling."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import mesh
from tests.e2e import leftovers
from tests.e2e.conftest import Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.waiting import until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

TIMEOUT_S = 8.0
"""No other call takes as long, on a busy machine too: one waits for the beginning of a drain."""


@small(max_ongoing_requests=1000)
class Shop(shop_pb2_grpc.ShopServicer):
    """Prices wait at the gate that their name says; without a name they arrive immediately."""

    def __init__(self, gate: Any) -> None:
        self._gate = gate

    async def Price(self, request: Any, context: Any) -> Any:
        if request.name:
            await self._gate.wait.remote(request.name)
        return shop_pb2.Item(name=request.name or context.peer())


@pytest.fixture(scope="module")
def shop(gateway: Gateway) -> Iterator[shop_pb2_grpc.ShopStub]:
    """On a mesh of its own, whose calls may take some seconds; after it the run's mesh is there again."""
    mesh.shutdown()
    mesh.start(
        http_options={"port": gateway.http_port},
        grpc_options={"port": gateway.grpc_port, "request_timeout_s": TIMEOUT_S, "max_connection_age_s": 1.0},
    )
    mesh.run(Shop.bind(Gate.bind()), name="shop", route_prefix="/shop")
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        yield shop_pb2_grpc.ShopStub(channel)
    mesh.shutdown()
    gateway.start_mesh()


def test_clients_lose_no_call_when_their_connections_are_old(shop: shop_pb2_grpc.ShopStub) -> None:
    """They come back on other connections (item 55)."""
    peers = set()
    until(lambda: peers.add(shop.Price(shop_pb2.Item(), timeout=10).name) or len(peers) == 4)
    assert all(peer.startswith("ipv4:127.0.0.1:") for peer in peers)


def test_a_gateway_ends_calls_that_take_too_long_and_drains_without_an_error(
    gateway: Gateway, shop: shop_pb2_grpc.ShopStub
) -> None:
    gate = mesh.get_deployment_handle("Gate", "shop")
    slow = shop.Price.future(shop_pb2.Item(name="never"))
    assert slow.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert shop.Price(shop_pb2.Item(name="")).name

    codes: list[grpc.StatusCode] = []
    callers = [threading.Thread(target=call_until_refused, args=(gateway, codes)) for _ in range(4)]
    for caller in callers:
        caller.start()
    until(lambda: len(codes) > 100)
    last = shop.Price.future(shop_pb2.Item(name="last"))
    until(lambda: "last" in gate.entered.remote().result(timeout_s=10))
    ending = threading.Thread(target=mesh.shutdown)
    ending.start()
    until(lambda: codes[-1] is not grpc.StatusCode.OK)
    gate.open.remote("last").result(timeout_s=10)
    assert last.result(timeout=10).name == "last", "a call that was let in before the drain gets through"
    for thread in (*callers, ending):
        thread.join(timeout=40)
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert not leftovers.is_listening(gateway.grpc_port)


def call_until_refused(gateway: Gateway, codes: list[grpc.StatusCode]) -> None:
    with grpc.insecure_channel(gateway.grpc_address) as channel, contextlib.suppress(grpc.RpcError):
        stub = shop_pb2_grpc.ShopStub(channel)
        while True:
            call = stub.Price.future(shop_pb2.Item())
            codes.append(call.code())
            call.result()
