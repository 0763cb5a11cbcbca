"""Several gateways on one port: who may share it, and clients that call while one after the other is replaced."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc.aio
import pytest

from tests.unit.gateway.fakes import UNARY, FakeRouter, Gateway, echo, on_io_loop, routes_of, serving, until

CLIENTS = 16
CALLS = 300
REPLACEMENTS = 4


def test_gateways_share_a_port_only_if_both_say_so():
    async def scenario() -> None:
        async with serving(FakeRouter(), "a") as alone:
            sharing = Gateway(FakeRouter())
            with pytest.raises(OSError, match=str(alone.port)):
                await sharing.listener.start("127.0.0.1", alone.port, shares_port=True)
        first, second, third = (Gateway(FakeRouter(echo)) for _ in range(3))
        port = await first.listener.start("127.0.0.1", 0, shares_port=True)
        assert await second.listener.start("127.0.0.1", port, shares_port=True) == port
        with pytest.raises(OSError, match=str(port)):
            await third.listener.start("127.0.0.1", port)
        for each in (first, second):
            each.listener.set_routes(routes_of("shop"))
        # One that drains leaves the port to the other.
        await first.listener.stop(0)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
        await second.listener.stop(0)

    on_io_loop(scenario())


async def sharing(port: int) -> tuple[Gateway, int]:
    gateway = Gateway(FakeRouter(echo))
    gateway.listener.set_routes(routes_of("shop"))
    return gateway, await gateway.listener.start("127.0.0.1", port, shares_port=True)


class Client:
    """Calls without a pause on a connection of its own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.answers = 0
        self.task = asyncio.ensure_future(self._keep_calling())

    async def _keep_calling(self) -> None:
        while True:
            assert await self._channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            self.answers += 1


def test_clients_lose_no_call_when_gateways_of_one_port_are_drained_and_replaced():
    """One after the other; the others take the new connections (item 200)."""

    async def scenario() -> None:
        first, port = await sharing(0)
        second, _ = await sharing(port)
        gateways = [first, second]
        async with AsyncExitStack() as stack:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(CLIENTS)]
            clients = [Client(await stack.enter_async_context(each)) for each in channels]

            async def until_answered(calls: int) -> None:
                goal = sum(each.answers for each in clients) + calls
                await until(lambda: sum(each.answers for each in clients) >= goal, "answers")

            for number in range(REPLACEMENTS):
                await until_answered(CALLS)
                leaving = gateways.pop(0)
                leaving.listener.announce_drain()
                leaving.listener.drain()
                await until(lambda: not leaving.listener.connections, f"the clients leave gateway {number}")  # noqa: B023
                gateways.append((await sharing(port))[0])
            await until_answered(CALLS)
            assert [each.task.exception() for each in clients if each.task.done()] == []
            for each in clients:
                each.task.cancel()
        for gateway in gateways:
            await gateway.listener.stop(0)

    on_io_loop(scenario())
