"""Connect and gRPC-Web at a gateway, as the client of PyPI and httpx see them: arities, codecs, errors, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2

import mesh
from mesh.exceptions import GrpcStatusError
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.leaving import leave_when
from tests.e2e.waiting import until
from tests.unit.gateway.typed_clients import (
    Client,
    Seen,
    TypedCall,
    by_connect,
    by_connectrpc,
    by_grpc_web,
    by_grpc_web_text,
)
from tests.unit.protos import shop_pb2_grpc
from tests.unit.protos.shop_pb2 import Item

Handle = mesh.DeploymentHandle[Any]
SHOP = "/mesh.tests.Shop"
STREAMING: dict[str, Client] = {
    "Connect of Protobuf": by_connect("proto"),
    "Connect of JSON": by_connect("json"),
}
CLIENTS: dict[str, Client] = {
    **STREAMING,
    "gRPC-Web": by_grpc_web,
    "gRPC-Web of text": by_grpc_web_text,
    "gRPC-Web of connectrpc": partial(by_connectrpc, protocol="GRPC_WEB"),
}


@small(max_ongoing_requests=100)
class Shop(shop_pb2_grpc.ShopServicer, shop_pb2_grpc.StockServicer):
    """The name of an item says what is to happen."""

    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def Price(self, request: Any, context: Any) -> Any:
        match request.name:
            case "details":
                info = error_details_pb2.ErrorInfo(reason="SOLD_OUT")
                raise GrpcStatusError.with_details(grpc.StatusCode.NOT_FOUND, "no such item", info)
            case "metadata":
                sent = dict(context.invocation_metadata())
                await context.send_initial_metadata((("x-own-first", "1"), ("x-own-raw-bin", b"\0\xff")))
                context.set_trailing_metadata((("x-own-last", sent["x-own"]),))
            case "compress":
                context.set_compression(grpc.Compression.Gzip)
                return Item(name="x" * 1000)
            case "raise":
                raise LookupError("no such item")
            case name if name.startswith("wait"):
                await self._gate.wait.remote(name)
        return Item(name=request.name, amount=request.amount + 1)

    def List(self, request: Any, context: Any) -> Iterator[Any]:
        for number in range(request.amount):
            yield Item(name=request.name, amount=number)
        if request.name == "raise":
            raise LookupError("list broke")

    async def Total(self, request_iterator: AsyncIterator[Any], context: Any) -> Any:
        return Item(amount=sum([item.amount async for item in request_iterator]))

    async def Haggle(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for item in request_iterator:
            yield Item(amount=item.amount + 1)


@pytest.fixture(scope="module")
def gate(deploy: Deploy) -> Handle:
    return deploy(Gate.bind(), "connect-gate")


@pytest.fixture(scope="module", autouse=True)
def shop(deploy: Deploy, gate: Handle) -> Handle:
    return deploy(Shop.bind(mesh.get_app_handle("connect-gate")), "connect")


def ask(gateway: Gateway, client: Client, method: str, *requests: Item, **options: Any) -> Seen:
    """Over the HTTP port. `options` are those of TypedCall."""
    call = TypedCall(path=f"{SHOP}/{method}", requests=requests, **options)
    return asyncio.run(client(gateway.http_port, call))


@pytest.mark.parametrize("name", CLIENTS)
def test_unary_calls_and_server_streams(gateway: Gateway, name: str) -> None:
    client = CLIENTS[name]
    assert ask(gateway, client, "Price", Item(name="pear", amount=2**40)).responses == [
        Item(name="pear", amount=2**40 + 1)
    ]
    listed = ask(gateway, client, "List", Item(name="pear", amount=300), streams_response=True)
    assert [item.amount for item in listed.responses] == list(range(300))
    failed = ask(gateway, client, "List", Item(name="raise", amount=2), streams_response=True)
    assert (len(failed.responses), failed.code, failed.message) == (2, 13, "LookupError: list broke")


@pytest.mark.parametrize("name", STREAMING)
def test_streams_of_requests(gateway: Gateway, name: str) -> None:
    items = [Item(amount=number) for number in range(200)]
    total = ask(gateway, STREAMING[name], "Total", *items, streams_request=True)
    assert total.responses == [Item(amount=19_900)]
    haggled = ask(gateway, STREAMING[name], "Haggle", *items, streams_request=True, streams_response=True)
    assert [item.amount for item in haggled.responses] == list(range(1, 201))


def test_a_get_of_a_method_without_side_effects(gateway: Gateway) -> None:
    call = TypedCall(path="/mesh.tests.Stock/Price", requests=(Item(name="pear"),))
    for codec in ("proto", "json"):
        seen = asyncio.run(by_connect(codec, uses_get=True)(gateway.http_port, call))
        assert seen.responses == [Item(name="pear", amount=1)]


@pytest.mark.parametrize("name", CLIENTS)
def test_metadata_go_both_ways(gateway: Gateway, name: str) -> None:
    seen = ask(gateway, CLIENTS[name], "Price", Item(name="metadata"), metadata=(("x-own", "7"),))
    assert seen.initial == [("x-own-first", "1"), ("x-own-raw-bin", b"\0\xff")]
    assert seen.trailing == [("x-own-last", "7")]


def test_an_error_has_its_details(gateway: Gateway) -> None:
    headers = {"content-type": "application/json", "connect-protocol-version": "1"}
    answer = httpx.post(f"{gateway.http_url}{SHOP}/Price", headers=headers, json={"name": "details"}, timeout=20)
    assert answer.status_code == 404
    tree = answer.json()
    assert (tree["code"], tree["message"]) == ("not_found", "no such item")
    assert tree["details"][0]["type"] == "google.rpc.ErrorInfo"
    assert tree["details"][0]["debug"] == {"reason": "SOLD_OUT"}
    assert ask(gateway, CLIENTS["gRPC-Web"], "Price", Item(name="details")).code == 5


def test_what_user_code_raises_is_internal(gateway: Gateway) -> None:
    for client in CLIENTS.values():
        seen = ask(gateway, client, "Price", Item(name="raise"))
        assert (seen.code, seen.message) == (13, "LookupError: no such item")


def test_a_response_is_compressed_if_method_and_client_want_it(gateway: Gateway) -> None:
    headers = {"content-type": "application/proto", "accept-encoding": "gzip"}
    body = Item(name="compress").SerializeToString()
    answer = httpx.post(f"{gateway.http_url}{SHOP}/Price", headers=headers, content=body, timeout=20)
    assert answer.headers["content-encoding"] == "gzip"
    assert Item.FromString(answer.content).name == "x" * 1000


def test_the_route_prefix_of_the_application_names_it(gateway: Gateway) -> None:
    url = f"{gateway.http_url}/connect{SHOP}/Price"
    answer = httpx.post(url, headers={"content-type": "application/proto"}, content=b"", timeout=20)
    assert (answer.status_code, Item.FromString(answer.content).amount) == (200, 1)


def test_a_deadline_ends_the_call_at_the_replica(gateway: Gateway, gate: Handle) -> None:
    # The first call to the gate also connects the replica to it.
    gate.open.remote("wait for nothing").result(timeout_s=10)
    assert ask(gateway, CLIENTS["gRPC-Web"], "Price", Item(name="wait for nothing")).code == 0
    headers = {"content-type": "application/proto", "connect-timeout-ms": "1000"}
    body = Item(name="wait for the deadline").SerializeToString()
    answer = httpx.post(f"{gateway.http_url}{SHOP}/Price", headers=headers, content=body, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    until(lambda: "wait for the deadline" in gate.cancelled_at_s.remote().result(timeout_s=10))


def test_a_client_that_leaves_cancels_its_call(gateway: Gateway, gate: Handle) -> None:
    leave_when(
        lambda: "wait for the client" in gate.entered.remote().result(timeout_s=10),
        "POST",
        f"{gateway.http_url}{SHOP}/Price",
        headers={"content-type": "application/proto"},
        content=Item(name="wait for the client").SerializeToString(),
    )
    until(lambda: "wait for the client" in gate.cancelled_at_s.remote().result(timeout_s=10))
    assert gate.entered.remote().result(timeout_s=10).count("wait for the client") == 1, "it is not made again"
