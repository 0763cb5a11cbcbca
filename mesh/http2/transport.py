"""`Http2Transport`: a connection on an asyncio socket, plain or TLS, TCP or Unix; and the upkeep of a set of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from socket import AF_UNIX, SO_SNDBUF, SOL_SOCKET
from typing import Any, Generic, Protocol, TypeVar

from mesh.http2.connection import Connection
from mesh.http2.frame_format import ErrorCode, Http2Error
from mesh.http2.server_connection import ServerConnection
from mesh.http2.stream import Stream
from mesh.http2.upkeep import BodyWatch, Upkeep, UpkeepClock, UpkeepPolicy, Vitals
from mesh.http2.write_turn import ENOUGH, write_turn
from mesh.tls.client_certificate import read_certificate

_WRITE_BUFFER_BYTES = 512 * 1024
"""What the socket may hold back before a connection stops writing."""
_JOIN_BYTES_MAX = 64 * 1024
"""Output up to this size is copied into one buffer; above that, each piece is handed to the socket as it is."""
_FRAMES_PER_TURN = 256
"""Frames handled per turn of the loop and connection, so that a fast sender does not keep the loop for itself."""
_TURN_MAX_S = 0.005
"""The same in time, for frames that are much work: twenty clients that send such ones delay others by about 0.1 s.
Looked at before each step.
"""
_LARGE_READ_BYTES = 64 * 1024
_LARGE_READS_PER_TURN = 4
"""Behind these, of all clients together, the loop has its turn; each of them may read once. uvloop goes on reading a
socket while there is more, up to 8 MiB, and so do connections to servers: what comes there was asked for.
"""
_FRAMES_PER_STEP = 2 * ENOUGH
"""After these, what they call for may be written: most calls are two frames."""
_UNIX_BUFFER_BYTES = 1024 * 1024
_PING = b"keepaliv"
_LOOK_INTERVAL_S = 1.0
"""Pause between two looks at the connections of a set."""
_AGE_JITTER = 0.1
"""Share by which the ages differ that connections reach."""
_random = Random()
"""Not the generator of the program, which may have seeded it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """One connection of a client as it is now, for operators."""

    peer: str
    protocol: str
    """ "h2", "http/1.1", or "unknown" before the first bytes have shown it."""
    tls: str
    """The version of TLS; empty without."""
    age_s: float
    silent_s: float
    """Since the client has sent anything; exact to about a second."""
    streams: int = 0
    """Calls and requests in progress."""
    streams_opened: int = 0
    """All of them since the connection began."""
    buffered_bytes: int = 0
    """Bytes of messages that wait in this process because of the connection, in either direction."""
    unsent_bytes: int = 0
    """The part of them that waits for the client to read."""
    awaits_pong: bool = False
    """A keepalive PING is unanswered."""
    is_draining: bool = False


