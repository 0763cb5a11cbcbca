"""Strangers that open a connection and do not finish their handshake."""

from __future__ import annotations

import asyncio
import ssl

from mesh.rpc.request_head import read_request_head
from mesh.rpc.rpc_server import RpcServer
from tests.unit.fakes.small_mesh import on_io


def test_a_tls_handshake_that_fails_leaves_nothing_behind() -> None:
    async def knock() -> int:
        server = RpcServer(read_request_head, lambda stream, head, peer: None)
        port = await server.listen("127.0.0.1", 0, tls=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"this is no TLS at all, and long enough to be read as a record")
            async with asyncio.timeout(30):
                await reader.read()
            writer.close()
        connections = server.connections
        async with asyncio.timeout(30):
            await server.stop(grace_s=5)
        return connections

    assert on_io(knock()) == 0
