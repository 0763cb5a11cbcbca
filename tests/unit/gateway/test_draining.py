"""A gateway that drains while every dialect has something in flight: nothing is lost, and it ends in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import grpc
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from mesh.link.outgoing_call import OutgoingCall
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.gateway.dialects.json_ends import library_table
from tests.unit.gateway.fakes import FakeRouter, allow, failure_of, finish, item, on_io_loop, until
from tests.unit.gateway.gateway_node import Node, running
from tests.unit.protos import kinds_pb2

GET, LIST, CHAT = (f"/kinds.Library/{name}" for name in ("GetBook", "ListBooks", "Chat"))
FIRST, LAST = (kinds_pb2.Book(title=title).SerializeToString() for title in ("first", "last"))


class Stream:
    """A streamed answer over HTTP/1.1 of which the first message has come."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces = response.aiter_bytes()
        self.body = b""

    async def read_until(self, text: bytes) -> None:
        while text not in self.body:
            self.body += await anext(self._pieces)

    async def read_all(self) -> bytes:
        async for piece in self._pieces:
            self.body += piece
        return self.body


@asynccontextmanager
async def streaming(client: httpx.AsyncClient, path: str, body: bytes, **headers: str) -> AsyncIterator[Stream]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream("POST", path, content=body, headers=fields) as response:
        stream = Stream(response)
        await stream.read_until(b"first")
        yield stream


def begin(call: OutgoingCall) -> None:
    """A call that streams its answer sends the first message; no call ends by itself."""
    if call.request.streams_request:
        allow(call, 10)
    if call.request.streams_response:
        item(call, FIRST)


async def leave_idle(node: Node) -> asyncio.StreamReader:
    """A kept-alive connection of HTTP/1.1 with nothing in progress."""
    host, _, port = node.ready.http_address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /-/healthz HTTP/1.1\r\nhost: shop\r\n\r\n")
    assert b"200" in await reader.readuntil(b"success")
    return reader


def test_a_drain_loses_nothing_that_is_in_flight_in_any_dialect() -> None:
    """Each call ends with its whole answer, WebSockets with the code that lets clients connect again (item 209)."""

    async def scenario() -> None:
        async with running(FakeRouter(begin)) as node, AsyncExitStack() as stack:
            node.process.publish(library_table(books="/books"))
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://{node.ready.http_address}", timeout=20)
            )
            message = b"\0\0\0\0\0"
            unary = asyncio.ensure_future(node.channel.unary_unary(GET)(b"", timeout=20))
            bidi = node.channel.stream_stream(CHAT)(timeout=20)
            assert await bidi.read() == FIRST
            as_json = asyncio.ensure_future(client.post(GET, json={}))
            as_connect = asyncio.ensure_future(client.post(GET, headers={"content-type": "application/proto"}))
            streams = [
                await stack.enter_async_context(streaming(client, LIST, body, content_type=kind, **more))
                for body, kind, more in (
                    (b"{}", "application/json", {"accept": "text/event-stream"}),
                    (message, "application/grpc-web+proto", {}),
                    (message, "application/connect+proto", {}),
                )
            ]
            socket = await stack.enter_async_context(connect(f"ws://{node.ready.grpc_address}{CHAT}", proxy=None))
            assert json.loads(await socket.recv())["title"] == "first"
            idle = await leave_idle(node)
            await until(lambda: len(node.router.calls) == 8, "all calls")

            draining = asyncio.ensure_future(node.gateway.drain())
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            assert await asyncio.wait_for(idle.read(), 30) == b""
            assert not draining.done()
            for call in node.router.calls:
                if call not in node.router.cancelled:
                    finish_whole(call)

            assert await unary == LAST
            assert [await bidi.read(), await bidi.read()] == [LAST, grpc.aio.EOF]
            assert (await as_json).json() == {"title": "last"}
            assert (await as_connect).content == LAST
            bodies = [await stream.read_all() for stream in streams]
            assert all(b"first" in body and b"last" in body for body in bodies)
            assert b"grpc-status:0" in bodies[1].replace(b" ", b"").lower()
            last_envelope = json.loads(bodies[2][bodies[2].rindex(b'{"metadata') :])
            assert "error" not in last_envelope
            await asyncio.wait_for(draining, 30)
            assert node.gateway.metrics.in_flight.count == node.gateway.listener.exchanges == 0

    on_io_loop(scenario())


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_drain_ends_in_time_whatever_clients_do(accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not ended then is broken off, so that its client sees that it is not complete."""

    async def scenario() -> None:
        limits = replace(settings().gateway, lame_duck_s=0.0, drain_timeout_s=0.2, stop_grace_s=0.1)
        monkeypatch.setattr("gateway.node_gateway.settings", lambda: replace(settings(), gateway=limits))
        async with running(FakeRouter(begin)) as node, AsyncExitStack() as stack:
            node.process.publish(library_table(books="/books"))
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://{node.ready.http_address}", timeout=20)
            )
            headers = {"content_type": "application/json", "accept": accept}
            stream = await stack.enter_async_context(streaming(client, LIST, b"{}", **headers))
            bidi = node.channel.stream_stream(CHAT)(timeout=20)
            assert await bidi.read() == FIRST
            await asyncio.wait_for(node.gateway.drain(), 30)
            with pytest.raises(httpx.RemoteProtocolError):
                await stream.read_all()
            assert (await failure_of(bidi.read())).code() is grpc.StatusCode.UNAVAILABLE
            await until(lambda: len(node.router.cancelled) == 2, "the cancels")

    on_io_loop(scenario())


def finish_whole(call: OutgoingCall) -> None:
    if call.request.streams_response:
        item(call, LAST)
        finish(call, Outcome())
    else:
        finish(call, Outcome(payload=raw(LAST)))
