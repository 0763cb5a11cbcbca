"""`SocketServer`: listens on ports, and looks after the connections that come. On its event loop only."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

from mesh.http2.transport import TendedConnection, TransportSet
from mesh.http2.upkeep import UpkeepPolicy
from mesh.phases.waiting import Waiters
from mesh.tls.tls_listener import TlsListener

_CLOSE_TIMEOUT_S = 1.0
"""How long connections may take to close."""
_BACKLOG = 1024


class ServedConnection(TendedConnection, Protocol):
    """What ends with its server."""

    def drain(self) -> None:
        """Let the peer finish, and close then."""

    def abort(self, reason: str) -> None:
        """Close the socket now."""


C = TypeVar("C", bound=ServedConnection)


class ServerPhase(IntEnum):
    """Sockets may be accepted before a drain begins, and open only after it."""

    OPEN = 0
    DRAINING = 1
    STOPPED = 2


class _Listener(Protocol):
    """One port."""

    @property
    def sockets(self) -> Sequence[socket.socket]: ...

    def is_serving(self) -> bool: ...

    def close(self) -> None: ...


class _Servers:
    """A port whose sockets each have a server of their own."""

    def __init__(self, servers: Sequence[asyncio.Server]) -> None:
        self._servers = servers

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return [found for each in self._servers for found in each.sockets]

    def is_serving(self) -> bool:
        return all(each.is_serving() for each in self._servers)

    def close(self) -> None:
        for each in self._servers:
            each.close()


class SocketServer(Generic[C]):
    """One server, on any number of ports."""

    def __init__(self, make_protocol: Callable[[], asyncio.BaseProtocol], policy: UpkeepPolicy | None = None) -> None:
        """What `make_protocol` returns adds itself to `connections` once it is connected."""
        self._make_protocol = make_protocol
        self.connections: TransportSet[C] = TransportSet(policy or UpkeepPolicy())
        self._listeners: list[_Listener] = []
        self._lost = Waiters()
        self.phase = ServerPhase.OPEN

    def __repr__(self) -> str:
        return f"<SocketServer {self.phase.name} listeners={len(self._listeners)} connections={len(self.connections)}>"

    @property
    def is_listening(self) -> bool:
        """Whether every port that was opened is open."""
        return all(each.is_serving() for each in self._listeners)

    async def listen(
        self,
        host: str,
        port: int,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        shares_port: bool = False,
        inherited: Sequence[socket.socket] = (),
    ) -> int:
        """Open a TCP port, 0 for any; returns it. Raises OSError naming it when it is taken.

        `tls`: gives the context for the next handshake, with the protocols to be offered by ALPN; None: plain text.
        `shares_port`: other processes of the same server may listen on it too (SO_REUSEPORT).
        `inherited`: sockets that listen on it already, and that belong to this server from now on.
        """
        try:
            if inherited:
                listener = await self._adopt(inherited, tls, shares_port=shares_port)
            else:
                listener = await self._open(host, port, tls, shares_port=shares_port)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._listeners.append(listener)
        bound: int = listener.sockets[0].getsockname()[1]
        return bound

    def listening(self) -> list[Sequence[socket.socket]]:
        """The sockets of each port, in the order in which they were opened."""
        return [each.sockets for each in self._listeners]

    def close_ports(self, numbers: Iterable[int]) -> None:
        """Accept no more connections on these ports, by their place in `listening`. What is open stays."""
        for number in numbers:
            self._listeners[number].close()

    async def listen_unix(self, path: str) -> None:
        """Open a Unix socket at `path`."""
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_unix_server(self._make_protocol, path, backlog=_BACKLOG))

    def drain(self) -> None:
        """Stop listening, and drain all connections."""
        self.phase = max(self.phase, ServerPhase.DRAINING)
        for listener in self._listeners:
            listener.close()
        for connection in self.connections:
            connection.drain()

    async def stop(self, grace_s: float) -> None:
        """Drain, and close what is still open after `grace_s`."""
        self.drain()
        for listener in self._listeners:
            if isinstance(listener, TlsListener):
                listener.abort()
        self._listeners.clear()
        try:
            async with asyncio.timeout(grace_s):
                await self._lost.until(lambda: not self.connections)
        except TimeoutError:
            pass
        self.phase = ServerPhase.STOPPED
        if self.connections:
            for connection in self.connections:
                connection.abort("the server stops")
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._lost.until(lambda: not self.connections)

    def on_lost(self, connection: C) -> None:
        """The socket of a connection is closed."""
        self.connections.discard(connection)
        self._lost.wake()

    async def _open(
        self, host: str, port: int, tls: Callable[[], ssl.SSLContext] | None, *, shares_port: bool
    ) -> _Listener:
        if tls is not None:
            listener = TlsListener(tls, self._make_protocol)
            await listener.open(host, port, shares_port=shares_port, backlog=_BACKLOG)
            return listener
        return await asyncio.get_running_loop().create_server(
            self._make_protocol, host, port, reuse_port=shares_port or None, backlog=_BACKLOG
        )

    async def _adopt(
        self, inherited: Sequence[socket.socket], tls: Callable[[], ssl.SSLContext] | None, *, shares_port: bool
    ) -> _Listener:
        for each in inherited:
            # Linux takes it also from a socket that listens already, for those that are bound from now on.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares_port)
        if tls is not None:
            listener = TlsListener(tls, self._make_protocol)
            listener.adopt(inherited)
            return listener
        loop = asyncio.get_running_loop()
        return _Servers(
            [await loop.create_server(self._make_protocol, sock=each, backlog=_BACKLOG) for each in inherited]
        )
