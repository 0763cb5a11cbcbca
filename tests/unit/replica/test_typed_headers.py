"""Initial metadata and compression from typed methods, over real links to what a gateway's call receives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import Payload, raw
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of
from tests.unit.protos import shop_pb2, shop_pb2_grpc

DEADLINE_S = 30.0
pytestmark = pytest.mark.timeout(60)

HEADERS = ("headers", (("first", b"1"), ("blob-bin", b"\xff")))
GZIP = ("compression", "gzip", False)
SKIP = ("compression", "", True)


def start(context: Any, name: str) -> Any:
    """What both kinds of methods do before their first message; returns what grpc.aio's users await."""
    match name:
        case "compressed":
            context.set_compression(grpc.Compression.Gzip)
            context.disable_next_message_compression()
        case "not a compression":
            context.set_compression("gzip")
        case "twice":
            context.send_initial_metadata([("k", "v")])
        case "no metadata":
            return context.send_initial_metadata(())
        case "wrong value":
            return context.send_initial_metadata([("k", 7)])
        case "wrong key":
            return context.send_initial_metadata([("é", "1")])
    return context.send_initial_metadata([("first", "1"), ("blob-bin", b"\xff")])


class Shop(shop_pb2_grpc.ShopServicer):
    def __init__(self) -> None:
        self.go_on = threading.Event()

    async def Price(self, request: Any, context: Any) -> Any:
        await start(context, request.name)
        if request.name == "waits":
            await asyncio.to_thread(self.go_on.wait, DEADLINE_S)
        if request.name == "fails":
            raise LookupError("no such item")
        return request

    async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.name != "late":
            await start(context, request.name)
        yield request
        context.disable_next_message_compression()
        if request.name == "late":
            await start(context, request.name)
        if request.name == "late compression":
            context.set_compression(grpc.Compression.Gzip)
        yield request


class PlainShop(shop_pb2_grpc.ShopServicer):
    def __init__(self) -> None:
        self.go_on = threading.Event()

    def Price(self, request: Any, context: Any) -> Any:
        start(context, request.name)
        if request.name == "waits":
            self.go_on.wait(DEADLINE_S)
        if request.name == "fails":
            raise LookupError("no such item")
        return request

    def List(self, request: Any, context: Any) -> Iterator[Any]:
        if request.name != "late":
            start(context, request.name)
        yield request
        context.disable_next_message_compression()
        if request.name == "late":
            start(context, request.name)
        if request.name == "late compression":
            context.set_compression(grpc.Compression.Gzip)
        yield request


class Client:
    """One call, and what its sink gets, in order."""

    def __init__(self, mesh: SmallMesh, method: str, name: str) -> None:
        self.events: list[Any] = []
        self.outcome = Outcome()
        self.has_headers = threading.Event()
        self._ended = threading.Event()
        payload = raw(shop_pb2.Item(name=name).SerializeToString())
        request = CallRequest(
            f"/mesh.tests.Shop/{method}", payload, RequestContext("id"), None, streams_response=method == "List"
        )
        io_thread().post(mesh.router.submit, OutgoingCall(request, self))

    def on_item(self, payload: Payload) -> None:
        self.events.append("item")

    def on_credit(self) -> None: ...

    def on_initial_metadata(self, entries: Trailers) -> None:
        self.events.append(("headers", entries))
        self.has_headers.set()

    def on_compression(self, encoding: str, *, skips_next: bool) -> None:
        self.events.append(("compression", encoding, skips_next))

    def on_done(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._ended.set()

    def ended(self) -> Client:
        assert self._ended.wait(DEADLINE_S)
        return self


@pytest.fixture(params=[Shop, PlainShop])
def mesh(request: pytest.FixtureRequest) -> Iterator[SmallMesh]:
    with mesh_of(request.param()) as mesh:
        yield mesh
        mesh.assert_idle()


def test_initial_metadata_arrive_while_a_unary_method_runs(mesh: SmallMesh) -> None:
    client = Client(mesh, "Price", "waits")
    assert client.has_headers.wait(DEADLINE_S)
    assert client.events == [HEADERS]
    mesh.replicas[0].target.go_on.set()  # type: ignore[attr-defined]
    assert client.ended().outcome.is_ok


def test_initial_metadata_may_be_empty(mesh: SmallMesh) -> None:
    assert Client(mesh, "Price", "no metadata").ended().events == [("headers", ())]


def test_a_method_may_fail_after_its_headers(mesh: SmallMesh) -> None:
    client = Client(mesh, "Price", "fails").ended()
    assert (client.events, client.outcome.code) == ([HEADERS], 13)
    assert client.outcome.message == "LookupError: no such item"


def test_headers_and_compression_stay_in_order_with_messages(mesh: SmallMesh) -> None:
    client = Client(mesh, "List", "compressed").ended()
    assert client.outcome.is_ok, client.outcome.message
    assert client.events == [GZIP, SKIP, HEADERS, "item", SKIP, "item"]
    assert Client(mesh, "Price", "compressed").ended().events == [GZIP, SKIP, HEADERS]


@pytest.mark.parametrize(
    ("method", "name", "error"),
    [
        ("Price", "twice", "RuntimeError: send_initial_metadata() comes too late"),
        ("List", "late", "RuntimeError: send_initial_metadata() comes too late"),
        ("List", "late compression", "RuntimeError: set_compression() comes too late"),
        ("Price", "not a compression", "TypeError: set_compression() takes a grpc.Compression, got 'gzip'"),
        ("Price", "wrong value", "TypeError: metadata are pairs of an ASCII string and a string or bytes"),
        ("Price", "wrong key", "TypeError: metadata are pairs of an ASCII string and a string or bytes"),
    ],
)
def test_wrong_use_raises_in_the_method(mesh: SmallMesh, method: str, name: str, error: str) -> None:
    outcome = Client(mesh, method, name).ended().outcome
    assert outcome.code == grpc.StatusCode.INTERNAL.value[0]
    assert outcome.message.startswith(error)


def test_handles_ignore_what_is_meant_for_grpc_clients(mesh: SmallMesh) -> None:
    request = shop_pb2.Item(name="compressed")
    assert mesh.handle("Price").remote(request).result(timeout_s=DEADLINE_S) == request
