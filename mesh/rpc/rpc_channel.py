"""`RpcChannel`: calls a gRPC server by full names of methods, or through a generated stub. On its event loop only.

Links of the mesh need no channel: they take one connection from `connect`, and open one stream on it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

import uvloop

from mesh.http2.client_connection import ClientConnection
from mesh.http2.frame_format import FRAME_BYTES_MIN
from mesh.http2.hpack_encoder import encode_field
from mesh.http2.limits import Limits
from mesh.http2.transport import Http2Transport, TransportSet
from mesh.http2.upkeep import UpkeepPolicy
from mesh.phases.waiting import Waiters
from mesh.rpc.client_call import ClientCall
from mesh.rpc.grpc_fields import TIMEOUT_MAX_S, metadata_block, request_block, write_timeout
from mesh.rpc.message_reader import ACCEPTED_ENCODINGS
from mesh.rpc.response_head import ResponseHead, read_response_head
from mesh.rpc.status_codes import CANCELLED, INTERNAL, UNAVAILABLE

UNIX_PREFIX = "unix:"
UNIX_AUTHORITY = "localhost"
"""Stands for the host where there is none, as in other gRPC clients."""
ALPN = ("h2",)
_CONNECT_TIMEOUT_S = 10.0
"""How long a connection may take, its TLS handshake included."""
_CLOSE_TIMEOUT_S = 1.0
"""How long connections may take to close."""
_REFUSALS_MAX = 16
"""REFUSED_STREAM answers after which a call fails. A server may count a stream a moment longer than its client does,
on a busy machine several times in a row; each time the call waits for room again.
"""
_CONNECTS_MAX = 3
"""Connections tried for one call when the server accepts them and closes them before they can be used."""
_KEEPALIVE_AFTER_S = 310.0
"""Stock servers end a connection whose client sends a PING more often than every five minutes."""

_CLOSED = ResponseHead(code=CANCELLED, message="The channel is closed.")


async def connect(
    address: str,
    limits: Limits,
    on_lost: Callable[[Http2Transport], None],
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> Http2Transport:
    """A connection to "host:port" or "unix:path", as a client. Raises OSError; has no timeout of its own.

    `tls` is made to offer HTTP/2 by ALPN, as gRPC demands.
    `server_name`: what the server's certificate has to be made out to; None: the host.
    """
    if tls is not None:
        tls.set_alpn_protocols(ALPN)

    def make(_: Http2Transport, on_output: Callable[[], None]) -> ClientConnection[ResponseHead]:
        return ClientConnection(read_response_head, limits, time.monotonic, on_output)

    loop, transport = asyncio.get_running_loop(), Http2Transport(make, on_lost)
    unix: socket.socket | None = None
    try:
        if address.startswith(UNIX_PREFIX):
            unix = await _unix_socket(address.removeprefix(UNIX_PREFIX))
            name = None if tls is None else UNIX_AUTHORITY
            await loop.create_unix_connection(lambda: transport, sock=unix, ssl=tls, server_hostname=name)
        else:
            host, _, port = address.rpartition(":")
            await loop.create_connection(
                lambda: transport, host.strip("[]"), int(port), ssl=tls, server_hostname=server_name
            )
    except BaseException:
        transport.forget_socket()
        if unix is not None and isinstance(loop, uvloop.Loop):
            # It closes the descriptor, but before 0.23 does not detach the socket, which would close its number
            # once more: that of another connection by then.
            unix.detach()
        raise
    return transport


async def _unix_socket(path: str) -> socket.socket:
    """Connected here, because uvloop would cut a name in the abstract namespace at its first byte."""
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unix.setblocking(False)
        await asyncio.get_running_loop().sock_connect(unix, path)
    except BaseException:
        unix.close()
        raise
    return unix


class RpcChannel:
    """Connects when the first call needs it, and again after the connection is lost."""

    def __init__(
        self,
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        policy: UpkeepPolicy | None = None,
        message_max_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        """`address`: "host:port" or "unix:path"."""
        self._address = address
        self._tls = tls
        self._limits = limits or Limits(frame_max_bytes=FRAME_BYTES_MIN)
        self._message_max_bytes = message_max_bytes
        self._transports: TransportSet[Http2Transport] = TransportSet(
            policy or UpkeepPolicy(keepalive_after_s=_KEEPALIVE_AFTER_S)
        )
        self._current: Http2Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        """One attempt to connect, for all calls that wait for it."""
        self._changed = Waiters()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<RpcChannel {self._address} connections={len(self._transports)}>"

    async def __aenter__(self) -> RpcChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all calls and connections; no new ones begin."""
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        for transport in self._transports:
            transport.abort("the channel was closed")
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await self._changed.until(lambda: not self._transports and not self._tasks)

    def call(
        self,
        path: str,
        requests: Iterable[Any] | Any = (),
        *,
        timeout_s: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        serializer: Callable[[Any], bytes] | None = None,
        deserializer: Callable[[bytes], Any] | None = None,
    ) -> ClientCall:
        """Start a call of "/package.Service/Method".

        Raises ValueError for metadata that gRPC does not allow, TypeError or ValueError for what is not a timeout.

        `requests` is an iterable or async iterable of messages; None leaves the sending to `write` and `done_writing`.
        """
        call = ClientCall(serializer, deserializer, self._message_max_bytes, self._changed.wake)
        block = request_block(path, self._authority, scheme=b"https" if self._tls else b"http")
        block += encode_field(b"grpc-accept-encoding", ACCEPTED_ENCODINGS)
        if timeout_s is not None:
            block += encode_field(b"grpc-timeout", write_timeout(timeout_s))
        block += metadata_block(metadata)
        if self._is_closed:
            call.finish(_CLOSED)
            return call
        if isinstance(requests, Sequence):
            try:
                requests = [call.serialised(message) for message in requests]
            except Exception as error:
                call.finish(ResponseHead(code=INTERNAL, message=f"Exception serializing request: {error!r}"))
                return call
        if timeout_s is not None:
            call.expire_after(min(timeout_s, TIMEOUT_MAX_S))
        connection = None if self._current is None else _connection(self._current)
        if connection is not None and connection.has_room and isinstance(requests, list):
            call.on_refused = partial(self._send_later, call, block, requests)
            _open(call, connection, block, requests)
        else:
            self._send_later(call, block, requests)
        return call

    # ---- For generated stubs -----------------------------------------------------------------------------------------

    def unary_unary(self, path: str, *args: Any, **kwargs: Any) -> Callable[..., ClientCall]:
        return self._callable(path, *args, is_streamed=False, **kwargs)

    unary_stream = unary_unary

    def stream_unary(self, path: str, *args: Any, **kwargs: Any) -> Callable[..., ClientCall]:
        return self._callable(path, *args, is_streamed=True, **kwargs)

    stream_stream = stream_unary

    def _callable(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        *,
        is_streamed: bool,
        **_: object,
    ) -> Callable[..., ClientCall]:
        def start(request: Any = None, *, timeout: float | None = None, metadata: Any = None) -> ClientCall:
            return self.call(
                path,
                request if is_streamed else (request,),
                timeout_s=timeout,
                metadata=metadata or (),
                serializer=request_serializer,
                deserializer=response_deserializer,
            )

        return start

    # ---- Inside ------------------------------------------------------------------------------------------------------

    @property
    def _authority(self) -> str:
        return UNIX_AUTHORITY if self._address.startswith(UNIX_PREFIX) else self._address

    def _send_later(self, call: ClientCall, block: bytes, requests: Any, refusals: int = 0) -> None:
        can_repeat = isinstance(requests, list) and refusals < _REFUSALS_MAX
        call.on_refused = partial(self._send_later, call, block, requests, refusals + 1) if can_repeat else None
        call.sender = self._start(self._send(call, block, requests), "rpc requests")

    async def _send(self, call: ClientCall, block: bytes, requests: Any) -> None:
        """Send all of a call that has to wait, for a connection or for its own requests."""
        try:
            connection = await self._usable()
        except (OSError, ValueError) as error:
            text = f"failed to connect to {self._address}: {str(error) or 'no answer in time'}"
            call.finish(ResponseHead(code=UNAVAILABLE, message=text))
        except asyncio.CancelledError:
            call.finish(_CLOSED)  # without effect if the call has ended, which cancels this task too
            raise
        else:
            if isinstance(requests, list):
                _open(call, connection, block, requests)
                return
            call.begin(connection.open(block, call))
            if requests is not None:
                await call.send_all(_iterated(requests))

    async def _usable(self) -> ClientConnection[ResponseHead]:
        """A connection with room for a stream. Raises OSError, of which TimeoutError is one."""
        connects = 0
        while True:
            current = self._current
            if current is not None and not current.connection.is_closing:
                connection = _connection(current)
                if connection.has_room:
                    return connection
                await self._changed.until(lambda it=connection: it.is_closing or it.has_room)  # type: ignore[misc]
                continue
            if connects == _CONNECTS_MAX:
                raise ConnectionError("the server closes its connections")
            connects += 1
            if self._connecting is None:
                self._connecting = self._start(self._connect(), f"connect to {self._address}")
            # The attempt goes on if this call is cancelled.
            await asyncio.shield(self._connecting)

    async def _connect(self) -> None:
        transport: Http2Transport | None = None
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                transport = await connect(self._address, self._limits, self._on_lost, self._tls)
                self._transports.add(transport)
                connection = _connection(transport)
                connection.on_settings_changed = self._changed.wake
                # Before its SETTINGS have come, the server's limit of streams is not known.
                await self._changed.until(lambda: connection.is_closing or connection.reader.awaited_stream is None)
            if transport.is_lost or connection.fault is not None:
                raise ConnectionError(transport.lost_reason or str(connection.fault))
            self._current = transport
        except BaseException:
            if transport is not None:
                transport.abort("the connection was not ready in time")
            raise
        finally:
            self._connecting = None

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.wake()
        if not task.cancelled():
            task.exception()  # The calls that wait for a connection report its failure; perhaps none is left.

    def _on_lost(self, transport: Http2Transport) -> None:
        self._transports.discard(transport)
        self._changed.wake()


def _open(
    call: ClientCall, connection: ClientConnection[ResponseHead], block: bytes, messages: Iterable[bytes]
) -> None:
    """Send all of a call."""
    stream = connection.open(block, call)
    call.begin(stream)
    for message in messages:
        connection.outbox.send_message(stream, message)
    connection.outbox.end(stream)


def _connection(transport: Http2Transport) -> ClientConnection[ResponseHead]:
    connection = transport.connection
    assert isinstance(connection, ClientConnection)
    return connection


async def _iterated(requests: Any) -> AsyncIterator[Any]:
    if hasattr(requests, "__aiter__"):
        async for message in requests:
            yield message
    else:
        for message in requests:
            yield message
