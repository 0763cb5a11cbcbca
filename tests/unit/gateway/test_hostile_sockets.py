"""WebSockets of hostile clients on real sockets: closed with the right code, memory flat, nothing left behind."""

from __future__ import annotations

import asyncio
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from gateway.web_rpc.envelope_reader import envelope
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.web_messages import decode_websocket_event
from tests.unit.fakes.memory_peak import memory_peak
from tests.unit.fakes.shop_routes import HAGGLE, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, finish, on_io_loop, until
from tests.unit.gateway.raw_requests import (
    BINARY,
    CLOSE,
    CONNECT_STREAM,
    CONT,
    PING,
    TEXT,
    frame,
    open_socket,
    post,
    reset,
)

pytestmark = pytest.mark.usefixtures("eager_upkeep")

MIB = 1024 * 1024
DEFLATED = b"sec-websocket-extensions: permessage-deflate\r\n"


def packed(data: bytes) -> bytes:
    """As permessage-deflate has it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


ENDLESS = [frame(CONT, b"x" * 65_000, ends=False)] * 400
FRAMES: dict[str, tuple[list[bytes], int]] = {
    "a message without end": ([frame(TEXT, b"a", ends=False), *ENDLESS], 1009),
    "a text without end that begins wrong": ([frame(TEXT, b"\xff", ends=False), *ENDLESS], 1007),
    "a text that is wrong across fragments": ([frame(TEXT, b"\xc3", ends=False), frame(CONT, b"\x28")], 1007),
    "a text that is cut off": ([frame(TEXT, b"\xe2\x82")], 1007),
    "a surrogate": ([frame(TEXT, b"\xed\xa0\x80")], 1007),
    "a ping in fragments": ([frame(PING, b"p", ends=False)], 1002),
    "a close in fragments": ([frame(CLOSE, ends=False)], 1002),
    "a long ping": ([frame(PING, bytes(126))], 1002),
    "a message within another": ([frame(TEXT, b"a", ends=False), frame(TEXT, b"b")], 1002),
    "a frame of 8 EiB": ([frame(BINARY, size=2**63 - 1)], 1009),
    "a negative length": ([frame(BINARY, size=2**63)], 1009),
    "a frame above the limit": ([frame(BINARY, size=16 * MIB + 1)], 1009),
    "HTTP behind the handshake": ([b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"], 1002),
    "compression that was not agreed": ([frame(BINARY, b"x", is_compressed=True)], 1002),
    "pings without end in a message": (
        [frame(TEXT, b"a", ends=False)] + [frame(PING, bytes(125)) * 100] * 100 + [frame(CONT, b"\xff")],
        1007,
    ),
    "empty fragments": (
        [frame(TEXT, ends=False)] + [frame(CONT, ends=False) * 1_000] * 20 + [frame(CONT, b"\xff")],
        1007,
    ),
}
DEFLATED_FRAMES: dict[str, tuple[list[bytes], int]] = {
    "a bomb": ([frame(BINARY, packed(bytes(64 * MIB)), is_compressed=True)], 1009),
    "a bomb in fragments": (
        [
            frame(BINARY, packed(bytes(64 * MIB))[:30_000], ends=False, is_compressed=True),
            frame(CONT, packed(bytes(64 * MIB))[30_000:]),
        ],
        1009,
    ),
    "what is not deflate": ([frame(BINARY, b"\xff" * 4, is_compressed=True)], 1002),
    "a continuation with the flag of a beginning": (
        [frame(BINARY, packed(b"a"), ends=False, is_compressed=True), frame(CONT, packed(b"a"), is_compressed=True)],
        1002,
    ),
    "a compressed ping": ([frame(PING, packed(b"a"), is_compressed=True)], 1002),
}
SOCKETS = {name: (b"", *case) for name, case in FRAMES.items()} | {
    name: (DEFLATED, *case) for name, case in DEFLATED_FRAMES.items()
}


@pytest.mark.parametrize("name", SOCKETS)
def test_a_hostile_socket_is_closed_with_the_code_for_it(alone: ProcessPoolExecutor, name: str) -> None:
    code = SOCKETS[name][-1]
    client_heard, replica_heard, peak_bytes = alone.submit(besieged, name).result(60)
    assert (client_heard, replica_heard) == (code, [code])
    assert peak_bytes < 2 * settings().gateway.websocket_message_max_bytes


def besieged(name: str) -> tuple[int, list[int], int]:
    """The code of the close that the client gets, those that the replica gets, and what memory it has taken."""
    fields, pieces, _ = SOCKETS[name]
    router = FakeRouter(lambda call: allow(call, 100))
    router.link.on_half_close = lambda call: finish(call, Outcome())

    async def read_close(reader: asyncio.StreamReader) -> bytes:
        """The code of the last frame; pongs come before it."""
        data = b""
        async with asyncio.timeout(30):
            while piece := await reader.read(MIB):
                data = (data + piece)[-1_000:]
        return data[data.rindex(bytes((0x80 | CLOSE,))) :][2:4]

    async def scenario() -> tuple[int, list[int], int]:
        async with every_dialect(router) as gateway:
            client = await open_socket(gateway, router, fields)
            with memory_peak() as peak:
                client.writer.writelines(pieces)
                close = await read_close(client.reader)
            client.writer.transport.abort()
            await until(lambda: not gateway.listener.connections, "the connection is closed")
            await until(lambda: gateway.listener.buffered_bytes == 0, "nothing waits")
        events = [decode_websocket_event(each) for each in router.link.items[1:]]
        return int.from_bytes(close, "big"), [each.close.code for each in events], peak.bytes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mesh.http2.transport._LOOK_INTERVAL_S", 0.01)
        return on_io_loop(scenario())


def test_large_compressed_messages_wait_for_the_replica(alone: ProcessPoolExecutor) -> None:
    peak_bytes, buffered_bytes, items = alone.submit(sent_large_ones).result(60)
    assert peak_bytes < 10 * MIB
    assert buffered_bytes < 5 * MIB
    assert items == 1


def sent_large_ones() -> tuple[int, int, int]:
    """What memory they take at most, what of them waits, and how many the replica got."""
    quick = replace(settings(), gateway=replace(settings().gateway, websocket_close_timeout_s=0.1))
    router = FakeRouter(lambda call: allow(call, 1))
    message = frame(BINARY, packed(bytes(2 * MIB)), is_compressed=True)

    async def scenario() -> tuple[int, int, int]:
        async with every_dialect(router) as gateway:
            client = await open_socket(gateway, router, DEFLATED)
            with memory_peak() as peak:
                client.writer.write(message * 500)
                await until(lambda: gateway.listener.buffered_bytes > 2 * MIB, "a message waits")
            found = peak.bytes, gateway.listener.buffered_bytes, len(router.link.items)
            reset(client.writer)
            await until(lambda: router.cancelled, "the call ends with its client")
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mesh.http2.transport._LOOK_INTERVAL_S", 0.01)
        for module in ("websocket_connection", "websocket_keeper"):
            patch.setattr(f"gateway.websockets.{module}.settings", lambda: quick)
        return on_io_loop(scenario())


@pytest.mark.parametrize("stays", [True, False], ids=["waits for the answer", "does not wait"])
@pytest.mark.parametrize(("size", "is_deflated"), [(1, False), (50_000, False), (2 * MIB, True)])
def test_all_that_a_socket_got_before_it_was_closed_reaches_a_slow_replica(
    size: int, is_deflated: bool, stays: bool
) -> None:
    """The replica is far behind when the client closes, with a code, and leaves."""
    router = FakeRouter(lambda call: allow(call, 2))
    count = 40 if size < MIB else 10
    message = frame(BINARY, packed(bytes(size)), is_compressed=True) if is_deflated else frame(BINARY, bytes(size))

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            client = await open_socket(gateway, router, DEFLATED if is_deflated else b"")
            client.writer.write(message * count + frame(CLOSE, b"\x03\xe8"))
            await client.writer.drain()
            if not stays:
                client.writer.close()
            await until(lambda: len(router.link.items) == 2, "the replica has no more credit")
            while not router.cancelled and len(router.link.items) < count + 2:
                await asyncio.sleep(0.02)  # some looks at the connection
                allow(client.call, 1 + size // (64 * 1024))
            client.writer.transport.abort()
            await until(lambda: gateway.listener.buffered_bytes == 0, "nothing waits")
        events = [decode_websocket_event(each) for each in router.link.items[1:]]
        assert [len(each.binary) for each in events[:-1]] == [size] * count
        assert events[-1].close.code == 1000

    on_io_loop(scenario())


def test_a_socket_keeps_its_place_only_as_long_as_its_stream() -> None:
    """A bidirectional stream of Connect that its client breaks in the middle of an envelope."""
    router = FakeRouter(lambda call: allow(call, 100))

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(post(HAGGLE, envelope(bytes(100))[:50], CONNECT_STREAM, length=105))
            await until(lambda: router.calls, "the call")
            writer.write_eof()
            async with asyncio.timeout(30):
                await reader.read()
            writer.transport.abort()
            assert len(router.cancelled) == 1
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())
