"""Web requests through a gateway: FastAPI applications, plain deployments, streams, WebSockets, large bodies."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from starlette.requests import Request as StarletteRequest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import mesh
from tests.e2e import leftovers
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.leaving import leave_when
from tests.e2e.waiting import until
from tests.e2e.web_shop import Handle, Shop
from tests.unit.protos import shop_pb2, shop_pb2_grpc

BULK_BYTES = 256 * 1024 * 1024
PIECE = b"0123456789abcdef" * 4096
GROWTH_MAX_BYTES = 100 * 1024 * 1024
"""What a process may take more at its peak while 256 MiB pass through it."""


@small(max_ongoing_requests=100)
class Plain:
    def __init__(self, full: Handle) -> None:
        self.full = full

    async def __call__(self, request: StarletteRequest) -> Any:
        match request.url.path.rpartition("/")[2]:
            case "upload":
                digest = hashlib.sha256()
                async for piece in request.stream():
                    digest.update(piece)
                return {"digest": digest.hexdigest()}
            case "download":
                return self.download(int(request.query_params["bytes"]))
            case "fails":
                return self.fail()
            case "array":
                return np.arange(3)
            case "echo":
                return await request.body()
            case "full":
                return await self.full.remote()
            case "broken":
                raise ValueError("a secret")
            case "hang":
                await asyncio.Event().wait()
        return f"{request.method} {dict(request.query_params)}"

    async def fail(self) -> AsyncIterator[str]:
        yield "first"
        raise ValueError("midway")

    async def download(self, size: int) -> AsyncIterator[bytes]:
        for _ in range(size // len(PIECE)):
            yield PIECE


@small(max_ongoing_requests=1, max_queued_requests=1)
class Full:
    """Takes one call, lets one wait, and refuses others."""

    async def __call__(self) -> None:
        await asyncio.Event().wait()


@small
def no_request() -> dict[str, int]:
    return {"answer": 42}


@pytest.fixture(scope="module")
def gate(deploy: Deploy) -> Handle:
    return deploy(Gate.bind(), "web-gate")


@pytest.fixture(scope="module")
def shop(deploy: Deploy, gate: Handle) -> Handle:
    return deploy(Shop.bind(gate), "web-shop")


@pytest.fixture(scope="module")
def client(gateway: Gateway, shop: Handle) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{gateway.http_url}/web-shop", timeout=15) as client:
        yield client


@pytest.fixture(scope="module")
def plain(gateway: Gateway, deploy: Deploy) -> Iterator[httpx.Client]:
    deploy(Plain.bind(Full.bind()), "web-plain")
    with httpx.Client(base_url=f"{gateway.http_url}/web-plain", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def function_url(gateway: Gateway, deploy: Deploy) -> str:
    deploy(no_request.bind(), "web-function")
    return f"{gateway.http_url}/web-function"


def test_a_fastapi_application_does_what_its_tutorial_says(client: httpx.Client) -> None:
    """Parameters, models, dependencies, status codes, background tasks, middleware and errors (items 103, 105)."""
    item = {"name": "pear", "price": 2.5, "tags": ["a", "a"], "images": [{"url": "x", "width": 3}]}
    assert client.put("/items/1", json=item).status_code == 401
    written = client.put("/items/1", json=item, headers={"x-token": "secret"})
    assert (written.status_code, written.json(), written.headers["x-timed"]) == (201, {"by": "alice"}, "yes")
    assert client.get("/items/1").json() == {**item, "tags": ["a"]}
    assert client.get("/items", params={"skip": 1}).json() == client.get("/items").json()[1:]
    assert client.get("/items", params={"limit": 101}).status_code == 422
    wrong = client.put("/items/1", json={**item, "price": 0}, headers={"x-token": "secret"})
    assert wrong.json()["detail"][0]["loc"] == ["body", "price"]
    missing = client.get("/items/2")
    assert (missing.status_code, missing.json()) == (404, {"detail": {"missing": "2"}})
    until(lambda: client.get("/written").json().count("alice: pear") == 1)
    assert client.get("/cookie", headers={"cookie": "ads=no"}).json() == "no"
    assert client.get("/divide", params={"by": 0}).status_code == 418
    assert client.get("/health").json() == ["hello", "state"]
    assert client.post("/health").status_code == 405
    assert client.options("/items").status_code == 405
    assert client.head("/health").status_code == 405


def test_documentation_and_redirects_work_below_the_prefix(client: httpx.Client) -> None:
    """Pages, schemas, redirects and the route of the request have it in front (items 109, 131)."""
    assert "/web-shop/openapi.json" in client.get("/docs").text
    document = client.get("/openapi.json").json()
    assert document["servers"] == [{"url": "/web-shop"}]
    assert "self" not in str(document["paths"]["/items/{item_id}"]["get"]["parameters"])
    redirect = client.get("/where")
    assert redirect.status_code == 307
    assert redirect.headers["location"] == str(client.base_url) + "where/"
    url, root_path, route, request_id = client.get("/where/?a=1", headers={"x-request-id": "mine"}).json()
    assert (url, root_path, route, request_id) == (
        str(client.base_url) + "where/?a=1",
        "/web-shop",
        "/web-shop/where/",
        "mine",
    )


@pytest.mark.usefixtures("shop")
def test_the_status_names_the_path_of_the_documentation() -> None:
    """Below the prefix of the application (item 107)."""
    assert mesh.status().applications["web-shop"].docs_path == "/docs"


def test_one_class_serves_web_handles_and_grpc(client: httpx.Client, shop: Handle, gateway: Gateway) -> None:
    """Whatever way a call comes, it reaches the same object (item 108)."""
    item = {"name": "fig", "price": 3.5}
    client.put("/items/fig", json=item, headers={"x-token": "secret"})
    assert shop.sell.remote("fig").result(timeout_s=15) == 3.5
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        stub = shop_pb2_grpc.ShopStub(channel)
        reply = stub.Price(shop_pb2.Item(name="fig"), metadata=(("application", "web-shop"),), timeout=15)
    assert reply.amount == 3


def test_a_stream_arrives_piece_by_piece(client: httpx.Client, gate: Handle) -> None:
    """The first piece is here while the application waits (item 112)."""
    with client.stream("GET", "/stream/piecewise") as response:
        pieces = response.iter_raw()
        assert (response.status_code, response.headers["x-kind"]) == (206, "stream")
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        assert next(pieces) == b"first"
        gate.open.remote("piecewise").result(timeout_s=15)
        assert b"".join(pieces) == b"piecewise"


def test_a_failure_midway_breaks_the_connection(plain: httpx.Client) -> None:
    """The client does not take the response for complete (item 112)."""
    with pytest.raises(httpx.RemoteProtocolError):
        plain.get("/fails")


def test_a_client_that_leaves_before_the_response_has_begun_cancels_all_the_way_down(
    client: httpx.Client, gate: Handle
) -> None:
    """The child call is made once (items 112, 207)."""
    leave_when(lambda: "leaves" in entered(gate), "GET", f"{client.base_url}gate/leaves")
    until(lambda: "leaves" in gate.cancelled_at_s.remote().result(timeout_s=15))
    assert entered(gate).count("leaves") == 1, "it is not made again"


def test_a_client_that_leaves_in_the_middle_of_a_response_cancels_all_the_way_down(
    client: httpx.Client, gate: Handle
) -> None:
    """The head and the first piece have come (items 112, 207)."""
    with httpx.stream("GET", f"{client.base_url}stream/leaves-midway", timeout=15) as response:
        pieces = response.iter_raw()  # the response is closed when nothing holds it
        assert next(pieces) == b"first"
        until(lambda: "leaves-midway" in entered(gate))
    until(lambda: "leaves-midway" in gate.cancelled_at_s.remote().result(timeout_s=15))
    assert entered(gate).count("leaves-midway") == 1, "it is not made again"


def entered(gate: Handle) -> list[str]:
    found: list[str] = gate.entered.remote().result(timeout_s=15)
    return found


def test_websockets(client: httpx.Client, gateway: Gateway) -> None:
    """Text, binary, subprotocol, and closing by both sides (item 111)."""
    url = f"ws://127.0.0.1:{gateway.http_port}/web-shop/ws"
    with connect(f"{url}/kitchen", subprotocols=["other", "chat"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "chat"
        for text in ("hi", "", "ü" * 100_000):
            socket.send(text)
            assert socket.recv(timeout=15) == f"kitchen: {text}"
            assert socket.recv(timeout=15) == text.encode()
        socket.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=15)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "left kitchen")
    with pytest.raises(Exception, match="403"):
        connect(f"{url}/closed")


def test_plain_deployments(plain: httpx.Client, function_url: str) -> None:
    """They get a Starlette request, and what they return becomes a response (items 27, 114)."""
    assert plain.get("/x", params={"a": 1}).text == "GET {'a': '1'}"
    assert plain.get("/array").json() == [0, 1, 2]
    echoed = plain.post("/echo", content=b"\x00\xff")
    assert (echoed.content, echoed.headers["content-type"]) == (b"\x00\xff", "application/octet-stream")
    assert httpx.get(function_url, timeout=15).json() == {"answer": 42}


def test_errors_have_their_statuses(plain: httpx.Client) -> None:
    """Also those of deployments that an ingress calls (items 143, 144, 205)."""
    broken = plain.get("/broken")
    assert (broken.status_code, broken.text) == (500, "Internal Server Error")
    late = plain.get("/hang", headers={"x-request-timeout-seconds": "0.2", "x-request-id": "r-1"})
    assert (late.status_code, late.text) == (408, "Request r-1 timed out after 0.2s.")
    with ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(status_of, plain, "/full") for _ in range(6)]
        until(lambda: 503 in [answer.result() for answer in answers if answer.done()])
        assert {answer.result() for answer in answers} == {503, None}


def status_of(client: httpx.Client, path: str) -> int | None:
    """None if there is no answer within some seconds."""
    try:
        return client.get(path, timeout=4).status_code
    except httpx.TimeoutException:
        return None


def memory_bytes(pid: int, field: str) -> int:
    """A line of the process's status: VmRSS is what it has, VmHWM what it had at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


