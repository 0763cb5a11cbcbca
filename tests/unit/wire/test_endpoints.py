"""mesh.wire.endpoints: a channel to a process whose machine is busy."""

from __future__ import annotations

import asyncio

import grpc

from mesh.wire.endpoints import open_channel, start_server
from mesh.wire.io_thread import io_thread

SLOW_S = 0.5
"""How long the process takes to accept a connection."""


class Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> object:
        return grpc.unary_unary_rpc_method_handler(self._echo)

    async def _echo(self, request: bytes, context: object) -> bytes:
        return request


def test_a_connection_may_take_longer_than_the_pause_between_two_attempts() -> None:
    """TCP connects immediately, and the other process is slow to say more. Another attempt would be no faster."""
    attempts = 0

    async def scenario() -> bytes:
        loop = asyncio.get_running_loop()
        server, port = await start_server([Echo()], "127.0.0.1")
        accepts = asyncio.Event()
        loop.call_later(SLOW_S, accepts.set)

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while piece := await reader.read(65_536):
                writer.write(piece)
            writer.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal attempts
            attempts += 1
            await accepts.wait()
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(reader, target_writer), pump(target_reader, writer), return_exceptions=True)

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as slow:
            async with open_channel(f"127.0.0.1:{slow.sockets[0].getsockname()[1]}") as channel:
                answer: bytes = await channel.unary_unary("/shop.Test/Echo")(b"x", timeout=30)
            await server.stop(0)
        return answer

    assert io_thread().run(scenario(), 60) == b"x"
    assert attempts == 1
