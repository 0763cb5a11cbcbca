"""`RpcChannel`: calls a gRPC server by full names of methods, or through a generated stub. On its event loop only."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from mesh.http2.client_connection import ClientConnection
from mesh.http2.frame_format import FRAME_BYTES_MIN
from mesh.http2.hpack_encoder import encode_field, encode_fields
from mesh.http2.limits import Limits
from mesh.http2.transport import Http2Transport, TransportSet
from mesh.http2.upkeep import UpkeepPolicy
from mesh.phases.waiting import Waiters
from mesh.rpc.client_call import ClientCall
from mesh.rpc.grpc_fields import CONTENT_TYPE, metadata_block, write_timeout
from mesh.rpc.message_reader import ACCEPTED_ENCODINGS
from mesh.rpc.response_head import UNAVAILABLE, ResponseHead, read_response_head

logger = logging.getLogger("mesh.rpc")

UNIX_PREFIX = "unix:"
_CONNECT_TIMEOUT_S = 10.0
_DEADLINE_EXCEEDED = 4


def request_block(path: str, authority: str, *, scheme: bytes = b"http") -> bytes:
    """The headers of all calls of one method; what differs between calls may follow it."""
    return encode_fields(
        [
            (b":method", b"POST"),
            (b":scheme", scheme),
            (b":path", path.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", CONTENT_TYPE),
        ]
    )


async def connect(
    address: str,
    limits: Limits,
    on_lost: Callable[[Http2Transport], None],
    tls: ssl.SSLContext | None = None,
) -> Http2Transport:
    """A connection to "host:port" or "unix:path", as a client. Raises OSError; has no timeout of its own."""

    def make(_: Http2Transport, on_output: Callable[[], None]) -> ClientConnection[ResponseHead]:
        return ClientConnection(read_response_head, limits, time.monotonic, on_output)

    def protocol() -> Http2Transport:
        return Http2Transport(make, on_lost)

    loop = asyncio.get_running_loop()
    if address.startswith(UNIX_PREFIX):
        _, transport = await loop.create_unix_connection(protocol, address.removeprefix(UNIX_PREFIX), ssl=tls)
    else:
        host, _, port = address.rpartition(":")
        _, transport = await loop.create_connection(protocol, host.strip("[]"), int(port), ssl=tls)
    return transport


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
        self._transports = TransportSet(policy or UpkeepPolicy())
        self._current: Http2Transport | None = None
        self._connecting = asyncio.Lock()
        self._has_room = Waiters()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<RpcChannel {self._address} connections={len(self._transports)}>"

    async def __aenter__(self) -> RpcChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all calls and connections."""
        for task in list(self._tasks):
            task.cancel()
        for transport in self._transports:
            transport.abort("the channel was closed")
        await self._has_room.until(lambda: not self._transports and not self._tasks)

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

        `requests` is an iterable or async iterable of messages; None leaves the sending to `write` and `done_writing`.
        """
        call = ClientCall(serializer, deserializer, self._message_max_bytes, self._has_room.wake)
        block = request_block(path, self._address.removeprefix(UNIX_PREFIX), scheme=b"https" if self._tls else b"http")
        block += encode_field(b"grpc-accept-encoding", ACCEPTED_ENCODINGS)
        if timeout_s is not None:
            block += encode_field(b"grpc-timeout", write_timeout(timeout_s))
            late = ResponseHead(code=_DEADLINE_EXCEEDED, message="Deadline Exceeded")
            call.timer = asyncio.get_running_loop().call_later(timeout_s, call.finish, late)
        block += metadata_block(metadata)
        if not (isinstance(requests, Sequence) and self._send_now(call, block, requests)):
            task = asyncio.get_running_loop().create_task(self._send(call, block, requests), name=f"rpc {path}")
            self._tasks.add(task)
            task.add_done_callback(self._on_sent)
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

    def _send_now(self, call: ClientCall, block: bytes, messages: Sequence[Any]) -> bool:
        """Send all of a call, if the connection is there and has room; most calls need no more."""
        if self._current is None or not _connection(self._current).has_room:
            return False
        self._open(call, self._current, block, messages)
        return True

    async def _send(self, call: ClientCall, block: bytes, requests: Any) -> None:
        try:
            transport = await self._transport_for(call)
            if transport is None:
                return
            if isinstance(requests, Sequence):
                self._open(call, transport, block, requests)
                return
            call.begin(_connection(transport).open(block, call))
            if requests is None:
                return
            async for message in _iterated(requests):
                await call.write(message)
            await call.done_writing()
        except (OSError, TimeoutError) as error:
            text = f"failed to connect to {self._address}: {error or type(error).__name__}"
            call.finish(ResponseHead(code=UNAVAILABLE, message=text))
        except asyncio.InvalidStateError:
            pass  # the call has ended: its status says why
        except BaseException:
            call.cancel()
            raise

    def _open(self, call: ClientCall, transport: Http2Transport, block: bytes, messages: Sequence[Any]) -> None:
        connection = _connection(transport)
        stream = connection.open(block, call)
        call.begin(stream)
        for message in messages:
            connection.outbox.send_message(stream, call.serialised(message))
        connection.outbox.end(stream)

    async def _transport_for(self, call: ClientCall) -> Http2Transport | None:
        """A connection with room for a stream; None if the call has ended before there was one."""
        while not call.done():
            transport = await self._connected()
            connection = _connection(transport)
            if connection.has_room:
                return transport
            await self._has_room.until(lambda it=connection: call.done() or it.is_closing or it.has_room)  # type: ignore[misc]
        return None

    async def _connected(self) -> Http2Transport:
        async with self._connecting:
            current = self._current
            if current is None or current.is_lost or current.connection.is_closing:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    current = self._current = await connect(self._address, self._limits, self._on_lost, self._tls)
                self._transports.add(current)
            return current

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._has_room.wake()
        if not task.cancelled() and task.exception() is not None:
            # The caller's iterable has raised, or a serializer: it meets a cancelled call.
            logger.error("sending the requests of %s failed", task.get_name(), exc_info=task.exception())

    def _on_lost(self, transport: Http2Transport) -> None:
        self._transports.discard(transport)
        self._has_room.wake()


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
