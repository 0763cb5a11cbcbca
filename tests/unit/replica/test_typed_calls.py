"""Typed methods of all arities over real links, as the gateway calls them: messages, contexts, statuses, cancels."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallRequest, OutgoingCall
from mesh.settings import settings
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome, Trailers
from mesh.wire.payload import Payload, raw
from mesh.wire.request_context import RequestContext
from tests.unit.fakes.small_mesh import SmallMesh, do_on_io, mesh_of, until
from tests.unit.protos import shop_pb2, shop_pb2_grpc

DEADLINE_S = 30.0
pytestmark = pytest.mark.timeout(60)


class Shop(shop_pb2_grpc.ShopServicer):
    """`async def` methods, as gRPC users write them."""

    def __init__(self) -> None:
        self.taken = 0
        self.done = threading.Event()

    async def Price(self, request: Any, context: Any) -> Any:
        match request.name:
            case "missing":
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing", [("k", "v"), ("b-bin", b"\xff")])
            case "coded":
                context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
                context.set_details("sold out")
                return None
            case "bad code":
                context.set_code(5)
            case "bad trailers":
                context.set_trailing_metadata([("k", 7)])
            case "bad callback":
                context.add_done_callback(lambda _: 1 / 0)
            case "exiting callback":
                context.add_done_callback(lambda _: sys.exit(1))
            case "bad abort":
                context.abort("NOT_FOUND", "no such thing")
            case "error as details":
                context.abort(grpc.StatusCode.NOT_FOUND, KeyError("no such thing"))
            case "number as details":
                context.set_code(grpc.StatusCode.NOT_FOUND)
                context.set_details(404)
            case "done":
                context.add_done_callback(lambda _: self.done.set())
            case "fine and failed":
                context.set_code(grpc.StatusCode.OK)
                raise ValueError("all is not well")
            case "wrong type":
                return "a string"
        return shop_pb2.Item(name=dict(context.invocation_metadata()).get("k", ""), amount=request.amount)

    async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(request.amount):
            yield shop_pb2.Item(amount=number)

    async def Total(self, requests: Any, context: Any) -> Any:
        total = 0
        async for item in requests:
            self.taken += 1
            total += item.amount
        return shop_pb2.Item(amount=total)

    async def Haggle(self, requests: Any, context: Any) -> None:
        while (item := await context.read()) is not grpc.aio.EOF:
            await asyncio.gather(*(context.write(shop_pb2.Item(amount=item.amount)) for _ in range(2)))


class BothWays(shop_pb2_grpc.ShopServicer):
    """Called by clients of gRPC and by handles."""

    async def Price(self, request: Any, is_cheap: Any = False) -> Any:
        return is_cheap if isinstance(request, int) else shop_pb2.Item(name=is_cheap.peer())


class PlainShop(shop_pb2_grpc.ShopServicer):
    """`def` methods: the same, in threads."""

    taken = 0

    def Price(self, request: Any, context: Any) -> Any:
        if request.name == "missing":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        return shop_pb2.Item(amount=request.amount)

    def List(self, request: Any, context: Any) -> Iterator[Any]:
        for number in range(request.amount):
            yield shop_pb2.Item(amount=number)

    def Total(self, requests: Any, context: Any) -> Any:
        total = 0
        for item in requests:
            self.taken += 1
            total += item.amount
        return shop_pb2.Item(amount=total)

    def Haggle(self, requests: Any, context: Any) -> Iterator[Any]:
        for item in requests:
            yield item
            yield item


class Confused(shop_pb2_grpc.ShopServicer):
    """A generator where one response is declared, and none where a stream is."""

    async def Price(self, request: Any, context: Any) -> Any:
        return (each for each in [request])

    async def List(self, request: Any, context: Any) -> Any:
        return request


class Client:
    """One call: sends requests as credit allows and keeps what comes back."""

    def __init__(
        self, mesh: SmallMesh, method: str, *requests: Any, streams: tuple[bool, bool], half_closes: bool = True
    ) -> None:
        self.half_closes = half_closes
        self.router = mesh.router
        self.items: list[int] = []
        self.outcomes: list[Outcome] = []
        self.ended = threading.Event()
        self._requests = list(requests)
        self._sent = 0
        payload = None if streams[0] else raw(requests[0].SerializeToString())
        request = CallRequest(
            f"/mesh.tests.Shop/{method}", payload, RequestContext("id"), None, *streams, metadata=(("k", "value"),)
        )
        self.call = OutgoingCall(request, self)
        io_thread().post(self.router.submit, self.call)

    def on_item(self, payload: Payload) -> None:
        self.items.append(shop_pb2.Item.FromString(bytes(payload.data)).amount)
        self.call.grant(1)

    def on_credit(self) -> None:
        while self._sent < len(self._requests) and self.call.request_credit > 0:
            self.call.send_item(raw(self._requests[self._sent].SerializeToString()))
            self._sent += 1
            if self._sent == len(self._requests) and self.half_closes:
                self.call.half_close()

    def on_initial_metadata(self, entries: Trailers) -> None: ...

    def on_compression(self, encoding: str, *, skips_next: bool) -> None: ...

    def on_done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.ended.set()

    def outcome(self) -> Outcome:
        assert self.ended.wait(DEADLINE_S)
        (outcome,) = self.outcomes
        return outcome

    def amount(self) -> int:
        outcome = self.outcome()
        assert outcome.is_ok, outcome.message
        assert outcome.payload is not None
        amount: int = shop_pb2.Item.FromString(bytes(outcome.payload.data)).amount
        return amount


@pytest.fixture(params=[Shop, PlainShop])
def mesh(request: pytest.FixtureRequest) -> Iterator[SmallMesh]:
    with mesh_of(request.param()) as mesh:
        yield mesh
        mesh.assert_idle()


@pytest.fixture
def async_mesh() -> Iterator[SmallMesh]:
    with mesh_of(Shop()) as mesh:
        yield mesh
        mesh.assert_idle()


def item(amount: int = 0, name: str = "") -> Any:
    return shop_pb2.Item(amount=amount, name=name)


def unary(mesh: SmallMesh, request: Any) -> Client:
    return Client(mesh, "Price", request, streams=(False, False))


def test_unary(mesh: SmallMesh) -> None:
    assert unary(mesh, item(7)).amount() == 7


def test_server_stream(mesh: SmallMesh) -> None:
    client = Client(mesh, "List", item(1000), streams=(False, True))
    assert client.outcome().is_ok
    assert client.items == list(range(1000))


def test_client_stream(mesh: SmallMesh) -> None:
    client = Client(mesh, "Total", *map(item, range(1000)), streams=(True, False))
    assert client.amount() == sum(range(1000))


def test_bidi(mesh: SmallMesh) -> None:
    client = Client(mesh, "Haggle", *map(item, range(500)), streams=(True, True))
    assert client.outcome().is_ok
    assert client.items == [number for number in range(500) for _ in range(2)]


def test_a_request_stream_that_is_given_up_ends_its_reader(mesh: SmallMesh) -> None:
    client = Client(mesh, "Total", item(1), streams=(True, False), half_closes=False)
    until(lambda: mesh.replicas[0].target.taken == 1, "the first to be taken")
    do_on_io(mesh.router.cancel, client.call, CancelReason.CLIENT)
    assert client.outcome().code == 1


def test_an_aborted_call_has_its_status(mesh: SmallMesh) -> None:
    outcome = unary(mesh, item(name="missing")).outcome()
    assert (outcome.code, outcome.message) == (5, "no such thing")


def test_code_details_and_trailers_arrive(async_mesh: SmallMesh) -> None:
    assert unary(async_mesh, item(name="missing")).outcome().trailers == (("k", b"v"), ("b-bin", b"\xff"))
    outcome = unary(async_mesh, item(name="coded")).outcome()
    assert (outcome.code, outcome.message, outcome.payload) == (8, "sold out", None)


@pytest.mark.parametrize(
    "name", ["bad code", "bad trailers", "bad callback", "exiting callback", "bad abort", "wrong type"]
)
def test_whatever_a_method_does_to_its_context_its_call_ends(async_mesh: SmallMesh, name: str) -> None:
    outcome = unary(async_mesh, item(name=name)).outcome()
    assert outcome.code == grpc.StatusCode.INTERNAL.value[0]
    assert unary(async_mesh, item(3)).amount() == 3


@pytest.mark.parametrize(("name", "details"), [("error as details", "'no such thing'"), ("number as details", "404")])
def test_details_may_be_anything_that_has_a_text(async_mesh: SmallMesh, name: str, details: str) -> None:
    outcome = unary(async_mesh, item(name=name)).outcome()
    assert (outcome.code, outcome.message) == (5, details)


def test_a_call_that_failed_cannot_be_made_ok(async_mesh: SmallMesh) -> None:
    """A code that user code has set wins, except OK after a failure (item 218)."""
    outcome = unary(async_mesh, item(name="fine and failed")).outcome()
    assert (outcome.code, outcome.message) == (grpc.StatusCode.INTERNAL.value[0], "ValueError: all is not well")


def test_done_callbacks_run(async_mesh: SmallMesh) -> None:
    assert unary(async_mesh, item(name="done")).outcome().is_ok
    assert async_mesh.replicas[0].target.done.wait(DEADLINE_S)


class Malformed:
    """A message that no parser accepts."""

    def SerializeToString(self) -> bytes:
        return b"\xff"


@pytest.mark.parametrize(
    ("method", "streams"),
    [("Price", (False, False)), ("List", (False, True)), ("Total", (True, False)), ("Haggle", (True, True))],
)
def test_a_message_that_cannot_be_parsed_is_the_client_s_fault(
    mesh: SmallMesh, method: str, streams: tuple[bool, bool]
) -> None:
    """The client gets INVALID_ARGUMENT (item 215)."""
    outcome = Client(mesh, method, Malformed(), streams=streams).outcome()
    assert outcome.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert outcome.message.startswith(f"The request message of /mesh.tests.Shop/{method} cannot be parsed: ")


def test_a_generator_in_the_wrong_place_is_named_by_the_method_s_own_terms() -> None:
    """Not by an option of handles, which a client of gRPC does not have."""
    with mesh_of(Confused()) as mesh:
        assert unary(mesh, item()).outcome().message == (
            "TypeError: '/mesh.tests.Shop/Price' has one response, but returned a generator: return the message, or "
            "declare a stream of them."
        )
        assert Client(mesh, "List", item(), streams=(False, True)).outcome().message == (
            "TypeError: '/mesh.tests.Shop/List' streams its responses, but returned no generator: write each message "
            "with `yield`."
        )


def test_requests_wait_for_credit(async_mesh: SmallMesh) -> None:
    client = Client(async_mesh, "Total", *map(item, range(3)), streams=(True, False))
    assert client.amount() == 3
    assert client.call.request_credit <= settings().payload.stream_credits


def test_a_context_is_for_clients_and_not_for_handles() -> None:
    """A default stays as it is in a call of a handle (D1)."""
    with mesh_of(BothWays()) as mesh:
        assert mesh.handle("Price").remote(5).result(timeout_s=DEADLINE_S) is False
        client = Client(mesh, "Price", shop_pb2.Item(), streams=(False, False))
        assert client.outcome().is_ok
