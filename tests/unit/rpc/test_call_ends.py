"""How calls end early: deadlines, cancels at every moment, servers that answer before the request is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.rpc.rpc_channel import RpcChannel
from tests.unit.fakes.rpc_ends import (
    AsyncShop,
    Item,
    ThreadShop,
    failure,
    open_channel,
    our_server,
    scenario,
    shop_of,
    until,
)
from tests.unit.protos import shop_pb2_grpc

MIB = 1024 * 1024
SOON_S = 1.0
"""A deadline before which a call reaches its servicer, on a busy machine too."""

TRIPLES = [
    ("aio", "ours", AsyncShop),
    ("aio", "ours", ThreadShop),
    ("ours", "ours", AsyncShop),
    ("ours", "ours", ThreadShop),
    ("ours", "stock", AsyncShop),
]
every_triple = pytest.mark.parametrize(
    ("client", "server", "servicer"), TRIPLES, ids=[f"{c} to {s} {v.__name__}" for c, s, v in TRIPLES]
)


async def endless(count: int = 10, over: asyncio.Event | None = None) -> AsyncIterator[Any]:
    """`count` requests, and no end before the test is `over`."""
    for number in range(count):
        yield Item(amount=number)
    await (over or asyncio.Event()).wait()


# ---- Deadlines -------------------------------------------------------------------------------------------------------


@every_triple
def test_deadlines(client: str, server: str, servicer: Any) -> None:
    async def talk() -> None:
        shop_servicer = servicer()
        seen = shop_servicer.seen
        # grpc.aio reports INTERNAL if a call ends while it writes, so its deadline may not come between two requests.
        count = 10 if client == "ours" else 0
        over = asyncio.Event()
        async with shop_of(client, shop_servicer, server=server) as shop:
            assert (await shop.Price(Item(name="deadline"))).amount == -1
            assert (await shop.Price(Item(name="deadline"), timeout=50)).amount in (49, 50)
            whole = (shop.Price(Item(name="hang"), timeout=SOON_S), shop.Total(endless(count, over), timeout=SOON_S))
            streamed = (
                shop.List(Item(name="hang", amount=2), timeout=SOON_S),
                shop.Haggle(endless(count, over), timeout=SOON_S),
            )
            for call in whole:
                assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            for call in streamed:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    async for _ in call:
                        pass
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            # The server knows the deadline too, and frees what served the calls.
            await until(lambda: seen.cancelled >= (3 if server == "ours" else 2), "servicers are cancelled")
            over.set()  # or grpc.aio waits on, and asyncio logs that during a later test

    scenario(talk())


def test_a_deadline_ends_threads_that_wait_for_requests() -> None:
    """The client neither sends nor resets: only the server's own clock can end the thread."""

    async def talk() -> None:
        servicer = ThreadShop()
        async with our_server(servicer) as (ours, address), RpcChannel(address) as channel:
            call = channel.call("/mesh.tests.Shop/Haggle", None, timeout_s=SOON_S)
            assert call._timer is not None
            call._timer.cancel()
            await until(lambda: servicer.seen.cancelled, "the thread ends")
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert not _streams(ours)

    scenario(talk())


@pytest.mark.parametrize("timeout_s", [0, -1, 1e-9])
def test_a_deadline_that_has_passed(timeout_s: float) -> None:
    async def talk() -> None:
        async with shop_of("ours", AsyncShop()) as shop:
            assert (await failure(shop.Price(Item(name="hang"), timeout=timeout_s))).code() is (
                grpc.StatusCode.DEADLINE_EXCEEDED
            )

    scenario(talk())


@pytest.mark.parametrize("timeout_s", [1e9, float("inf")])
def test_a_deadline_in_years(timeout_s: float) -> None:
    async def talk() -> None:
        async with shop_of("ours", AsyncShop()) as shop:
            assert (await shop.Price(Item(name="x"), timeout=timeout_s)).amount == 1

    scenario(talk())


# ---- Cancels ---------------------------------------------------------------------------------------------------------


@every_triple
def test_a_cancel_reaches_the_servicer(client: str, server: str, servicer: Any) -> None:
    async def talk() -> None:
        shop_servicer = servicer()
        seen = shop_servicer.seen
        async with shop_of(client, shop_servicer, server=server) as shop:
            unary = shop.Price(Item(name="hang"))
            waiting = asyncio.ensure_future(_result(unary))
            await until(lambda: seen.started == 1, "the call has started")
            assert unary.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await unary.code() is grpc.StatusCode.CANCELLED
            assert (unary.cancelled(), unary.done(), unary.cancel()) == (True, True, False)
            await until(lambda: seen.cancelled == 1, "the unary call is cancelled at the server")

            listing = shop.List(Item(name="hang", amount=1))
            assert (await listing.read()).amount == 0
            listing.cancel()
            await until(lambda: seen.cancelled == 2, "the listing is cancelled at the server")

            haggling = shop.Haggle(endless())
            assert (await haggling.read()).amount == 0
            haggling.cancel()
            if server == "ours":  # a servicer of grpc.aio that yields at this moment does not learn of it
                await until(lambda: seen.cancelled == 3, "the haggling is cancelled at the server")

    scenario(talk())


