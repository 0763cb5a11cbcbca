"""`TlsListener`: a TCP port whose clients speak TLS. Its handshakes are limited in number and time.

asyncio's own listeners know a connection only once its handshake has ended, so strangers who connect and say nothing
could hold any number of sockets. On its event loop only.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Iterable

logger = logging.getLogger("mesh.http2")

HANDSHAKES_MAX = 500
"""Handshakes of one port at a time. Above that the oldest one ends: an honest client needs milliseconds."""
_HANDSHAKE_TIMEOUT_S = 10.0
"""How long a client may take for its TLS handshake."""
_SHUTDOWN_TIMEOUT_S = 0.5
"""For the peer's close_notify; some gRPC clients never send it."""
_ACCEPTS_PER_TURN = 64
_RETRY_S = 1.0
"""After an accept that failed, as it does where the process has no file descriptor left."""


class TlsListener:
    """Stands in for an asyncio server."""

    def __init__(
        self, context: Callable[[], ssl.SSLContext], make_protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """`context` gives that of the next handshake; `make_protocol` makes what gets a connection after it."""
        self._context = context
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[asyncio.Task[None], None] = {}
        self.sockets: list[socket.socket] = []

    @property
    def handshakes(self) -> int:
        """Those that have not ended."""
        return len(self._handshakes)

    def is_serving(self) -> bool:
        return bool(self.sockets)

    async def open(self, host: str, port: int, *, shares_port: bool, backlog: int) -> None:
        """Listen on every address of the host, except for those of a family that this system does not have.

        Port 0 is any. Raises OSError where an address is taken, and where none is left.
        """
        found = await self._loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        unsupported: OSError | None = None
        try:
            for family, address in dict.fromkeys((each[0], each[4]) for each in found):
                try:
                    opened = socket.socket(family, socket.SOCK_STREAM)
                except OSError as error:
                    if error.errno != errno.EAFNOSUPPORT:
                        raise
                    unsupported = error  # the resolver names addresses of IPv6 also where the kernel has none
                    continue
                self.sockets.append(opened)
                _listen(opened, address, shares_port=shares_port, backlog=backlog)
            if unsupported is not None and not self.sockets:
                raise unsupported
        except OSError:
            self.close()
            raise
        for each in self.sockets:
            self._loop.add_reader(each, self._accept, each)

    def adopt(self, listening: Iterable[socket.socket]) -> None:
        """Accept on sockets that listen already; they are this listener's from now on."""
        for each in listening:
            self.sockets.append(each)
            self._loop.add_reader(each, self._accept, each)

    def close(self) -> None:
        """Accept no more. Handshakes that have begun go on."""
        for each in self.sockets:
            self._loop.remove_reader(each)
            each.close()
        self.sockets = []

    def abort(self) -> None:
        """End the handshakes that have not ended."""
        for task in list(self._handshakes):
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("cannot accept connections, trying again in %g s: %s", _RETRY_S, error)
                self._loop.remove_reader(listening)
                self._loop.call_later(_RETRY_S, self._resume, listening)
                return
            connection.setblocking(False)
            self._begin(connection)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _begin(self, connection: socket.socket) -> None:
        if len(self._handshakes) >= HANDSHAKES_MAX:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._shake_hands(connection), name="TLS handshake")
        self._handshakes[task] = None
        task.add_done_callback(lambda done: self._handshakes.pop(done, None))

    async def _shake_hands(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
            )
        except (OSError, RuntimeError) as error:
            # No TLS, or none that both sides speak; or the client has left.
            logger.debug("a TLS handshake failed: %s", error)


def _listen(opened: socket.socket, address: tuple[object, ...], *, shares_port: bool, backlog: int) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shares_port:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind(address)
    opened.listen(backlog)
    opened.setblocking(False)