class Http2Transport(asyncio.Protocol):
    """Bytes between a socket and a `Connection`. On its event loop only."""

    def __init__(
        self,
        make_connection: Callable[[Http2Transport, Callable[[], None]], Connection[Any]],
        on_lost: Callable[[Http2Transport], None],
        on_stalled: Callable[[Stream], None] | None = None,
    ) -> None:
        """`make_connection` gets this transport and its `on_output`; `on_lost` is called once the socket is closed.

        `on_stalled`: a client is too slow in the middle of a request, see `UpkeepPolicy.body_timeout_s`.
        """
        self._turn = write_turn()
        self._make_connection = make_connection
        self._on_lost = on_lost
        self._on_stalled = on_stalled
        self._bodies = BodyWatch()
        self._socket: Any = None
        """The asyncio transport; uvloop's have no common type with asyncio's."""
        self._is_due = False
        self.connection: Connection[Any]
        self.reads = 0
        self.clock = UpkeepClock(time.monotonic(), _random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER))
        self.peer = ""
        """As gRPC names it, for instance "ipv4:10.0.0.1:4711"."""
        self.lost_reason = ""
        """Why the socket was closed."""

    def __repr__(self) -> str:
        return f"<Http2Transport {self.peer} {self.connection!r}>"

    @property
    def is_lost(self) -> bool:
        return self._socket is None

    # ---- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._socket = transport
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        _widen(transport.get_extra_info("socket"))
        self.peer = peer_name(transport.get_extra_info("peername"))
        self.connection = self._make_connection(self, self._on_output)
        if isinstance(self.connection, ServerConnection):
            self.connection.client_certificate = read_certificate(transport.get_extra_info("peercert"))

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        turn, connection = self._turn, self.connection
        is_much = False
        if len(data) >= _LARGE_READ_BYTES and connection.is_server:
            turn.large_reads += 1
            is_much = turn.large_reads >= _LARGE_READS_PER_TURN
        began_at_s = 0.0
        turn.begin()
        try:
            for _ in range(0, _FRAMES_PER_TURN, _FRAMES_PER_STEP):
                connection.receive(data, _FRAMES_PER_STEP)
                began_at_s = began_at_s or connection.read_at_s
                if not connection.reader.has_unread or connection.read_at_s - began_at_s > _TURN_MAX_S:
                    break
                data = b""
                turn.write_early()
            if connection.is_closing:
                # Its last stream may have ended without a frame of ours: `_write` closes the socket then.
                self._on_output()
        finally:
            turn.end()
        if (is_much or connection.reader.has_unread) and self._socket is not None:
            # One buffer holds thousands of requests, and uvloop goes on reading a socket while there is more.
            self._socket.pause_reading()
            turn.loop.call_soon(self._read_on)

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket = None
        self.lost_reason = self.lost_reason or (str(exc) if exc else "the peer closed the connection")
        self._end_streams()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self.connection.outbox.is_paused = True

    def resume_writing(self) -> None:
        self.connection.outbox.resume()
        self._on_output()

    def _read_on(self) -> None:
        self._turn.large_reads = 0
        if self._socket is not None and not self._socket.is_closing():
            self._socket.resume_reading()
            if self.connection.reader.has_unread:
                self.data_received(b"")

    # ---- Writing -----------------------------------------------------------------------------------------------------

    def _on_output(self) -> None:
        self._turn.waiting += 1
        if not self._is_due:
            self._is_due = True
            self._turn.add(self._write)

    def _write(self) -> None:
        self._is_due = False
        socket, connection = self._socket, self.connection
        if socket is None or (connection.fault is not None and socket.is_closing()):
            return
        while output := connection.take_output():
            if len(output) == 1:
                socket.write(output[0])
            elif sum(map(len, output)) <= _JOIN_BYTES_MAX:
                socket.write(b"".join(output))
            else:
                socket.writelines(output)
        if connection.fault is not None:
            self.close(str(connection.fault))
            self._end_streams()
        elif connection.is_done:
            self.close("drained")

    # ---- Life --------------------------------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """Close the socket once what was written has left. `look_after` ends a peer that does not take it."""
        self.lost_reason = self.lost_reason or reason
        if self._socket is not None:
            self._socket.close()

    def abort(self, reason: str) -> None:
        """Close the socket now."""
        self.lost_reason = self.lost_reason or reason
        if self._socket is not None:
            self._socket.abort()

    def forget_socket(self) -> None:
        """Connecting has failed, perhaps after `connection_made`. The loop closes the socket, uvloop silently."""
        self._socket = None

    def drain(self) -> None:
        """A server: let the peer finish, and close then."""
        if isinstance(self.connection, ServerConnection):
            self.connection.drain()

    def facts(self, now_s: float) -> ConnectionFacts:
        """What operators may want to know of it. Not on one that is lost."""
        connection = self.connection
        outbox = connection.outbox
        return ConnectionFacts(
            peer=self.peer,
            protocol="h2",
            tls=tls_version(self._socket),
            age_s=now_s - self.clock.opened_at_s,
            silent_s=now_s - self.clock.read_at_s,
            streams=len(connection.streams),
            streams_opened=connection.streams_opened if isinstance(connection, ServerConnection) else 0,
            buffered_bytes=outbox.share.used_bytes,
            unsent_bytes=outbox.pending_bytes,
            awaits_pong=self.clock.awaits_pong,
            is_draining=connection.is_closing,
        )

    def look_after(self, policy: UpkeepPolicy, now_s: float) -> None:
        """Do what the connection needs now; to be called about once a second."""
        connection = self.connection
        vitals = Vitals(
            self.reads,
            len(connection.streams),
            connection.reader.awaited_stream,
            connection.outbox.is_paused,
            connection.is_server and connection.is_closing,
            connection.outbox.pending_bytes,
            connection.outbox.sent_bytes,
        )
        match self.clock.check(vitals, policy, now_s):
            case Upkeep.PING:
                connection.ping(_PING)
            case Upkeep.DRAIN:
                self.drain()
            case Upkeep.FINISH_DRAIN:
                if isinstance(connection, ServerConnection):
                    connection.finish_drain()
            case Upkeep.SLOW:
                connection.fail(Http2Error(ErrorCode.ENHANCE_YOUR_CALM, Upkeep.SLOW.value))
            case Upkeep.GONE | Upkeep.UNREAD | Upkeep.BEHIND | Upkeep.END_DRAIN as action:
                self.abort(action.value)
        if isinstance(connection, ServerConnection):
            connection.reset_lingering(now_s - policy.linger_timeout_s)
        if self._on_stalled is not None and isinstance(connection, ServerConnection):
            for stream in self._bodies.stalled(connection.awaited_bodies(), policy, now_s):
                self._on_stalled(stream)

    def _end_streams(self) -> None:
        """The connection is over: end its streams, some in each turn, so that others need not wait for thousands."""
        connection, turn = self.connection, self._turn
        turn.begin()
        try:
            connection.close(ErrorCode.CONNECT_ERROR if connection.fault is None else connection.fault.code)
        finally:
            turn.end()
            if connection.streams:
                turn.loop.call_soon(self._end_streams)


