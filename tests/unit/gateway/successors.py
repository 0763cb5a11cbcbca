"""A gateway that replaces another one, and stock clients that call meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import httpx

from mesh.v1 import control_pb2
from tests.unit.gateway.fakes import UNARY, FakeRouter, echo, route_table, until
from tests.unit.gateway.gateway_node import Node, running

CALLS = 40


@asynccontextmanager
async def two(**changed: Any) -> AsyncIterator[tuple[Node, Node]]:
    """A gateway that serves, and one that replaces it with these options changed."""
    async with running() as former:
        former.process.publish(route_table("shop"))
        successor = await start_successor(former, **changed)
        try:
            yield former, successor
        finally:
            await successor.gateway.close()


async def start_successor(former: Node, **changed: Any) -> Node:
    successor = Node(FakeRouter(echo))
    successor.spec.options.CopyFrom(former.spec.options)
    successor.spec.options.MergeFrom(control_pb2.GatewayOptions(**changed))
    successor.spec.takes_over = former.gateway.offer_ports()
    starting = asyncio.ensure_future(successor.gateway.start())
    # It opens no port before it knows where calls go.
    await until(lambda: successor.process.publish.__name__ == "take", "it waits for routes")
    assert not starting.done()
    successor.process.publish(route_table("shop"))
    successor.ready = await asyncio.wait_for(starting, 30)
    return successor


class Clients:
    """Calls of stock clients, one after the other, on old and new connections, until the end of the block."""

    def __init__(self, node: Node, path: str = "/-/healthz") -> None:
        """`path`: for requests of HTTP/1.1."""
        self._node = node
        self._path = path
        self.answers = 0
        self._is_ended = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Clients:
        works = [self._on_one_channel(), self._on_new_channels(), self._keep_alive(), self._connect_again()]
        self._tasks = [asyncio.ensure_future(each) for each in works]
        await self.more()
        return self

    async def __aexit__(self, *exc: object) -> None:
        # Not by cancellation, which httpx and the anyio below it may swallow while they connect.
        self._is_ended = True
        errors = [each for each in await asyncio.gather(*self._tasks, return_exceptions=True) if each]
        if errors:
            raise BaseExceptionGroup("clients failed", errors)

    async def more(self) -> None:
        """Until each has had some more answers, or one has failed."""
        goal = self.answers + CALLS
        await until(lambda: self.answers >= goal or any(each.done() for each in self._tasks), "answers")

    async def _on_one_channel(self) -> None:
        while not self._is_ended:
            assert await self._node.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            self.answers += 1

    async def _on_new_channels(self) -> None:
        while not self._is_ended:
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(self._node.ready.grpc_address, options=options) as channel:
                assert await channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            self.answers += 1

    async def _keep_alive(self) -> None:
        async with httpx.AsyncClient(timeout=10) as client:
            while not self._is_ended:
                await self._get(client)

    async def _connect_again(self) -> None:
        while not self._is_ended:
            async with httpx.AsyncClient(timeout=10) as client:
                await self._get(client)

    async def _get(self, client: httpx.AsyncClient) -> None:
        answer = await client.get(f"http://{self._node.ready.http_address}{self._path}")
        assert answer.status_code == 200, answer.text
        self.answers += 1
