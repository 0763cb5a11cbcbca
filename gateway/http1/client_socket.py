"""`ClientSocket`: the socket of one client: whether it is read, and how it ends."""

from __future__ import annotations

import select
import socket as sockets
from enum import Enum, auto
from typing import Any

from mesh.http2.transport import peer_name, tls_version

_KEEPALIVE_AFTER_S = 60
"""Silence after which the kernel probes a client's TCP connection."""
_KEEPALIVE_INTERVAL_S = 10
"""Pause between two such probes."""
_KEEPALIVE_PROBES = 2
_HAS_LEFT = getattr(select, "POLLRDHUP", 0)
"""Beside errors, which are always told."""


class SocketPhase(Enum):
    """How far its end has come; it only goes on."""

    OPEN = auto()
    FLUSHING = auto()
    """The last answer waits until the socket takes it."""
    LINGERING = auto()
    """All is written, and our side is closed; what still comes is dropped."""
    CLOSED = auto()
    """Both sides are, or will be once what was written has left."""


class ClientSocket:
    """An asyncio transport, plain or TLS."""

    __slots__ = ("_transport", "is_reading", "lingers", "lost_reason", "phase")

    def __init__(self, transport: Any) -> None:
        """uvloop's transports have no common type with asyncio's."""
        self._transport = transport
        self.phase = SocketPhase.OPEN
        self.is_reading = True
        self.lingers = False
        """Whether the end that follows a flush is to linger."""
        self.lost_reason = ""
        """Why the socket was closed, or will be."""
        _watch_for_death(transport.get_extra_info("socket"))

    def __repr__(self) -> str:
        return f"<ClientSocket {'lost' if self._transport is None else self.phase.name}>"

    @property
    def is_lost(self) -> bool:
        return self._transport is None

    @property
    def peer(self) -> str:
        """As gRPC names it. Not on one that is lost."""
        return peer_name(self._transport.get_extra_info("peername"))

    @property
    def tls(self) -> str:
        """The version of TLS; empty without."""
        return tls_version(self._transport)

    @property
    def is_open(self) -> bool:
        return self.phase is SocketPhase.OPEN

    @property
    def can_half_close(self) -> bool:
        """Whether one side can be closed alone, which TLS cannot."""
        return self._transport is not None and bool(self._transport.can_write_eof())

    def has_left_unread(self, *, may_half_close: bool) -> bool:
        """Whether the client has closed the connection while it is not read, so that no event will tell.

        `may_half_close`: a client that has only closed its side is still there.
        """
        return not self.is_reading and self._is_ready(0 if may_half_close else _HAS_LEFT)

    @property
    def has_flushed(self) -> bool:
        """Whether all that was written has left."""
        return self._transport is None or not self._transport.get_write_buffer_size()

    def read(self, *, wanted: bool) -> None:
        """Go on reading, or stop."""
        if wanted is not self.is_reading and self._transport is not None and not self._transport.is_closing():
            self.is_reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def flush(self, reason: str, *, lingers: bool) -> None:
        """An end will follow once what waits has been written."""
        self.lingers = lingers
        self._go_on(SocketPhase.FLUSHING, reason)

    def close(self, reason: str) -> None:
        """Close the socket behind what was written."""
        self._go_on(SocketPhase.CLOSED, reason)
        if self._transport is not None:
            self._transport.close()

    def close_idle(self, reason: str) -> None:
        """Close the socket unless bytes have come that were not read yet: perhaps the client's next request."""
        if not self._is_ready(select.POLLIN):
            self.close(reason)

    def linger(self, reason: str) -> None:
        """Close our side behind what was written, and drop what still comes.

        To close a socket with unread bytes breaks it, and the client may never see the answer.
        """
        self._go_on(SocketPhase.LINGERING, reason)
        if self._transport is not None:
            if self.can_half_close:
                self._transport.write_eof()
            # A client of TLS closes when it has read the answer.
            self.read(wanted=True)

    def abort(self, reason: str) -> None:
        """Close the socket now."""
        self._go_on(SocketPhase.CLOSED, reason)
        if self._transport is not None:
            self._transport.abort()

    def lose(self, reason: str) -> None:
        """The socket is closed."""
        self._go_on(SocketPhase.CLOSED, reason)
        self._transport = None

    def _is_ready(self, events: int) -> bool:
        """Whether the kernel has one of these events of the socket now, or an error."""
        socket = None if self._transport is None else self._transport.get_extra_info("socket")
        if socket is None or socket.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(socket.fileno(), events)
        return bool(poll.poll(0))

    def _go_on(self, phase: SocketPhase, reason: str) -> None:
        self.phase = phase
        self.lost_reason = self.lost_reason or reason


def _watch_for_death(socket: Any) -> None:
    """HTTP/1.1 has no PING: the kernel notices a client whose machine is gone."""
    if socket is not None and socket.family in (sockets.AF_INET, sockets.AF_INET6):
        socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_KEEPIDLE, _KEEPALIVE_AFTER_S)
        socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
        socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_KEEPCNT, _KEEPALIVE_PROBES)
