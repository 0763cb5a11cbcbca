"""Channels that cannot connect, each for its reason; and what a connection begins with."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.http2.limits import Limits
from mesh.rpc import rpc_channel
from mesh.rpc.rpc_channel import RpcChannel
from tests.free_ports import free_port
from tests.unit.fakes.rpc_ends import AsyncShop, OurServer, certificate_files, failure, our_server, scenario, until


def test_a_server_that_is_not_there_fails_all_waiting_calls_at_once() -> None:
    async def talk() -> None:
        async with RpcChannel(f"127.0.0.1:{free_port()}") as channel:
            errors = await asyncio.gather(*[failure(channel.call("/a/B", [b""])) for _ in range(50)])
            assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
            assert all("failed to connect to 127.0.0.1" in error.details() for error in errors)
        async with RpcChannel("unix:/nowhere/at/all") as channel:
            assert (await failure(channel.call("/a/B", [b""]))).code() is grpc.StatusCode.UNAVAILABLE
        async with RpcChannel("no port") as channel:
            assert (await failure(channel.call("/a/B", [b""]))).code() is grpc.StatusCode.UNAVAILABLE

    scenario(talk())


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["silent", "http/1"])
def test_a_server_that_is_no_http2_server(greeting: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    if not greeting:
        monkeypatch.setattr(rpc_channel, "_CONNECT_TIMEOUT_S", 0.1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()
        await reader.read()
        writer.close()

    async def talk() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with RpcChannel(f"127.0.0.1:{port}") as channel:
            error = await failure(channel.call("/a/B", [b""]))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert ("a frame of" if greeting else "no answer in time") in error.details()
            await until(lambda: not len(channel._transports), "the connection is closed")
        server.close()

    scenario(talk())


def test_a_connection_that_is_cancelled_closes_its_descriptor_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it waits for. Closed twice, the second time it may be the descriptor of something else."""
    made: list[socket.socket] = []

    class Recorded(socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            made.append(self)

    async def talk() -> None:
        server = await asyncio.start_unix_server(lambda reader, writer: reader.read(), tmp_path / "socket")
        with monkeypatch.context() as patched:
            patched.setattr("mesh.rpc.rpc_channel.socket.socket", Recorded)
            turns = 0
            while await is_cancelled_after(turns, f"unix:{tmp_path}/socket"):
                turns += 1
            assert turns > 1
            # The last one has connected.
            assert [each.fileno() for each in made[:-1] if each.fileno() != -1] == []
        server.close()

    scenario(talk())
    assert "Exception in callback" not in caplog.text


def test_a_tcp_connection_that_is_cancelled_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> int:
        server = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
        turns = 0
        while await is_cancelled_after(turns, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"):
            turns += 1
        server.close()
        return turns

    assert scenario(talk()) > 1
    assert "Exception in callback" not in caplog.text


async def is_cancelled_after(turns: int, address: str) -> bool:
    """Whether the attempt had not ended by then."""
    connecting = asyncio.ensure_future(rpc_channel.connect(address, Limits(), lambda transport: None))
    for _ in range(turns):
        await asyncio.sleep(0)
    connecting.cancel()
    await asyncio.wait([connecting])
    if not connecting.cancelled():
        connecting.result().abort("the test ends")
    return connecting.cancelled()


def test_a_channel_that_closes_while_it_connects_ends_its_calls() -> None:
    async def talk() -> None:
        server = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
        channel = RpcChannel(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        calls = [channel.call("/a/B", requests) for requests in ([b""], None, iter([b""]))]
        await asyncio.sleep(0)
        await channel.close()
        for call in calls:
            assert (await failure(call)).details() == "The channel is closed."
        server.close()

    scenario(talk())


def test_a_server_that_closes_every_connection_is_given_up() -> None:
    async def talk() -> None:
        ours = OurServer(AsyncShop())
        port = await ours.server.listen("127.0.0.1", 0)
        accepted = ours.server._connection
        ours.server._connection = lambda *args: _drained(accepted(*args))  # type: ignore[method-assign]
        async with RpcChannel(f"127.0.0.1:{port}") as channel:
            error = await failure(channel.call("/a/B", [b""], timeout_s=5))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        await ours.stop()

    scenario(talk())


def _drained(connection: Any) -> Any:
    connection.drain()
    connection.finish_drain()
    return connection


def test_a_certificate_that_is_not_trusted() -> None:
    async def talk() -> None:
        async with our_server(AsyncShop(), "tls") as (ours, address):
            async with RpcChannel(address, tls=ssl.create_default_context()) as channel:
                error = await failure(channel.call("/a/B", [b""]))
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert "certificate" in error.details().lower()
            await until(lambda: not ours.server.connections, "the failed handshake is forgotten")

    scenario(talk())


def test_http2_is_negotiated_by_alpn() -> None:
    async def talk() -> str | None:
        async with our_server(AsyncShop(), "tls") as (_, address):
            context = ssl.create_default_context(cafile=str(certificate_files()[1]))
            context.set_alpn_protocols(["http/1.1", "h2"])
            _, writer = await asyncio.open_connection("localhost", int(address.rpartition(":")[2]), ssl=context)
            chosen: str | None = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            writer.transport.abort()
            return chosen

    assert scenario(talk()) == "h2"
