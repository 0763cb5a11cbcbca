"""The hand-over of listening sockets from a gateway to the one that replaces it, over a Unix socket of their node.

Both accept from the same queue of connections until the former one closes its descriptors, so no client is refused.
With a second socket on the port (SO_REUSEPORT) the connections in the queue of the first would be reset at its end.

The successor names the ports that it wants, gets the sockets of those that are there, and keeps the connection for as
long as it lives: the predecessor learns by its end that the successor is gone. A port that is there with another host
shares its number with the successor for that time, see `gateway.overlapping_ports`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from typing import Any

from gateway.overlapping_ports import Descriptor, divided, shared_numbers
from mesh.settings import settings

logger = logging.getLogger("mesh.gateway")

_MESSAGE_MAX_BYTES = 4096
_SOCKETS_MAX = 32
_BACKLOG = 8
_CREDENTIALS = struct.Struct("3i")
_BESIDE = "beside "
"""Before the name of a port that is there with another host: the sockets are those that the wanted one covers."""


class PortOffer:
    """The former gateway's end. On its event loop."""

    def __init__(self, sockets: Callable[[], Mapping[str, Sequence[Descriptor]]]) -> None:
        """`sockets`: those that listen now, by the name of their port."""
        self._sockets = sockets
        self._listener: socket.socket | None = None
        self._address = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self.taken: frozenset[str] = frozenset()
        """Names of the ports that a living successor listens on too."""

    def __repr__(self) -> str:
        return f"<PortOffer taken={sorted(self.taken)}>"

    def open(self) -> str:
        """Where a successor may ask. The same address again when it is open."""
        if self._listener is None:
            # An abstract name: there is no file to remove. Names are not secrets, so the peer's user is checked.
            self._address = f"mesh-gateway-{secrets.token_hex(16)}"
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(f"\0{self._address}")
            self._listener.listen(_BACKLOG)
            self._listener.setblocking(False)
            self._spawn(self._accept(self._listener))
        return self._address

    def close(self) -> None:
        """Hand over nothing any more."""
        self._listener = None
        for task in self._tasks:
            task.cancel()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name="port hand-over")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:  # for instance, no descriptor is left
                    logger.warning("the offer of ports is withdrawn, the next successor gets another one: %s", error)
                    self._listener = None
                    return
                if is_of_this_user(connection):
                    self._spawn(self._serve(connection))
                else:
                    connection.close()

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        taken: frozenset[str] = frozenset()
        try:
            connection.setblocking(False)
            async with asyncio.timeout(settings().gateway.handover_timeout_s):
                wanted = set(map(str, json.loads(await loop.sock_recv(connection, _MESSAGE_MAX_BYTES))))
            ports = self._sockets()
            division = divided(ports, wanted)
            found = {**division.whole, **{f"{_BESIDE}{name}": each for name, each in division.covered.items()}}
            descriptors = [each.fileno() for sockets in found.values() for each in sockets]
            counts = json.dumps({name: len(sockets) for name, sockets in found.items()}).encode()
            with shared_numbers(division.overlapping):
                # Few bytes into an empty buffer: this does not wait.
                socket.send_fds(connection, [counts], descriptors)
                self.taken = taken = division.taken(ports)
                await loop.sock_recv(connection, 1)  # without a deadline: it ends when the successor does
        except (OSError, ValueError, TypeError, TimeoutError) as error:
            logger.warning("the hand-over of ports failed: %s", error)
        finally:
            if self.taken is taken:
                self.taken = frozenset()
            connection.close()


class TakenPorts:
    """The successor's end: the sockets it has got, by the name of their port."""

    def __init__(self, connection: socket.socket, sockets: dict[str, list[socket.socket]]) -> None:
        self._connection = connection
        self.sockets = sockets

    def __repr__(self) -> str:
        return f"<TakenPorts {sorted(self.sockets)}>"

    def pop(self, name: str) -> Sequence[socket.socket]:
        """The sockets of a port, for the listener that closes them; empty for a port that is not taken over."""
        return self.sockets.pop(name, [])

    def pop_covered(self, name: str) -> Sequence[socket.socket] | None:
        """The sockets that the predecessor keeps of a port with the same number and another host.

        None: the predecessor does not have that number, or it has the very same port.
        """
        return self.sockets.pop(f"{_BESIDE}{name}", None)

    def close(self) -> None:
        """Let the predecessor know that this gateway is gone. Sockets that no listener has got are closed."""
        for each in (self._connection, *(each for found in self.sockets.values() for each in found)):
            each.close()


def take_ports(address: str, wanted: Set[str]) -> TakenPorts:
    """The sockets of these ports that the gateway at `address` has. Blocking. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened: list[socket.socket] = []
    try:
        connection.settimeout(settings().gateway.handover_timeout_s)
        connection.connect(f"\0{address}")
        if not is_of_this_user(connection):
            raise OSError("a process of another user answers")
        connection.sendall(json.dumps(sorted(wanted)).encode())
        data, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE_MAX_BYTES, _SOCKETS_MAX)
        opened = [socket.socket(fileno=each) for each in descriptors]
        counts: dict[str, int] = json.loads(data)
        left = iter(opened)
        sockets = {name: [next(left) for _ in range(count)] for name, count in counts.items()}
    except (OSError, ValueError, StopIteration) as error:
        for each in (connection, *opened):
            each.close()
        raise OSError(f"the gateway that this one replaces does not hand over its ports: {error}") from error
    for each in opened:
        each.setblocking(False)
    return TakenPorts(connection, sockets)


def is_of_this_user(connection: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket has the same user."""
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return bool(uid == os.getuid())
