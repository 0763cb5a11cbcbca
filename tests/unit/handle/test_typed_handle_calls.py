"""Handles that call methods of gRPC services by their full names: protobuf messages travel as such."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from mesh.context import ServeRequestContext, _get_serve_request_context
from mesh.exceptions import GrpcStatusError, MeshException
from tests.unit.fakes.small_mesh import SmallMesh, mesh_of
from tests.unit.protos import shop_pb2, shop_pb2_grpc

DEADLINE_S = 30.0
pytestmark = pytest.mark.timeout(60)


class Shop(shop_pb2_grpc.ShopServicer):
    async def Price(self, request: Any, context: Any) -> Any:
        if request.name == "missing":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing", [("k", "v")])
        tenant = dict(context.invocation_metadata()).get("tenant", "")
        await context.send_initial_metadata([("served-by", "shop")])
        context.set_trailing_metadata([("cost", "1"), ("cost-bin", b"\xff")])
        return shop_pb2.Item(name=request.name + tenant, amount=3)

    async def Describe(self, grpc_context: Any) -> Any:
        found = _get_serve_request_context()
        has_context = found.grpc_context is grpc_context
        return found.request_id, found.multiplexed_model_id, has_context, found.is_http_request

    async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for amount in range(request.amount):
            yield shop_pb2.Item(amount=amount)

    async def Total(self, requests: Any, context: Any) -> Any:
        return shop_pb2.Item(amount=sum([item.amount async for item in requests]))

    async def Haggle(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        context.set_trailing_metadata([("done", "yes")])
        async for item in requests:
            yield shop_pb2.Item(amount=item.amount - 1)


@pytest.fixture(scope="module")
def mesh() -> Iterator[SmallMesh]:
    with mesh_of(Shop()) as mesh:
        yield mesh
        mesh.assert_idle()


def items(count: int) -> list[Any]:
    return [shop_pb2.Item(amount=amount) for amount in range(count)]


async def stream_of(messages: list[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message


def test_all_four_kinds_of_methods_take_and_give_messages(mesh: SmallMesh) -> None:
    """The kind is that of the service: `stream=True` is not needed (items 213, 215, 216)."""
    item = shop_pb2.Item(name="pear")
    priced = mesh.handle("/mesh.tests.Shop/Price").remote(item).result(timeout_s=DEADLINE_S)
    assert priced == shop_pb2.Item(name="pear", amount=3)
    listed = mesh.handle("/mesh.tests.Shop/List").remote(shop_pb2.Item(amount=300))
    assert list(listed) == items(300)
    total = mesh.handle("/mesh.tests.Shop/Total").remote(items(10))
    assert total.result(timeout_s=DEADLINE_S).amount == 45
    assert [each.amount for each in mesh.handle("/mesh.tests.Shop/Haggle").remote(items(300))] == list(range(-1, 299))


def test_async_code_streams_messages_too(mesh: SmallMesh) -> None:
    """Both iteration and awaiting give messages (item 216)."""

    async def call() -> None:
        total = await mesh.handle("/mesh.tests.Shop/Total").remote(stream_of(items(10)))
        assert total.amount == 45
        haggled = mesh.handle("/mesh.tests.Shop/Haggle").remote(stream_of(items(10)))
        assert [each.amount async for each in haggled] == list(range(-1, 9))

    asyncio.run(call())


def test_metadata_and_trailers_go_with_the_call(mesh: SmallMesh) -> None:
    """Metadata is an option; initial and trailing metadata are read from the response (items 6, 217)."""
    priced = mesh.handle("/mesh.tests.Shop/Price", metadata=[("tenant", "a")])
    response = priced.remote(shop_pb2.Item(name="pear"))
    assert response.initial_metadata_sync(timeout_s=DEADLINE_S) == (("served-by", "shop"),)
    assert response.trailing_metadata_sync(timeout_s=DEADLINE_S) == (("cost", "1"), ("cost-bin", b"\xff"))
    assert response.result(timeout_s=DEADLINE_S).name == "peara"

    async def call() -> None:
        response = priced.options(metadata={"tenant": "b"}).remote(shop_pb2.Item(name="pear"))
        assert await response.initial_metadata() == (("served-by", "shop"),)
        assert (await response).name == "pearb"
        assert await response.trailing_metadata() == (("cost", "1"), ("cost-bin", b"\xff"))

    asyncio.run(call())


def test_the_context_of_ray_serve_has_that_of_grpc(mesh: SmallMesh) -> None:
    """And the fields of the request; outside of one it is empty (items 131, 217)."""
    response = mesh.handle("Describe", multiplexed_model_id="m1").remote()
    described = response.result(timeout_s=DEADLINE_S)
    assert described == (response.request_id, "m1", True, False)
    assert _get_serve_request_context() == ServeRequestContext()


def test_headers_of_a_stream_come_with_its_first_item_at_the_latest(mesh: SmallMesh) -> None:
    async def call() -> None:
        answered = asyncio.Event()

        async def one() -> AsyncIterator[Any]:
            yield shop_pb2.Item(amount=1)
            await answered.wait()

        response = mesh.handle("/mesh.tests.Shop/Haggle").remote(one())
        assert await response.initial_metadata() == ()
        answered.set()
        assert [item.amount async for item in response] == [0]
        assert await response.trailing_metadata() == (("done", "yes"),)

    asyncio.run(asyncio.wait_for(call(), DEADLINE_S))


def test_one_who_gives_up_waiting_for_headers_leaves_nothing_behind(mesh: SmallMesh) -> None:
    """It may try again and again while the method takes its time; the call goes on."""

    async def call() -> None:
        async def none() -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        response = mesh.handle("/mesh.tests.Shop/Haggle").remote(none())
        for _ in range(3):
            waiting = asyncio.create_task(response.initial_metadata())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert response._future._header_waiters == []
        assert response._future.outcome is None
        response.cancel()

    asyncio.run(asyncio.wait_for(call(), DEADLINE_S))


def test_the_trailers_of_a_status_can_be_read(mesh: SmallMesh) -> None:
    """However the call ends (item 218)."""
    response = mesh.handle("/mesh.tests.Shop/Price").remote(shop_pb2.Item(name="missing"))
    assert response.trailing_metadata_sync(timeout_s=DEADLINE_S) == (("k", "v"),)
    assert response.initial_metadata_sync(timeout_s=DEADLINE_S) == ()
    with pytest.raises(GrpcStatusError) as caught:
        response.result(timeout_s=DEADLINE_S)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "argument", "message"),
    [
        ("Price", "pear", "takes Item messages, not str"),
        ("Total", shop_pb2.Item(), "an iterable of its messages"),
        ("Total", "pear", "an iterable of its messages"),
    ],
)
def test_other_arguments_are_refused(mesh: SmallMesh, method: str, argument: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        mesh.handle(f"/mesh.tests.Shop/{method}").remote(argument)
    with pytest.raises(TypeError, match="nothing else"):
        mesh.handle(f"/mesh.tests.Shop/{method}").remote(argument, key=1)


def test_a_wrong_item_of_a_stream_ends_the_call(mesh: SmallMesh) -> None:
    with pytest.raises(TypeError, match="takes Item messages, not str"):
        mesh.handle("/mesh.tests.Shop/Total").remote(["pear"]).result(timeout_s=DEADLINE_S)


def test_messages_that_were_not_imported_are_named(mesh: SmallMesh) -> None:
    with pytest.raises(MeshException, match=r"'/mesh\.tests\.Other/Price' are not known"):
        mesh.handle("/mesh.tests.Other/Price").remote(shop_pb2.Item())


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("text", "dict such as"),
        ([("a", "b", "c")], "pairs"),
        ({"Upper": "a"}, "lower-case"),
        ({"grpc-timeout": "1S"}, "grpc-"),
        ({"a": b"bytes"}, "must be a string"),
        ({"a-bin": "text"}, "must be bytes"),
        ({"a": "ü"}, "printable ASCII"),
        ({"a": "x" * 20_000}, "16384 bytes"),
    ],
)
def test_wrong_metadata_is_refused_where_it_is_given(mesh: SmallMesh, metadata: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        mesh.handle(metadata=metadata)
