"""`RpcServer`: listens, and passes each gRPC request to what accepts it. On its event loop only."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Generic, TypeVar

from mesh.http2.connection import Connection
from mesh.http2.hpack_decoder import Field
from mesh.http2.limits import Limits
from mesh.http2.transport import Http2Transport
from mesh.http2.upkeep import UpkeepPolicy
from mesh.rpc.request_head import RequestHead
from mesh.rpc.rpc_requests import Accept, RpcRequests
from mesh.rpc.socket_server import ServerPhase, SocketServer

H = TypeVar("H", bound=RequestHead)


class RpcServer(Generic[H]):
    """One server, on any number of ports."""

    def __init__(
        self,
        interpret: Callable[[list[Field]], H],
        accept: Accept[H],
        *,
        limits: Limits | None = None,
        policy: UpkeepPolicy | None = None,
    ) -> None:
        """`interpret` is `read_request_head` or something that adds to it."""
        self._requests = RpcRequests(interpret, accept, limits=limits)
        self._sockets: SocketServer[Http2Transport] = SocketServer(self._transport, policy)

    def __repr__(self) -> str:
        return f"<RpcServer {self._sockets!r}>"

    @property
    def connections(self) -> int:
        return len(self._sockets.connections)

    async def listen(
        self, host: str, port: int, *, tls: Callable[[], ssl.SSLContext] | None = None, shares_port: bool = False
    ) -> int:
        """Open a TCP port, 0 for any; returns it. Raises OSError naming it when it is taken.

        `tls` gives the context for the next handshake, which has to offer HTTP/2 by ALPN, as gRPC demands.
        `shares_port`: other processes of the same server may listen on it too (SO_REUSEPORT).
        """
        return await self._sockets.listen(host, port, tls=tls, shares_port=shares_port)

    async def listen_unix(self, path: str) -> None:
        """Open a Unix socket at `path`."""
        await self._sockets.listen_unix(path)

    def drain(self) -> None:
        """Stop listening, and tell all peers to open no new streams; those that are open go on."""
        self._sockets.drain()

    async def stop(self, grace_s: float) -> None:
        """Drain, and close what is still open after `grace_s`."""
        await self._sockets.stop(grace_s)

    # ---- Connections -------------------------------------------------------------------------------------------------

    def _transport(self) -> Http2Transport:
        return Http2Transport(self._connection, self._sockets.on_lost)

    def _connection(self, transport: Http2Transport, on_output: Callable[[], None]) -> Connection[H]:
        # Only now does the transport count: after a TLS handshake that fails it is never connected, nor lost.
        connection = self._requests.connection(transport.peer, on_output)
        self._sockets.connections.add(transport)
        if self._sockets.phase is ServerPhase.DRAINING:
            connection.drain()
        elif self._sockets.phase is ServerPhase.STOPPED:
            transport.abort("the server has stopped")
        return connection
