"""A peer that falls silent without closing its connection, as a host that vanishes does."""

import os
import signal
import subprocess
import sys

import grpc
import grpc.aio
import pytest

from mesh.http2 import transport
from mesh.http2.upkeep import UpkeepPolicy
from mesh.link.link_stream import LINK_UPKEEP
from mesh.rpc.rpc_channel import RpcChannel
from tests.unit.fakes.small_mesh import on_io

SERVER = """
import asyncio
from mesh.rpc.method_handlers import MethodHandlers
from mesh.rpc.request_head import read_request_head
from mesh.rpc.rpc_server import RpcServer
import grpc

async def echo(requests, context):
    async for request in requests:
        yield request

async def main():
    handlers = MethodHandlers()
    handlers.add_registered_method_handlers("test.Echo", {"Echo": grpc.stream_stream_rpc_method_handler(echo)})
    server = RpcServer(read_request_head, handlers.accept)
    print(await server.listen("127.0.0.1", 0), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_stream_to_a_peer_that_fell_silent_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_LOOK_INTERVAL_S", 0.05)
    peer = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert peer.stdout is not None
    try:
        address = f"127.0.0.1:{int(peer.stdout.readline())}"

        async def converse() -> grpc.aio.AioRpcError:
            # A peer that is only slow, on a busy machine, has a second for its answer.
            policy = UpkeepPolicy(keepalive_after_s=0.1, keepalive_timeout_s=1.0)
            async with RpcChannel(address, policy=policy) as channel:
                call = channel.call("/test.Echo/Echo", None)
                await call.write(b"hello")
                assert await call.read() == b"hello"
                os.kill(peer.pid, signal.SIGSTOP)
                with pytest.raises(grpc.aio.AioRpcError) as broken:
                    await call.read()
                return broken.value

        assert on_io(converse()).code() is grpc.StatusCode.UNAVAILABLE
    finally:
        peer.kill()
        peer.wait()
        peer.stdout.close()


def test_links_notice_silence_within_eight_seconds() -> None:
    """Both ends look about once a second."""
    assert LINK_UPKEEP.keepalive_after_s + LINK_UPKEEP.keepalive_timeout_s + 2 <= 8
