"""mesh.wire.endpoints: a peer that falls silent without closing its connection, as a host that vanishes does."""

import os
import signal
import subprocess
import sys

import grpc
import grpc.aio
import pytest

from mesh.wire.endpoints import CHANNEL_OPTIONS, open_channel
from tests.unit.fakes.small_mesh import on_io

SERVER = """
import asyncio, grpc
from mesh.wire.endpoints import start_server

async def echo(requests, context):
    async for request in requests:
        yield request

async def main():
    handler = grpc.stream_stream_rpc_method_handler(echo)
    handlers = grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler})
    server, port = await start_server([handlers], "127.0.0.1")
    print(port, flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""
QUICK_MS = 200
KEEPALIVE = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")


def test_a_stream_to_a_peer_that_fell_silent_breaks_in_the_time_of_its_options() -> None:
    """All three times matter: with one at its default, gRPC waits for a minute."""
    times = {name: QUICK_MS for name in KEEPALIVE}
    peer = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert peer.stdout is not None
    try:
        address = f"127.0.0.1:{int(peer.stdout.readline())}"

        async def converse() -> grpc.aio.AioRpcError:
            async with open_channel(address, options=tuple(times.items())) as channel:
                stream = channel.stream_stream("/test.Echo/Echo")()
                await stream.write(b"hello")
                assert await stream.read() == b"hello"
                os.kill(peer.pid, signal.SIGSTOP)
                with pytest.raises(grpc.aio.AioRpcError) as broken:
                    await stream.read()
                return broken.value

        assert on_io(converse()).code() is grpc.StatusCode.UNAVAILABLE
    finally:
        peer.kill()
        peer.wait()
        peer.stdout.close()


def test_every_keepalive_time_is_among_the_options() -> None:
    assert set(KEEPALIVE) <= {name for name, _ in CHANNEL_OPTIONS}
