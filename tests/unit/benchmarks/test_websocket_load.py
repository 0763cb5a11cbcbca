"""The WebSocket client of the benchmark, against servers of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.websocket_load import MESSAGE_BYTES, run_websockets


@contextmanager
def server(handler: Callable[[ServerConnection], Awaitable[None]]) -> Iterator[str]:
    """The address of a server in a thread of its own."""
    addresses: list[str] = []
    is_open = threading.Event()
    loop = asyncio.new_event_loop()
    stop = loop.create_future()

    async def run() -> None:
        async with serve(handler, "127.0.0.1", 0, compression=None, close_timeout=0.1) as listening:
            (socket,) = listening.sockets
            addresses.append(f"127.0.0.1:{socket.getsockname()[1]}")
            is_open.set()
            await stop

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert is_open.wait(30)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(stop.set_result, None)
        thread.join(30)
        loop.close()


def test_every_message_comes_back_and_has_a_latency() -> None:
    received: list[str | bytes] = []

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            received.append(message)
            await socket.send(message)

    with server(echo) as address:
        lap = run_websockets(address, "/messages", sockets=3, messages=10)
    assert received == [bytes(MESSAGE_BYTES)] * 12
    assert lap.calls == 12
    assert lap.p50_us > 0


def test_another_message_is_an_error() -> None:
    async def answer(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(bytes(len(message) - 1) + b"x")

    with server(answer) as address, pytest.raises(RuntimeError, match="another message"):
        run_websockets(address, "/", sockets=1, messages=1)


def test_a_socket_that_is_closed_is_an_error() -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.close()

    with server(leave) as address, pytest.raises((RuntimeError, ConnectionError)):
        run_websockets(address, "/", sockets=1, messages=1)
