"""`RpcServer`: listens, and passes each gRPC request to what accepts it. On its event loop only."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Generic, TypeVar

from mesh.http2.connection import Connection
from mesh.http2.frame_format import ConnectionFault, ErrorCode
from mesh.http2.hpack_decoder import Field
from mesh.http2.limits import BufferBudget, Limits
from mesh.http2.server_connection import ServerConnection
from mesh.http2.stream import Receiver, Stream
from mesh.http2.transport import Http2Transport, TransportSet
from mesh.http2.upkeep import UpkeepPolicy
from mesh.phases.waiting import Waiters
from mesh.rpc.answers import answer_http_error, answer_status
from mesh.rpc.message_reader import RESOURCE_EXHAUSTED
from mesh.rpc.request_head import RequestHead

H = TypeVar("H", bound=RequestHead)

_INTERNAL = 13
_CLOSE_TIMEOUT_S = 1.0
_TLS_HANDSHAKE_TIMEOUT_S = 10.0
_TLS_SHUTDOWN_TIMEOUT_S = 0.5
"""For the peer's close_notify; some gRPC clients never send it."""

logger = logging.getLogger("mesh.rpc")


class _Phase(IntEnum):
    """Sockets may be accepted before a drain begins, and open only after it."""

    OPEN = 0
    DRAINING = 1
    STOPPED = 2


class RpcServer(Generic[H]):
    """One server, on any number of ports."""

    def __init__(
        self,
        interpret: Callable[[list[Field]], H],
        accept: Callable[[Stream, H, str], Receiver | None],
        *,
        limits: Limits | None = None,
        policy: UpkeepPolicy | None = None,
        budget: BufferBudget | None = None,
        connections_max: float = float("inf"),
    ) -> None:
        """`accept(stream, head, peer)` returns the receiver of a request, or None if it has answered already.

        `interpret` is `read_request_head` or something that adds to it.
        `budget`: for what all connections buffer; None: no limit.
        """
        self._interpret = interpret
        self._accept = accept
        self._limits = limits or Limits()
        self._budget = budget or BufferBudget()
        self._connections_max = connections_max
        self._transports = TransportSet(policy or UpkeepPolicy())
        self._listeners: list[asyncio.AbstractServer] = []
        self._lost = Waiters()
        self._phase = _Phase.OPEN

    def __repr__(self) -> str:
        return f"<RpcServer listeners={len(self._listeners)} connections={len(self._transports)}>"

    @property
    def connections(self) -> int:
        return len(self._transports)

    async def listen(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None, shares_port: bool = False
    ) -> int:
        """Open a TCP port, 0 for any; returns it. Raises OSError naming it when it is taken.

        `tls` is made to offer HTTP/2 by ALPN, as gRPC demands.
        `shares_port`: other processes of the same server may listen on it too (SO_REUSEPORT).
        """
        loop = asyncio.get_running_loop()
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        try:
            listener = await loop.create_server(
                self._transport,
                host,
                port,
                ssl=tls,
                ssl_handshake_timeout=_TLS_HANDSHAKE_TIMEOUT_S if tls else None,
                ssl_shutdown_timeout=_TLS_SHUTDOWN_TIMEOUT_S if tls else None,
                reuse_port=shares_port or None,
                backlog=1024,
            )
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._listeners.append(listener)
        bound: int = listener.sockets[0].getsockname()[1]
        return bound

    async def listen_unix(self, path: str) -> None:
        """Open a Unix socket at `path`."""
        self._listeners.append(await asyncio.get_running_loop().create_unix_server(self._transport, path, backlog=1024))

    def drain(self) -> None:
        """Stop listening, and tell all peers to open no new streams; those that are open go on."""
        self._phase = max(self._phase, _Phase.DRAINING)
        for listener in self._listeners:
            listener.close()
        for transport in self._transports:
            transport.drain()

    async def stop(self, grace_s: float) -> None:
        """Drain, and close what is still open after `grace_s`."""
        self.drain()
        self._listeners.clear()
        try:
            async with asyncio.timeout(grace_s):
                await self._lost.until(lambda: not self._transports)
        except TimeoutError:
            pass
        self._phase = _Phase.STOPPED
        if self._transports:
            for transport in self._transports:
                transport.abort("the server stops")
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._lost.until(lambda: not self._transports)

    # ---- Connections -------------------------------------------------------------------------------------------------

    def _transport(self) -> Http2Transport:
        return Http2Transport(self._connection, self._on_lost)

    def _connection(self, transport: Http2Transport, on_output: Callable[[], None]) -> Connection[H]:
        # Only now does the transport count: after a TLS handshake that fails it is never connected, nor lost.
        peer = transport.peer
        connection = ServerConnection(
            self._interpret,
            lambda stream, head: self._on_request(stream, head, peer),
            self._limits,
            time.monotonic,
            on_output,
            self._budget,
        )
        if len(self._transports) >= self._connections_max:
            text = f"this server has {self._connections_max} connections, its limit"
            connection.fail(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text))
        self._transports.add(transport)
        if self._phase is _Phase.DRAINING:
            connection.drain()
        elif self._phase is _Phase.STOPPED:
            transport.abort("the server has stopped")
        return connection

    def _on_lost(self, transport: Http2Transport) -> None:
        self._transports.discard(transport)
        self._lost.wake()

    def _on_request(self, stream: Stream, head: H | None, peer: str) -> None:
        if head is None:
            answer_status(stream, RESOURCE_EXHAUSTED, f"Metadata above {self._limits.header_list_max_bytes} bytes.")
        elif head.malformed:
            stream.connection.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
        elif head.http_status != 200:
            answer_http_error(stream, head.http_status)
        elif head.refusal:
            answer_status(stream, _INTERNAL, head.refusal)
        else:
            stream.content_left = head.content_length
            try:
                receiver = self._accept(stream, head, peer)
            except Exception:
                logger.exception("a request of %s was not accepted", head.path)
                answer_status(stream, _INTERNAL, "The server failed; its log has the reason.")
            else:
                if receiver is not None:
                    stream.receiver = receiver