class Memory:
    """The memory of some processes from now on."""

    def __init__(self, pids: list[int]) -> None:
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._before = {pid: memory_bytes(pid, "VmRSS") for pid in pids}

    def growth_bytes(self) -> int:
        """Of the process that grew most, at its peak."""
        return max(memory_bytes(pid, "VmHWM") - before for pid, before in self._before.items())


def processes_of(app: str) -> list[int]:
    """The replicas of an application and the gateway."""
    deployments = mesh.status().applications[app].deployments.values()
    replicas = [replica.pid for deployment in deployments for replica in deployment.replicas.values()]
    (gateway,) = leftovers.actor_processes("gateway")
    return [*replicas, int(gateway.split()[0])]


@pytest.mark.timeout(180)
def test_large_bodies_take_little_memory(plain: httpx.Client) -> None:
    """256 MiB up and down, through gateway and replica, as streams of unknown length."""
    plain.get("/x")
    memory = Memory(processes_of("web-plain"))
    expected = hashlib.sha256(PIECE * (BULK_BYTES // len(PIECE))).hexdigest()
    uploaded = plain.post("/upload", content=(PIECE for _ in range(BULK_BYTES // len(PIECE))))
    assert uploaded.json() == {"digest": expected}
    received, digest = 0, hashlib.sha256()
    with plain.stream("GET", "/download", params={"bytes": BULK_BYTES}) as response:
        for piece in response.iter_raw():
            digest.update(piece)
            received += len(piece)
    assert (received, digest.hexdigest()) == (BULK_BYTES, expected)
    assert memory.growth_bytes() < GROWTH_MAX_BYTES


def test_a_client_that_does_not_read_holds_up_nothing(plain: httpx.Client) -> None:
    memory = Memory(processes_of("web-plain"))
    with plain.stream("GET", "/download", params={"bytes": BULK_BYTES}) as response:
        next(response.iter_raw())
        for _ in range(50):
            assert plain.get("/x").status_code == 200
        assert memory.growth_bytes() < GROWTH_MAX_BYTES
