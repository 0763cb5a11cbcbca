"""Every dialect on every port: the usual two, and gateways with one port of either kind.

Each client asserts the answers that it gets.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import grpc
import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from websockets.sync.client import connect

import mesh
from tests.e2e import leftovers
from tests.e2e.conftest import Gateway
from tests.e2e.gate import small
from tests.unit.gateway.typed_clients import (
    Client,
    TypedCall,
    by_connect,
    by_connectrpc,
    by_grpc_web,
    by_grpc_web_text,
)
from tests.unit.protos import shop_pb2_grpc
from tests.unit.protos.shop_pb2 import Item

TIMEOUT_S = 20
PRICE, LIST, HAGGLE = (f"/mesh.tests.Shop/{name}" for name in ("Price", "List", "Haggle"))
LARGE = bytes(range(256)) * 8_000
app = FastAPI()


@small(max_ongoing_requests=100)
@mesh.ingress(app)
class Shop(shop_pb2_grpc.ShopServicer):
    """Serves typed methods and a web application."""

    async def Price(self, request: Any, context: Any) -> Any:
        return Item(name=request.name, amount=len(request.name))

    async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(request.amount):
            yield Item(amount=number)

    async def Haggle(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for item in request_iterator:
            yield Item(amount=item.amount + 1)

    @app.get("/hello/{name}")
    async def hello(self, name: str) -> str:
        return f"hello {name}"

    @app.post("/size")
    async def size(self, request: Request) -> int:
        return sum([len(piece) async for piece in request.stream()])

    @app.websocket("/echo")
    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text.upper())


def deploy() -> None:
    mesh.run(Shop.bind(), name="every", route_prefix="/every")


@pytest.fixture(scope="module")
def usual(gateway: Gateway) -> Iterator[Gateway]:
    deploy()
    yield gateway
    mesh.delete("every")


@pytest.fixture(scope="module", params=["grpc_port", "http_port"])
def only_port(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[int]:
    """The only port of a mesh of its own; after it the run's mesh is there again."""
    mesh.shutdown()
    ports = {name: getattr(gateway, name) if name == request.param else None for name in ("grpc_port", "http_port")}
    mesh.start(http_options={"port": ports["http_port"]}, grpc_options={"port": ports["grpc_port"]})
    deploy()
    yield ports[request.param]
    mesh.shutdown()
    gateway.start_mesh()


# ---- Clients: each gets a port, calls, and checks what came back -----------------------------------------------------


def by_stock_grpc(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = shop_pb2_grpc.ShopStub(channel)
        assert stub.Price(Item(name="pear"), timeout=TIMEOUT_S).amount == 4
        assert [item.amount for item in stub.List(Item(amount=3), timeout=TIMEOUT_S)] == [0, 1, 2]
        haggled = stub.Haggle(iter([Item(amount=1), Item(amount=2)]), timeout=TIMEOUT_S)
        assert [item.amount for item in haggled] == [2, 3]


def by_typed(client: Client) -> Callable[[int], None]:
    def talk(port: int) -> None:
        seen = asyncio.run(client(port, TypedCall(path=PRICE, requests=(Item(name="pear"),))))
        assert (seen.code, [item.amount for item in seen.responses]) == (0, [4])
        call = TypedCall(path=LIST, requests=(Item(amount=3),), streams_response=True)
        assert [item.amount for item in asyncio.run(client(port, call)).responses] == [0, 1, 2]

    return talk


def by_httpx(**versions: bool) -> Callable[[int], None]:
    """JSON, lines and events of typed methods, the web application, and what operators read."""

    def talk(port: int) -> None:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S, trust_env=False, **versions
        ) as client:
            priced = client.post(PRICE, json={"name": "pear"})
            assert (priced.http_version, priced.json()) == (
                "HTTP/2" if versions.get("http2") else "HTTP/1.1",
                {"name": "pear", "amount": "4"},
            )
            events = client.post(LIST, json={"amount": 2}, headers={"accept": "text/event-stream"})
            assert events.text == 'data: {}\n\ndata: {"amount":"1"}\n\nevent: end\ndata: {}\n\n'
            lines = client.post(
                f"/every{HAGGLE}",
                content='{"amount":1}\n{"amount":2}\n',
                headers={"content-type": "application/x-ndjson"},
            )
            assert lines.json() == [{"amount": "2"}, {"amount": "3"}]
            assert client.get("/every/hello/pear").json() == "hello pear"
            assert client.post("/every/size", content=LARGE).json() == len(LARGE)
            assert client.get("/nowhere").status_code == 404
            assert client.get("/-/healthz").status_code == 200
            assert client.get("/-/routes").json() == {"/every": "every"}
            assert "/mesh.tests.Shop/Price" in client.get("/-/openapi.json").json()["paths"]

    return talk