@pytest.mark.parametrize("client", ["aio", "ours"])
def test_a_task_that_is_cancelled_cancels_its_call(client: str) -> None:
    async def talk() -> None:
        servicer = AsyncShop()
        seen = servicer.seen
        async with shop_of(client, servicer) as shop:
            call = shop.Price(Item(name="hang"))
            task = asyncio.ensure_future(_result(call))
            await until(lambda: seen.started == 1, "the call has started")
            await _cancelled(task)
            assert call.cancelled()
            listing = shop.List(Item(name="hang"))
            task = asyncio.ensure_future(listing.read())
            await until(lambda: seen.started == 2, "the listing has started")
            await _cancelled(task)
            assert listing.cancelled()
            await until(lambda: seen.cancelled == 2, "the calls are cancelled at the server")

    scenario(talk())


def test_to_stop_waiting_for_the_status_does_not_cancel_the_call() -> None:
    async def talk() -> None:
        async with shop_of("ours", AsyncShop()) as shop:
            call = shop.List(Item(name="hang", amount=1))
            for wait in (call.code, call.details, call.trailing_metadata):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await wait()
            assert not call.done()
            assert (await call.read()).amount == 0
            call.cancel()

    scenario(talk())


@pytest.mark.parametrize("turns", range(0, 30, 2))
def test_cancels_at_every_moment_leave_nothing(turns: int) -> None:
    """Before the connection is there, while it opens, while requests and responses are on their way."""

    async def talk() -> None:
        servicer = AsyncShop()
        async with our_server(servicer) as (ours, address):
            async with RpcChannel(address) as channel:
                shop = shop_pb2_grpc.ShopStub(channel)
                for _ in range(3):
                    calls = [
                        shop.Price(Item(name="hang" * 50_000), timeout=100),
                        shop.List(Item(name="x" * 1_000, amount=10_000), timeout=100),
                        shop.Total(endless(), timeout=100),
                        shop.Haggle(endless(), timeout=100),
                    ]
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    for call in calls:
                        call.cancel()
                    for call in calls:
                        assert call.done()
                        assert call._timer is None or call._timer.cancelled() or await call.code() is not None
                assert (await shop.Price(Item(name="after"), timeout=10)).amount == 5
                await until(lambda: not _streams(ours), "no stream is left at the server")
                assert not any(transport.connection.streams for transport in channel._transports)
            assert not channel._tasks

    scenario(talk())


def test_a_call_that_is_cancelled_while_connecting_does_not_disturb_the_others() -> None:
    async def talk() -> None:
        async with our_server(AsyncShop(), "tls") as (_, address), open_channel("ours", address, "tls") as channel:
            shop = shop_pb2_grpc.ShopStub(channel)
            first, second = shop.Price(Item(name="x")), shop.Price(Item(name="yy"))
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).amount == 2
            with pytest.raises(asyncio.CancelledError):
                await first

    scenario(talk())


# ---- Early answers ---------------------------------------------------------------------------------------------------


@every_triple
def test_a_server_may_answer_before_the_request_is_complete(client: str, server: str, servicer: Any) -> None:
    answered = asyncio.Event()

    async def requests() -> AsyncIterator[Any]:
        yield Item(amount=1)
        yield Item(name="enough")
        await answered.wait()

    async def talk() -> None:
        async with shop_of(client, servicer(), server=server) as shop:
            answer = await shop.Total(requests(), timeout=10)
            assert (answer.name, answer.amount) == ("early", 1)
            assert [each.amount async for each in shop.Haggle(requests(), timeout=10)] == [2]
            answered.set()  # or grpc.aio waits on, and asyncio logs that during a later test

    scenario(talk())


def test_a_write_after_the_end_says_so() -> None:
    async def talk() -> None:
        async with our_server(AsyncShop()) as (_, address), RpcChannel(address) as channel:
            call = channel.call("/mesh.tests.Shop/Haggle", None)
            await call.write(Item(name="enough").SerializeToString())
            assert await call.read() is grpc.aio.EOF
            with pytest.raises(asyncio.InvalidStateError):
                await call.write(b"")
            await call.done_writing()

    scenario(talk())


def test_a_response_may_be_awaited_again() -> None:
    async def talk() -> None:
        async with shop_of("ours", AsyncShop()) as shop:
            call = shop.Price(Item(name="abc"))
            both = await asyncio.gather(_result(call), _result(call))
            assert [each.amount for each in (*both, await call)] == [3, 3, 3]

    scenario(talk())


async def _result(call: Any) -> Any:
    return await call


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _streams(ours: Any) -> int:
    return sum(len(transport.connection.streams) for transport in ours.server._sockets.connections)