class TendedConnection(Protocol):
    """A connection that a `TransportSet` checks regularly; hashed by identity."""

    @property
    def is_lost(self) -> bool:
        """The socket is closed."""

    def look_after(self, policy: UpkeepPolicy, now_s: float) -> None:
        """Do what the connection needs now; to be called about once a second."""


C = TypeVar("C", bound=TendedConnection)


class TransportSet(Generic[C]):
    """Connections that are looked after together, about once a second. On their event loop only."""

    def __init__(self, policy: UpkeepPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._policy = policy
        self._clock = clock
        self._transports: dict[C, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._transports)

    def __iter__(self) -> Iterator[C]:
        return iter(list(self._transports))

    def add(self, transport: C) -> None:
        """Ignores a transport that is lost: its `on_lost` has run, so nothing would remove it again."""
        if transport.is_lost:
            return
        self._transports[transport] = None
        if self._timer is None:
            self._look_soon()

    def discard(self, transport: C) -> None:
        self._transports.pop(transport, None)
        if not self._transports and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_soon(self) -> None:
        # Not all processes of a node at the same moment.
        delay_s = _LOOK_INTERVAL_S * _random.uniform(0.9, 1.1)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        self._look_soon()
        now_s = self._clock()
        for transport in list(self._transports):
            transport.look_after(self._policy, now_s)


def _widen(connected: Any) -> None:
    """Let a Unix socket hold a part of a large message: by default both ends wake each other every 200 KiB.

    The system may allow less. The buffers of TCP grow by themselves.
    """
    if connected is not None and connected.family == AF_UNIX:
        with contextlib.suppress(OSError):
            connected.setsockopt(SOL_SOCKET, SO_SNDBUF, _UNIX_BUFFER_BYTES)


def peer_name(address: Any) -> str:
    """The address of a socket's peer as gRPC names it."""
    match address:
        case (str(host), int(port)):
            return f"ipv4:{host}:{port}"
        case (str(host), int(port), _, _):
            return f"ipv6:%5B{host}%5D:{port}"
    return "unix:"


def tls_version(socket: Any) -> str:
    """The version of an asyncio transport's TLS, for instance "TLSv1.3"; empty without TLS."""
    encrypted = socket.get_extra_info("ssl_object") if socket is not None else None
    return (encrypted.version() or "") if encrypted is not None else ""
