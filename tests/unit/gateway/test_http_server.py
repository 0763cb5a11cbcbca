"""All ports of a gateway over real sockets: both versions of HTTP and gRPC on each of them."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from gateway.first_bytes import NewConnection
from gateway.http_server import HttpServer
from gateway.requests.exchange import Exchange
from mesh.settings import settings
from tests.unit.fakes.http1_ends import answers, request
from tests.unit.gateway.fakes import UNARY, FakeRouter, echo, on_io_loop, serving, until
from tests.unit.gateway.open_ports import Http2Client, Kept, Pages, fields, hello, http2, open_gateway, talk

# ---- Every protocol on one port --------------------------------------------------------------------------------------


def test_one_port_speaks_grpc_http_1_and_http2() -> None:
    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway:
            assert await gateway.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            closing = request("GET /a?b HTTP/1.1", "connection: close")
            ((_, _, body),) = answers(await talk(gateway.port, closing))
            assert body == b"GET /a b http a"
            async with http2(gateway.port) as client:
                headers, body = await client.answer(fields())
            assert (headers[":status"], body) == ("200", b"GET /a b http shop")
            assert headers["content-length"] == str(len(body))
            assert headers["date"].endswith("GMT")

    on_io_loop(scenario())


def test_a_preface_in_pieces_is_http2() -> None:
    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            kept = Kept()
            client = Http2Client(reader, kept)
            stream = client.request(fields())
            client.writer = writer
            for byte in kept.data:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            await client.until(lambda: stream in client.ended)
            assert (client.headers[stream][":status"], client.bodies[stream]) == ("200", b"GET /a b http shop")
            writer.close()

    on_io_loop(scenario())


def test_what_speaks_neither_gets_400_back() -> None:
    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway:
            for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/9.0\r\n\r\n", b"\0" * 50, b"hello\n"):
                ((status, _, _),) = answers(await talk(gateway.port, nonsense))
                assert status in (400, 505)

    on_io_loop(scenario())


def test_without_a_dialect_the_answer_gets_404_back() -> None:
    """An unknown path is 404 (item 203)."""

    async def scenario() -> None:
        async with serving(FakeRouter(), "shop") as gateway:
            ((status, _, body),) = answers(await talk(gateway.port, request("GET /x?y HTTP/1.1", "connection: close")))
            assert (status, json.loads(body)) == (404, {"error": "Path '/x' not found."})

    on_io_loop(scenario())


def test_a_dialect_that_fails_gets_gets_500_back(caplog: pytest.LogCaptureFixture) -> None:
    def fail(exchange: Exchange) -> None:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        async with open_gateway(Pages(fail)) as gateway, http2(gateway.port) as client:
            assert (await client.answer(fields()))[0][":status"] == "500"
            assert gateway.listener.exchanges == 0

    with caplog.at_level("CRITICAL", "mesh.gateway"):
        on_io_loop(scenario())


# ---- Limits and ends -------------------------------------------------------------------------------------------------


def test_connections_above_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(settings(), gateway=replace(settings().gateway, connections_max=1))
    monkeypatch.setattr("gateway.gateway_listener.settings", lambda: small)

    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            await until(lambda: gateway.listener.connections == 1, "the connection")
            ((status, _, text),) = answers(await talk(gateway.port, request()))
            assert (status, b"1 connections, its limit" in text) == (503, True)
            async with http2(gateway.port) as client:
                with pytest.raises(AssertionError, match="closed the connection"):
                    await client.until(lambda: False)
            writer.write(request("GET / HTTP/1.1", "connection: close"))
            assert b"200 OK" in await reader.read()
            writer.close()

    on_io_loop(scenario())


def test_a_grpc_client_above_the_limit_fails_soon_and_does_not_connect_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It backs off as from a server that is not there. After SETTINGS it would not: its connection was made."""
    small = replace(settings(), gateway=replace(settings().gateway, connections_max=1))
    monkeypatch.setattr("gateway.gateway_listener.settings", lambda: small)
    made: list[NewConnection] = []
    on_new = HttpServer.on_new

    def count(server: HttpServer, connection: NewConnection) -> None:
        made.append(connection)
        on_new(server, connection)

    monkeypatch.setattr(HttpServer, "on_new", count)

    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop") as gateway:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            await until(lambda: gateway.listener.connections == 1, "the connection")
            async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await channel.unary_unary(UNARY)(b"", timeout=10)
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
            assert len(made) <= 3
            writer.close()

    on_io_loop(scenario())


def test_a_request_that_comes_at_the_moment_of_the_drain_is_answered() -> None:
    """It waits in the kernel while its connection still looks idle."""

    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway:
            loop = asyncio.get_running_loop()
            with socket.create_connection(("127.0.0.1", gateway.port)) as client:
                client.setblocking(False)
                async with asyncio.timeout(30):
                    client.send(request())
                    assert answers(await loop.sock_recv(client, 10_000))
                    client.send(request())
                    gateway.listener.announce_drain()
                    gateway.listener.drain()
                    ((status, answer, _),) = answers(await loop.sock_recv(client, 10_000))
                    assert (status, answer["connection"]) == (200, "close")
                    assert await loop.sock_recv(client, 1) == b""

    on_io_loop(scenario())


def test_a_drain_ends_idle_connections_and_waits_for_exchanges() -> None:
    async def scenario() -> None:
        pages = Pages()
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            idle, _ = await asyncio.open_connection("127.0.0.1", gateway.port)
            busy, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(request())
            client.request(fields())
            await until(lambda: len(pages.keepers) == 2, "both requests")
            gateway.listener.announce_drain()
            gateway.listener.drain()
            ended = asyncio.ensure_future(gateway.listener.idle())
            async with asyncio.timeout(30):
                assert await idle.read() == b""
            assert not ended.done()
            for each in pages.keepers:
                each.exchange.send_whole(200, [], b"done")
            async with asyncio.timeout(30):
                ((_, answer, body),) = answers(await busy.read())
                await ended
            assert (answer["connection"], body) == ("close", b"done")
            # h2 ends itself at the first GOAWAY, so it cannot read the rest.
            assert b"done" in await client.reader.read()
            await until(lambda: not gateway.listener.connections, "all connections are closed")

    on_io_loop(scenario())
