"""Messages go with their calls in every dialect: at once, and not when the garbage collector comes."""

from __future__ import annotations

import asyncio
import gc
from base64 import b64encode
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from gateway.web_rpc.envelope_reader import envelope
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from mesh.wire.web_messages import encode_accept
from tests.unit.fakes.memory_in_use import MemoryInUse
from tests.unit.fakes.shop_routes import HAGGLE, PRICE, TOTAL, EveryDialect, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, finish, item, on_io_loop, until
from tests.unit.gateway.raw_requests import (
    BINARY,
    CONNECT,
    CONNECT_STREAM,
    CONT,
    GRPC_WEB,
    HANDSHAKE,
    JSON,
    LINES,
    answer_to,
    frame,
    post,
)
from tests.unit.protos.shop_pb2 import Item

SIZE = 512 * 1024
TIMES = 4
NAME = "x" * SIZE
TEXT = b'{"name":"' + NAME.encode() + b'"}'
MESSAGE = Item(name=NAME).SerializeToString()
GRPC_WEB_TEXT = "application/grpc-web-text"
CONNECT_VERSION = "connect-protocol-version: 1"

REQUESTS: dict[str, tuple[str, bytes, str, *tuple[str, ...]]] = {
    "JSON": (PRICE, TEXT, JSON),
    "JSON that is not gzip": (PRICE, TEXT, JSON, "content-encoding: gzip"),
    "JSON of another message": (PRICE, TEXT.replace(b"name", b"none"), JSON),
    "lines of JSON": (TOTAL, TEXT + b"\n", LINES),
    "array of JSON": (TOTAL, b"[" + TEXT + b"]", JSON),
    "Connect": (PRICE, MESSAGE, CONNECT),
    "Connect of JSON": (PRICE, TEXT, JSON, CONNECT_VERSION),
    "stream of Connect": (TOTAL, envelope(MESSAGE), CONNECT_STREAM),
    "gRPC-Web": (PRICE, envelope(MESSAGE), GRPC_WEB),
    "gRPC-Web as text": (PRICE, b64encode(envelope(MESSAGE)), GRPC_WEB_TEXT),
    "small web request": ("/web", bytes(60_000), "text/plain"),
    "web request": ("/web", bytes(SIZE), "text/plain"),
}


def answer(call: OutgoingCall) -> None:
    """In a later turn, as replicas do."""
    if call.request.streams_request:
        asyncio.get_running_loop().call_soon(allow, call, 1000)
    else:
        asyncio.get_running_loop().call_soon(finish, call, Outcome(payload=raw(b"")))


async def ask(gateway: EveryDialect, router: FakeRouter, name: str) -> None:
    await answer_to(gateway, post(*REQUESTS[name]))


async def leave(gateway: EveryDialect, router: FakeRouter, name: str) -> None:
    """Before the request is complete."""
    path, body, *rest = REQUESTS[name]
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(post(path, body[:-2], *rest, length=len(body)))
    await until(lambda: gateway.listener.buffered_bytes or router.link.items, "most of it is here")
    await writer.drain()
    writer.transport.abort()
    await gateway.listener.idle()


async def leave_socket(gateway: EveryDialect, router: FakeRouter, path: str) -> None:
    """A WebSocket, behind a message and the beginning of the next one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(HANDSHAKE.replace(b"/chat", path.encode()) + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    begun = frame(BINARY, bytes(SIZE), ends=False) + frame(CONT, bytes(SIZE), size=2 * SIZE)
    writer.write(frame(BINARY, MESSAGE) + begun)
    await until(lambda: gateway.listener.buffered_bytes > SIZE, "the messages are here")
    writer.transport.abort()
    await gateway.listener.idle()


def kept_bytes(use: Callable[[EveryDialect, FakeRouter, str], Awaitable[None]], name: str) -> int:
    """What is in use when the calls are over, without garbage collections."""

    def accept(call: OutgoingCall) -> None:
        if name == "/chat":
            item(call, encode_accept(None, []))
        allow(call, 1000)

    router = FakeRouter(accept if use is leave_socket else answer)
    router.link.on_half_close = lambda call: finish(call, Outcome(payload=raw(b"")))

    async def once(gateway: EveryDialect) -> None:
        await use(gateway, router, name)
        await until(lambda: not gateway.listener.buffered_bytes, "nothing is counted")
        router.calls.clear()
        router.cancelled.clear()
        router.link.items.clear()

    async def scenario() -> int:
        async with every_dialect(router) as gateway:
            await once(gateway)
            gc.disable()
            try:
                with MemoryInUse() as memory:
                    for _ in range(TIMES):
                        await once(gateway)
                    # A thread that has translated a message lets go of it a moment later.
                    await until(lambda: memory.bytes < SIZE, "the messages are gone")
                    return memory.bytes
            finally:
                gc.enable()

    return on_io_loop(scenario())


@pytest.mark.parametrize("name", REQUESTS)
def test_nothing_is_kept_of_a_call_that_is_answered(alone: ProcessPoolExecutor, name: str) -> None:
    assert alone.submit(kept_bytes, ask, name).result(60) < SIZE


@pytest.mark.parametrize("name", [name for name in REQUESTS if "gzip" not in name])
def test_nothing_is_kept_of_a_call_whose_client_leaves(alone: ProcessPoolExecutor, name: str) -> None:
    assert alone.submit(kept_bytes, leave, name).result(60) < SIZE


@pytest.mark.parametrize("path", ["/chat", PRICE, HAGGLE])
def test_nothing_is_kept_of_a_websocket_whose_client_leaves(alone: ProcessPoolExecutor, path: str) -> None:
    assert alone.submit(kept_bytes, leave_socket, path).result(60) < SIZE


def test_a_json_call_keeps_its_message_and_not_the_text(alone: ProcessPoolExecutor) -> None:
    used, counted = alone.submit(in_use_by_call).result(60)
    assert counted == len(MESSAGE)
    assert used < 1.5 * SIZE


def in_use_by_call() -> tuple[int, int]:
    """Bytes that a call takes whose answer has not come, and those that are counted."""
    router = FakeRouter()

    async def scenario() -> tuple[int, int]:
        async with every_dialect(router) as gateway:
            with MemoryInUse() as memory:
                _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                writer.write(post(PRICE, TEXT, JSON))
                await until(lambda: router.calls, "the call")
                used, counted = memory.bytes, gateway.listener.buffered_bytes
            writer.transport.abort()
            return used, counted

    return on_io_loop(scenario())
