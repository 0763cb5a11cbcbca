"""Connections: many calls at once, limits of streams, drains, restarts, and what is left afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.http2 import frame_format as wire
from mesh.http2 import transport
from mesh.http2.limits import Limits
from mesh.http2.upkeep import UpkeepPolicy
from mesh.rpc.rpc_channel import RpcChannel
from tests.free_ports import free_port
from tests.unit.fakes.fake_socket import FakeSocket
from tests.unit.fakes.rpc_ends import (
    AsyncShop,
    Item,
    OurServer,
    ThreadShop,
    failure,
    open_channel,
    our_server,
    rpc_tasks,
    scenario,
    shop_of,
    stock_server,
    until,
)
from tests.unit.protos import shop_pb2_grpc

FEW = Limits(streams_max=20)


# ---- Many calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "server"), [("aio", "ours"), ("ours", "ours"), ("ours", "stock")])
def test_a_thousand_calls_at_once(client: str, server: str) -> None:
    async def talk() -> None:
        async with shop_of(client, AsyncShop(), server=server) as shop:
            answers = await asyncio.gather(*[shop.Price(Item(name="x" * size)) for size in range(1_000)])
            assert [each.amount for each in answers] == list(range(1_000))

    scenario(talk())


@pytest.mark.parametrize(("client", "server"), [("aio", "ours"), ("ours", "ours"), ("ours", "stock")])
def test_calls_above_the_servers_limit_wait(client: str, server: str) -> None:
    """Also those that begin before its SETTINGS have come."""
    options: dict[str, Any] = {"limits": FEW} if server == "ours" else {"grpc.max_concurrent_streams": 20}

    async def talk() -> None:
        async with shop_of(client, AsyncShop(), server=server, **options) as shop:
            answers = await asyncio.gather(*[shop.Price(Item(name="x" * size)) for size in range(300)])
            assert [each.amount for each in answers] == list(range(300))

    scenario(talk())


def test_a_call_that_waits_for_room_has_its_deadline_and_may_be_cancelled() -> None:
    async def talk() -> None:
        async with shop_of("ours", AsyncShop(), limits=Limits(streams_max=1)) as shop:
            first = shop.List(Item(name="hang", amount=1))
            assert (await first.read()).amount == 0
            assert (await failure(shop.Price(Item(), timeout=0.05))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            cancelled, waiting = shop.Price(Item()), shop.Price(Item(name="x"))
            await asyncio.sleep(0)
            cancelled.cancel()
            first.cancel()
            assert (await waiting).amount == 1

    scenario(talk())


# ---- The end of a server ---------------------------------------------------------------------------------------------


def test_a_drain_serves_what_has_begun_and_nothing_new() -> None:
    async def talk() -> None:
        servicer = AsyncShop()
        async with our_server(servicer) as (ours, address), open_channel("aio", address) as channel:
            shop = shop_pb2_grpc.ShopStub(channel)
            haggling = shop.Haggle()
            await haggling.write(Item(amount=1))
            assert (await haggling.read()).amount == 2
            ours.server.drain()
            for number in range(20):
                await haggling.write(Item(amount=number))
                assert (await haggling.read()).amount == number * 2
            await haggling.done_writing()
            assert await haggling.read() is grpc.aio.EOF
            await until(lambda: not ours.server.connections, "the drained connection is closed")
            assert (await failure(shop.Price(Item(), timeout=5))).code() is grpc.StatusCode.UNAVAILABLE

    scenario(talk())


@pytest.mark.parametrize("client", ["aio", "ours"])
def test_a_stop_ends_calls_after_its_grace(client: str) -> None:
    async def talk() -> None:
        servicer = AsyncShop()
        async with our_server(servicer) as (ours, address), open_channel(client, address) as channel:
            shop = shop_pb2_grpc.ShopStub(channel)
            call = asyncio.ensure_future(failure(shop.Price(Item(name="hang"))))
            await until(lambda: servicer.seen.started, "the call has started")
            await ours.stop(grace_s=0.05)
            assert (await call).code() is grpc.StatusCode.UNAVAILABLE
            await until(lambda: servicer.seen.cancelled, "the servicer is cancelled")
            assert not rpc_tasks()

    scenario(talk())


@pytest.mark.parametrize("end", ["stop", "lost"])
def test_threads_that_wait_for_requests_end_with_their_connection(end: str) -> None:
    async def talk() -> None:
        servicer = ThreadShop()
        async with our_server(servicer) as (ours, address), RpcChannel(address) as channel:
            calls = [channel.call("/mesh.tests.Shop/Haggle", None) for _ in range(3)]
            await until(lambda: servicer.seen.started == 3, "the threads run")
            if end == "stop":
                await ours.stop(grace_s=0.05)
            else:
                for each in channel._transports:
                    each.abort("a test")
            await until(lambda: servicer.seen.cancelled == 3, "the threads end")
            assert {await call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}

    scenario(talk())


def test_connections_that_open_after_the_drain_are_drained_too() -> None:
    """Their sockets were accepted before."""

    async def talk() -> None:
        ours = OurServer(AsyncShop())
        ours.server.drain()
        during, after = ours.server._transport(), ours.server._transport()
        one, other = FakeSocket(), FakeSocket()
        during.connection_made(one)
        await until(lambda: one.written, "the greeting is written")
        assert [each.kind for each in one.frames()] == [wire.SETTINGS, wire.WINDOW_UPDATE, wire.GOAWAY, wire.PING]
        during.connection_lost(None)
        await ours.stop()
        after.connection_made(other)
        assert other.is_aborted
        after.connection_lost(None)
        assert not ours.server.connections

    scenario(talk())


def test_a_client_with_two_servers_loses_no_call_when_one_drains() -> None:
    async def talk() -> None:
        async with our_server(AsyncShop()) as (first, one), our_server(AsyncShop()) as (second, two):
            target = "ipv4:" + ",".join(each.replace("localhost", "127.0.0.1") for each in (one, two))
            options = (("grpc.lb_policy_name", "round_robin"),)
            async with open_channel("aio", target, options=options) as channel:
                shop = shop_pb2_grpc.ShopStub(channel)
                answered = 0

                async def call_on() -> None:
                    nonlocal answered
                    while answered < 600:
                        assert (await shop.Price(Item(name="abc"), timeout=10)).amount == 3
                        answered += 1

                callers = [asyncio.ensure_future(call_on()) for _ in range(10)]
                await until(lambda: first.servicer.seen.started > 50, "both serve")
                first.server.drain()
                await until(lambda: not first.server.connections, "the first is drained")
                await asyncio.gather(*callers)
                assert second.servicer.seen.started > 50

    scenario(talk())


def test_our_client_loses_no_call_when_its_server_drains_and_another_takes_the_port() -> None:
    async def talk() -> None:
        port = free_port()
        first, second = OurServer(AsyncShop()), OurServer(AsyncShop())
        await first.server.listen("127.0.0.1", port, shares_port=True)
        async with RpcChannel(f"127.0.0.1:{port}") as channel:
            shop = shop_pb2_grpc.ShopStub(channel)
            answers = [asyncio.ensure_future(_amount(shop.Price(Item(name="abc"), timeout=10))) for _ in range(100)]
            await until(lambda: first.servicer.seen.started, "the first serves")
            await second.server.listen("127.0.0.1", port, shares_port=True)
            first.server.drain()
            for _ in range(200):
                answers.append(asyncio.ensure_future(_amount(shop.Price(Item(name="abc"), timeout=10))))
                await asyncio.sleep(0)
            assert set(await asyncio.gather(*answers)) == {3}
            await until(lambda: not first.server.connections, "the first is drained")
            assert (await shop.Price(Item(name="abc"), timeout=10)).amount == 3
            assert second.servicer.seen.started
        await first.stop()
        await second.stop()

    scenario(talk())


@pytest.mark.parametrize("server", ["ours", "stock"])
def test_a_channel_connects_again_after_a_restart(server: str) -> None:
    async def talk() -> None:
        serve = our_server if server == "ours" else stock_server
        async with serve(AsyncShop()) as (running, address):
            channel = RpcChannel(address)
            shop = shop_pb2_grpc.ShopStub(channel)
            assert (await shop.Price(Item(name="a"))).amount == 1
            await running.stop(0)
            error = await failure(shop.Price(Item(name="a"), timeout=5))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        again = OurServer(AsyncShop())
        await again.server.listen("127.0.0.1", int(address.rpartition(":")[2]))
        assert (await shop.Price(Item(name="ab"), timeout=5)).amount == 2
        await channel.close()
        await again.stop()
        late = shop.Price(Item())
        assert (await failure(late)).details() == "The channel is closed."

    scenario(talk())


def test_a_connection_that_breaks_fails_its_calls() -> None:
    async def talk() -> None:
        async with our_server(AsyncShop()) as (ours, address), RpcChannel(address) as channel:
            call = channel.call("/mesh.tests.Shop/Haggle", None)
            await call.write(Item(amount=1).SerializeToString())
            await call.read()
            for each in ours.server._sockets.connections:
                each.abort("a test")
            error = await failure(call.read())
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "The connection was lost.")

    scenario(talk())


# ---- Age and idleness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", [UpkeepPolicy(age_max_s=0.05), UpkeepPolicy(idle_timeout_s=0.05)], ids=["age", "idle"]
)
@pytest.mark.parametrize("client", ["aio", "ours"])
def test_old_and_idle_connections_are_replaced_without_a_failed_call(
    policy: UpkeepPolicy, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_LOOK_INTERVAL_S", 0.01)

    async def talk() -> None:
        opened = 0
        async with our_server(AsyncShop(), policy=policy) as (ours, address), open_channel(client, address) as channel:
            accepted = ours.server._connection

            def count(*args: Any) -> Any:
                nonlocal opened
                opened += 1
                return accepted(*args)

            ours.server._connection = count  # type: ignore[method-assign]
            shop = shop_pb2_grpc.ShopStub(channel)
            while opened < 3:
                assert (await shop.Price(Item(name="abc"), timeout=10)).amount == 3
                if policy.idle_timeout_s < 1:
                    await until(lambda: not ours.server.connections, "the idle connection is closed")

    scenario(talk())


async def _amount(call: Any) -> int:
    amount: int = (await call).amount
    return amount
