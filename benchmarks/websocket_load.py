"""A WebSocket client that costs little: each socket sends its next message when the one before has come back."""

import asyncio
import struct
import time
from typing import Any

import uvloop

from benchmarks.closed_loop import Lap, lap_of

MESSAGE_BYTES = 100
TIMEOUT_S = 120.0
_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_BINARY, _IS_LAST, _IS_MASKED = 0x2, 0x80, 0x80
_FRAME = struct.pack(">BB4x", _IS_LAST | _BINARY, _IS_MASKED | MESSAGE_BYTES) + bytes(MESSAGE_BYTES)
"""The mask is zero, so the message is sent as it is."""
_ANSWER = struct.pack(">BB", _IS_LAST | _BINARY, MESSAGE_BYTES) + bytes(MESSAGE_BYTES)


def run_websockets(address: str, path: str, sockets: int, messages: int) -> Lap:
    """`messages` there and back over `sockets` sockets, rounded up to the same number for each."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(_run(address, path, sockets, messages), TIMEOUT_S))


class EchoSocket(asyncio.Protocol):
    """One WebSocket. Raises in its future what is not an answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._received = b""
        self._left = 0
        self._began_s = 0.0
        self._transport: Any = None
        """uvloop's transports have no common type with asyncio's."""
        self.is_open = loop.create_future()
        self.is_done = loop.create_future()
        self.latencies_us: list[float] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def shake_hands(self, address: str, path: str) -> None:
        self._transport.write(_HANDSHAKE.format(address=address, path=path).encode())

    def begin(self, messages: int) -> None:
        self._left = messages
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.is_open.done():
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if end:
                self._received = rest
                self._answer_handshake(head)
        elif len(self._received) >= len(_ANSWER):
            self._take_answer()

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.is_open, self.is_done):
            if not future.done():
                future.set_exception(exc or ConnectionResetError("the server closed a WebSocket"))

    def close(self) -> None:
        self._transport.abort()

    def _answer_handshake(self, head: bytes) -> None:
        if head.startswith(b"HTTP/1.1 101 "):
            self.is_open.set_result(None)
        else:
            self.is_open.set_exception(RuntimeError(f"the server refused a WebSocket: {head[:200]!r}"))

    def _take_answer(self) -> None:
        if self._received != _ANSWER:
            self.is_done.set_exception(RuntimeError(f"the server sent another message: {self._received[:40]!r}"))
            return
        self._received = b""
        self.latencies_us.append((time.perf_counter() - self._began_s) * 1e6)
        self._left -= 1
        if self._left:
            self._send()
        else:
            self.is_done.set_result(None)

    def _send(self) -> None:
        self._began_s = time.perf_counter()
        self._transport.write(_FRAME)


async def _run(address: str, path: str, sockets: int, messages: int) -> Lap:
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    clients: list[EchoSocket] = []
    try:
        for _ in range(sockets):
            _, client = await loop.create_connection(lambda: EchoSocket(loop), host, int(port))
            clients.append(client)
            client.shake_hands(address, path)
            await client.is_open
        started_at_s = time.perf_counter()
        for client in clients:
            client.begin(-(-messages // sockets))
        await asyncio.gather(*(client.is_done for client in clients))
        latencies_us = [each for client in clients for each in client.latencies_us]
        return lap_of(latencies_us, len(latencies_us) / (time.perf_counter() - started_at_s))
    finally:
        for client in clients:
            client.close()