def by_websockets(port: int) -> None:
    """A method, and the web application."""
    with connect(f"ws://127.0.0.1:{port}{HAGGLE}", open_timeout=TIMEOUT_S, proxy=None) as socket:
        for amount in (1, 2):
            socket.send(json.dumps({"amount": amount}))
            assert json.loads(socket.recv(TIMEOUT_S)) == {"amount": str(amount + 1)}
        socket.send(Item(amount=7).SerializeToString())
        assert Item.FromString(bytes(socket.recv(TIMEOUT_S))).amount == 8  # type: ignore[arg-type]
        socket.send("")
        assert list(socket) == []
    with connect(f"ws://127.0.0.1:{port}/every/echo", open_timeout=TIMEOUT_S, proxy=None) as socket:
        for text in ("a", "b" * 100_000):
            socket.send(text)
            assert socket.recv(TIMEOUT_S) == text.upper()


def by_curl(port: int) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for version in ("--http1.1", "--http2-prior-knowledge"):
        for path, body, answered in (
            (PRICE, '{"name":"fig"}', '{"name":"fig","amount":"3"}'),
            ("/every/size", "abc", "3"),
        ):
            command = ["curl", "-sS", "--max-time", "20", version, "-H", "content-type: application/json"]
            url = f"http://127.0.0.1:{port}{path}"
            done = subprocess.run([*command, "-d", body, url], capture_output=True, text=True, timeout=30, check=True)
            assert done.stdout == answered


CLIENTS: dict[str, Callable[[int], None]] = {
    "stock grpc": by_stock_grpc,
    "Connect of Protobuf": by_typed(by_connect("proto")),
    "Connect of JSON": by_typed(by_connect("json")),
    "gRPC-Web of connectrpc": by_typed(partial(by_connectrpc, protocol="GRPC_WEB")),
    "gRPC-Web": by_typed(by_grpc_web),
    "gRPC-Web of text": by_typed(by_grpc_web_text),
    "httpx, HTTP/1.1": by_httpx(),
    "httpx, HTTP/2": by_httpx(http1=False, http2=True),
    "websockets": by_websockets,
    "curl": by_curl,
}


@pytest.mark.parametrize("port", ["grpc_port", "http_port"])
@pytest.mark.parametrize("client", CLIENTS)
def test_both_ports_speak_every_dialect(usual: Gateway, port: str, client: str) -> None:
    assert_answers = CLIENTS[client]
    assert_answers(getattr(usual, port))


@pytest.mark.parametrize("client", CLIENTS)
def test_a_gateway_with_one_port_speaks_every_dialect(only_port: int, client: str) -> None:
    """`port: None` turns either one off (item 54)."""
    assert_answers = CLIENTS[client]
    assert_answers(only_port)


def test_the_other_port_is_closed(only_port: int, gateway: Gateway) -> None:
    """And the status has no address for it."""
    assert [port for port in (gateway.grpc_port, gateway.http_port) if leftovers.is_listening(port)] == [only_port]
    (status,) = mesh.status().gateways
    assert [bool(each) for each in (status.grpc_address, status.http_address)] == [
        only_port == port for port in (gateway.grpc_port, gateway.http_port)
    ]
