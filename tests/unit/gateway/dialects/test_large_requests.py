"""Large messages of unary calls: room for all of it at once, and nothing of it lasts longer than its call."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest

from mesh.http2.client_connection import ClientConnection
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from mesh.http2.stream import Stream
from mesh.memory.buffer_pool import buffer_pool
from tests.unit.fakes.rpc_ends import RAW_REQUEST, RawCall, raw_connection
from tests.unit.gateway.fakes import UNARY, FakeRouter, echo, on_io_loop, serving, until

SIZE = 3_000_000


def begin(connection: ClientConnection, call: RawCall, data: bytes) -> Stream:
    fields = [(key, UNARY.encode() if key == b":path" else value) for key, value in RAW_REQUEST]
    stream = connection.open(encode_fields(fields), call)
    connection.outbox.send_data(stream, data)
    return stream


def test_a_large_message_comes_back_unchanged() -> None:
    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop") as gateway:
            body = bytes(range(256)) * (SIZE // 256)
            answers = await asyncio.gather(
                *(gateway.channel.unary_unary(UNARY)(body + bytes((it,))) for it in range(5))
            )
            assert answers == [body + bytes((it,)) for it in range(5)]

    on_io_loop(scenario())


def test_the_client_gets_room_for_all_of_a_message_whose_length_it_has_said() -> None:
    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop") as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            stream = begin(client, RawCall(), SIZE.to_bytes(5, "big") + bytes(1_000))
            wanted = SIZE - 1_000 + Limits().stream_window_bytes
            await until(lambda: stream.send_window >= wanted, "room for the rest, and a usual window")
            assert stream.send_window == wanted

    on_io_loop(scenario())


@pytest.mark.parametrize(("sent_bytes", "status"), [(100_001, b"12"), (90_000, b"13")], ids=["more", "fewer"])
def test_a_large_message_with_more_or_fewer_bytes_than_it_has_said_is_refused(sent_bytes: int, status: bytes) -> None:
    """More are a second message of a unary call, fewer a message that breaks off."""

    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop") as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            call = RawCall()
            stream = begin(client, call, (100_000).to_bytes(5, "big") + bytes(sent_bytes))
            client.outbox.end(stream)
            await until(lambda: call.heads, "the answer")
            assert call.heads[-1][b"grpc-status"] == status

    on_io_loop(scenario())


@pytest.mark.parametrize("size", [100, SIZE], ids=["small", "large"])
def test_a_call_that_has_ended_is_no_garbage_in_a_cycle(size: int) -> None:
    """Else its messages last until the next garbage collection, and the memory of a hundred of them is taken."""

    async def scenario() -> Counter[str]:
        async with serving(FakeRouter(echo), "shop") as gateway:
            method = gateway.channel.unary_unary(UNARY)
            await method(bytes(size))
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                for _ in range(10):
                    await method(bytes(size))
                gc.collect()
                return Counter(type(each).__module__ for each in gc.garbage)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()

    garbage = on_io_loop(scenario())
    assert not [module for module in garbage if module.startswith(("mesh.", "gateway."))]


def test_the_memory_of_a_message_is_used_for_the_next_one() -> None:
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop") as gateway:
            method = gateway.channel.unary_unary(UNARY)
            for _ in range(5):
                await method(bytes(SIZE))
                router.calls.clear()
                await until(lambda: buffer_pool().kept_bytes >= SIZE, "the memory is free")
                kept.append(buffer_pool().kept_bytes)

    kept: list[int] = []
    on_io_loop(scenario())
    assert kept == kept[:1] * 5
