"""Our server and channel with stock gRPC, and with each other: all arities, sizes, metadata and statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.rpc.rpc_channel import RpcChannel
from tests.unit.fakes.rpc_ends import AsyncShop, Item, ThreadShop, failure, open_channel, our_server, scenario, shop_of
from tests.unit.protos import shop_pb2_grpc

MIB = 1024 * 1024
SIZES = (0, 1, 100, 16_379, 16_380, 65_530, 70_000, 300_000, MIB, 4 * MIB - 100)

PAIRS = [
    ("aio", "ours", AsyncShop, "tcp"),
    ("aio", "ours", AsyncShop, "unix"),
    ("aio", "ours", AsyncShop, "tls"),
    ("aio", "ours", ThreadShop, "tcp"),
    ("ours", "ours", AsyncShop, "tcp"),
    ("ours", "ours", ThreadShop, "unix"),
    ("ours", "ours", ThreadShop, "tls"),
    ("ours", "stock", AsyncShop, "tcp"),
    ("ours", "stock", AsyncShop, "unix"),
    ("ours", "stock", AsyncShop, "tls"),
]
NAMES = [f"{client} to {server} {servicer.__name__} {carrier}" for client, server, servicer, carrier in PAIRS]
every_pair = pytest.mark.parametrize(("client", "server", "servicer", "carrier"), PAIRS, ids=NAMES)


@every_pair
def test_all_arities_and_sizes(client: str, server: str, servicer: Any, carrier: str) -> None:
    async def talk() -> None:
        async with shop_of(client, servicer(), carrier, server=server) as shop:
            for size in SIZES:
                assert (await shop.Price(Item(name="x" * size), timeout=20)).amount == size
            many = await asyncio.gather(*[shop.Price(Item(name="x" * size)) for size in range(100)])
            assert [each.amount for each in many] == list(range(100))
            # More bytes than the windows of stream and connection.
            listed = [each.amount async for each in shop.List(Item(name="z" * 1_000, amount=1_000), timeout=20)]
            assert listed == list(range(1_000))
            assert (await shop.Total(items(500), timeout=20)).amount == sum(range(500))
            haggled = [each.amount async for each in shop.Haggle(items(500), timeout=20)]
            assert haggled == [2 * number for number in range(500)]
            assert [each async for each in shop.List(Item(), timeout=20)] == []
            assert (await shop.Total(items(0), timeout=20)).amount == 0

    scenario(talk())


@every_pair
def test_metadata_both_ways(client: str, server: str, servicer: Any, carrier: str) -> None:
    sent = (("x-one", "1"), ("x-one", "2 with, comma"), ("x-b-bin", b""), ("x-b-bin", b"\0\xff,="), ("x-b-bin", b"abc"))

    async def talk() -> None:
        async with shop_of(client, servicer(), carrier, server=server) as shop:
            call = shop.Price(Item(name="metadata"), metadata=sent, timeout=20)
            await call
            assert pairs(await call.initial_metadata()) == [("first", "1"), *sent]
            assert pairs(await call.trailing_metadata()) == list(sent)

    scenario(talk())


@every_pair
def test_statuses(client: str, server: str, servicer: Any, carrier: str) -> None:
    async def talk() -> None:
        async with shop_of(client, servicer(), carrier, server=server) as shop:
            error = await failure(shop.Price(Item(name="abort"), timeout=20))
            assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nö 100%\n☃")
            if servicer is AsyncShop or server == "ours":
                assert pairs(error.trailing_metadata()) == [("why", "none"), ("why-bin", b"\0,\xff")]
            error = await failure(shop.Price(Item(name="fail"), timeout=20))
            assert (error.code(), "broken" in error.details()) == (grpc.StatusCode.UNKNOWN, True)
            error = await failure(shop.Price(Item(name="code"), timeout=20))
            assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "lost")
            error = await failure(shop.Price(Item(name="x" * (4 * MIB + 1)), timeout=20))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            listing = shop.List(Item(name="abort", amount=3), timeout=20)
            assert [(await listing.read()).amount for _ in range(3)] == [0, 1, 2]
            assert (await failure(listing.read())).code() is grpc.StatusCode.ABORTED

    scenario(talk())


@pytest.mark.parametrize("client", ["aio", "ours"])
def test_methods_that_no_one_serves(client: str) -> None:
    async def talk() -> None:
        async with our_server(AsyncShop()) as (_, address), open_channel(client, address) as channel:
            error = await failure(channel.unary_unary("/mesh.tests.Shop/Steal")(b"", timeout=20))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    scenario(talk())


@pytest.mark.parametrize("servicer", [AsyncShop, ThreadShop])
@pytest.mark.parametrize("carrier", ["tcp", "unix", "tls"])
def test_stock_clients_in_threads(servicer: Any, carrier: str) -> None:
    async def talk() -> None:
        async with our_server(servicer(), carrier) as (_, address):
            await asyncio.to_thread(_assert_all_arities_in_a_thread, address, carrier)

    scenario(talk())


def _assert_all_arities_in_a_thread(address: str, carrier: str) -> None:
    with open_channel("sync", address, carrier) as channel:
        shop = shop_pb2_grpc.ShopStub(channel)
        for size in SIZES:
            assert shop.Price(Item(name="x" * size), timeout=20).amount == size
        futures = [shop.Price.future(Item(name="x" * size), timeout=20) for size in range(100)]
        assert [each.result().amount for each in futures] == list(range(100))
        assert [each.amount for each in shop.List(Item(amount=500), timeout=20)] == list(range(500))
        assert shop.Total(plain_items(500), timeout=20).amount == sum(range(500))
        assert [each.amount for each in shop.Haggle(plain_items(500), timeout=20)] == [2 * each for each in range(500)]
        sent = (("x-one", "1"), ("x-b-bin", b"\0\xff"), ("x-b-bin", b"b"))
        _, call = shop.Price.with_call(Item(name="metadata"), metadata=sent, timeout=20)
        assert pairs(call.initial_metadata()) == [("first", "1"), *sent]
        assert pairs(call.trailing_metadata()) == list(sent)
        with pytest.raises(grpc.RpcError) as caught:
            shop.Price(Item(name="abort"), timeout=20)
        assert caught.value.details() == "nö 100%\n☃"


def test_a_stock_server_of_threads() -> None:
    async def talk() -> None:
        server = grpc.server(ThreadPoolExecutor(8))
        shop_pb2_grpc.add_ShopServicer_to_server(ThreadShop(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        async with RpcChannel(f"127.0.0.1:{port}") as channel:
            shop = shop_pb2_grpc.ShopStub(channel)
            for size in SIZES:
                assert (await shop.Price(Item(name="x" * size), timeout=20)).amount == size
            assert [each.amount async for each in shop.Haggle(items(300), timeout=20)] == [2 * n for n in range(300)]
            assert (await shop.Total(items(300), timeout=20)).amount == sum(range(300))
            error = await failure(shop.Price(Item(name="abort"), timeout=20))
            assert (error.details(), pairs(error.trailing_metadata())) == (
                "nö 100%\n☃",
                [("why", "none"), ("why-bin", b"\0,\xff")],
            )
        server.stop(0)

    scenario(talk())


def test_a_peer_has_a_name() -> None:
    async def talk() -> None:
        async with shop_of("aio", AsyncShop()) as shop:
            assert (await shop.Price(Item(name="peer"))).name.startswith("ipv4:127.0.0.1:")
        async with shop_of("aio", AsyncShop(), "unix") as shop:
            assert (await shop.Price(Item(name="peer"))).name == "unix:"

    scenario(talk())


def test_metadata_that_grpc_does_not_allow_is_refused_before_anything_is_sent() -> None:
    async def talk() -> None:
        async with shop_of("ours", AsyncShop()) as shop:
            for entry in [("Upper", "1"), ("x", "é"), ("x", "a\nb"), ("grpc-status", "0"), ("", "x")]:
                with pytest.raises(ValueError, match="metadata"):
                    shop.Price(Item(), metadata=(entry,))

    scenario(talk())


async def items(count: int) -> AsyncIterator[Any]:
    for each in plain_items(count):
        yield each


def plain_items(count: int) -> Iterator[Any]:
    for number in range(count):
        yield Item(amount=number, name="y" * 500)


def pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Without what stock clients and servers add."""
    return [(key, value) for key, value in metadata if key.startswith(("x-", "first", "why"))]
