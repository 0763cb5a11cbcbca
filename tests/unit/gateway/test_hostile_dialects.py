"""Hostile clients of every dialect on real sockets: right statuses, memory flat, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import grpc
import pytest
from websockets.frames import Opcode

from gateway.web_rpc.envelope_reader import envelope
from mesh.http2.upkeep import UpkeepPolicy
from mesh.link.outgoing_call import OutgoingCall
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.web_messages import decode_websocket_event, encode_accept, encode_response
from tests.unit.fakes.http1_ends import answers
from tests.unit.fakes.shop_routes import HAGGLE, LIST, PRICE, TOTAL, EveryDialect, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, finish, item, on_io_loop, until
from tests.unit.gateway.test_web_rpc_flow import MESSAGE, Producer
from tests.unit.protos.shop_pb2 import Item

MIB = 1024 * 1024
CONNECT, CONNECT_STREAM = "application/proto", "application/connect+proto"
GRPC_WEB, JSON, LINES = "application/grpc-web+proto", "application/json", "application/x-ndjson"


@pytest.fixture(autouse=True)
def eager_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are looked at so often that a test need not wait for it."""
    monkeypatch.setattr("mesh.http2.transport._LOOK_INTERVAL_S", 0.01)


def post(path: str, body: bytes, content_type: str, *lines: str, length: int | None = None) -> bytes:
    """A request; its connection is closed behind the answer. `length`: what the head says of the body."""
    fields = [f"content-type: {content_type}", f"content-length: {len(body) if length is None else length}", *lines]
    head = [f"POST {path} HTTP/1.1", "host: a", "connection: close", *fields, "", ""]
    return "\r\n".join(head).encode() + body


async def answer_to(gateway: EveryDialect, data: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to what is sent, as far as the gateway takes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(data)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.transport.abort()
    status, _, body = answers(answer)[-1]
    return status, body


def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection, whatever waits on the way to the gateway."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# ---- Decompression bombs ---------------------------------------------------------------------------------------------

BOMB_BYTES = 64 * MIB
LIMIT_BYTES = 1 * MIB


def bomb(window_bits: int, size: int = BOMB_BYTES) -> bytes:
    """About a thousandth of the zeros that come out of it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window_bits)
    return b"".join([*(packer.compress(bytes(MIB)) for _ in range(size // MIB)), packer.flush()])


GZIP, DEFLATE = bomb(31), bomb(15)
BOMBS = {
    "Connect": (post(PRICE, GZIP, CONNECT, "content-encoding: gzip"), 429, b"resource_exhausted"),
    "Connect, deflate": (post(PRICE, DEFLATE, CONNECT, "content-encoding: deflate"), 429, b"resource_exhausted"),
    "Connect, br": (post(PRICE, GZIP, CONNECT, "content-encoding: br"), 501, b"unimplemented"),
    "Connect of JSON": (
        post(PRICE, GZIP, JSON, "connect-protocol-version: 1", "content-encoding: gzip"),
        429,
        b"resource_exhausted",
    ),
    "stream of Connect": (
        post(TOTAL, envelope(GZIP, 1), CONNECT_STREAM, "connect-content-encoding: gzip"),
        200,
        b"resource_exhausted",
    ),
    "gRPC-Web": (post(PRICE, envelope(GZIP, 1), GRPC_WEB, "grpc-encoding: gzip"), 200, b"grpc-status:8"),
    "JSON": (post(PRICE, GZIP, JSON, "content-encoding: gzip"), 413, b"once it is decompressed"),
    "JSON, deflate": (post(PRICE, DEFLATE, JSON, "content-encoding: deflate"), 415, b"send gzip"),
    "JSON, br": (post(PRICE, GZIP, JSON, "content-encoding: br"), 415, b"send gzip"),
    "JSON, twice": (post(PRICE, GZIP, JSON, "content-encoding: gzip, gzip"), 415, b"send gzip"),
    "array of JSON": (post(TOTAL, GZIP, JSON, "content-encoding: gzip"), 413, b"once it is decompressed"),
    "lines of JSON": (post(TOTAL, GZIP, LINES, "content-encoding: gzip"), 415, b"send them as they are"),
}


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what may come out of a compressed message."""
    known = settings()
    limits = replace(known.gateway, decompressed_max_bytes=LIMIT_BYTES, json_max_bytes=LIMIT_BYTES)
    monkeypatch.setattr("gateway.dialects.served_method.settings", lambda: replace(known, gateway=limits))


@pytest.fixture
def eager_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A WebSocket that is silent for an instant gets one."""
    known = settings()
    limits = replace(known.gateway, websocket_ping_interval_s=0.05)
    for module in ("websocket_connection", "websocket_keeper"):
        monkeypatch.setattr(f"gateway.websockets.{module}.settings", lambda: replace(known, gateway=limits))


@contextmanager
def peak_below(max_bytes: int) -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    try:
        yield
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < max_bytes


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(name: str) -> None:
    data, status, text = BOMBS[name]
    router = FakeRouter(lambda call: allow(call, 100))

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            with peak_below(6 * LIMIT_BYTES):
                answered, body = await answer_to(gateway, data)
            assert answered == status
            assert text in body
            assert gateway.listener.buffered_bytes == 0
            assert router.link.items == []

    on_io_loop(scenario())


@pytest.mark.usefixtures("small_limits")
def test_a_bomb_of_grpc_is_refused() -> None:
    async def scenario() -> None:
        async with every_dialect(FakeRouter()) as gateway:
            address = f"127.0.0.1:{gateway.port}"
            async with grpc.aio.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(PRICE)(bytes(BOMB_BYTES))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    on_io_loop(scenario())


def test_bombs_are_decompressed_only_as_the_replica_takes_them() -> None:
    """Each of them is within the limit; together they would be a gibibyte."""
    size = 4 * MIB
    router = FakeRouter(lambda call: allow(call, 2))
    body = envelope(bomb(31, size), 1) * 256

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            with peak_below(5 * size):
                writer.write(post(TOTAL, body, CONNECT_STREAM, "connect-content-encoding: gzip"))
                await until(lambda: router.link.items, "the first bomb")
                await until(lambda: gateway.listener.buffered_bytes > 100_000, "the others wait")
            # Its size takes the credit of many small messages.
            assert len(router.link.items) == 1
            writer.transport.abort()
            await until(lambda: router.cancelled, "the call ends with its client")

    on_io_loop(scenario())


# ---- WebSockets ------------------------------------------------------------------------------------------------------

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
DEFLATED = b"sec-websocket-extensions: permessage-deflate\r\n"


def frame(opcode: int, data: bytes = b"", *, ends: bool = True, is_compressed: bool = False, size: int = -1) -> bytes:
    """As a client sends it, with a mask of zeros. `size`: what the head says of the length."""
    first = opcode | ends << 7 | is_compressed << 6
    size = len(data) if size < 0 else size
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack(">BBH", first, 0xFE, size)
    else:
        head = struct.pack(">BBQ", first, 0xFF, size)
    return head + bytes(4) + data


def packed(data: bytes) -> bytes:
    """As permessage-deflate has it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


TEXT, BINARY, CONT, PING, CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.CLOSE
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
    "what is no deflate": ([frame(BINARY, b"\xff" * 4, is_compressed=True)], 1002),
    "a continuation with the flag of a beginning": (
        [frame(BINARY, packed(b"a"), ends=False, is_compressed=True), frame(CONT, packed(b"a"), is_compressed=True)],
        1002,
    ),
    "a compressed ping": ([frame(PING, packed(b"a"), is_compressed=True)], 1002),
}
SOCKETS = {name: (b"", *case) for name, case in FRAMES.items()} | {
    name: (DEFLATED, *case) for name, case in DEFLATED_FRAMES.items()
}


@dataclass
class OpenSocket:
    """A WebSocket that its application has accepted."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    call: OutgoingCall


async def open_socket(gateway: EveryDialect, router: FakeRouter, fields: bytes = b"") -> OpenSocket:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(HANDSHAKE + fields + b"\r\n")
    await until(lambda: router.calls, "the handshake")
    item(router.calls[0], encode_accept(None, []))
    await reader.readuntil(b"\r\n\r\n")
    return OpenSocket(reader, writer, router.calls[0])


@pytest.mark.parametrize("name", SOCKETS)
def test_a_hostile_socket_is_closed_with_the_code_for_it(name: str) -> None:
    fields, pieces, code = SOCKETS[name]
    router = FakeRouter(lambda call: allow(call, 100))
    router.link.on_half_close = lambda call: finish(call, Outcome())

    async def read_close(reader: asyncio.StreamReader) -> bytes:
        """The code of the last frame; pongs come before it."""
        data = b""
        async with asyncio.timeout(20):
            while piece := await reader.read(MIB):
                data = (data + piece)[-1_000:]
        return data[data.rindex(bytes((0x80 | CLOSE,))) :][2:4]

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            client = await open_socket(gateway, router, fields)
            with peak_below(2 * settings().gateway.websocket_message_max_bytes):
                client.writer.writelines(pieces)
                close = await read_close(client.reader)
            client.writer.transport.abort()
            assert int.from_bytes(close, "big") == code
            await until(lambda: not gateway.listener.connections, "the connection is closed")
            assert gateway.listener.buffered_bytes == 0
        events = [decode_websocket_event(each) for each in router.link.items[1:]]
        assert [each.close.code for each in events] == [code]

    on_io_loop(scenario())


def test_large_compressed_messages_wait_for_the_replica() -> None:
    router = FakeRouter(lambda call: allow(call, 1))
    message = frame(BINARY, packed(bytes(2 * MIB)), is_compressed=True)

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            client = await open_socket(gateway, router, DEFLATED)
            with peak_below(10 * MIB):
                client.writer.write(message * 500)
                await until(lambda: gateway.listener.buffered_bytes > 2 * MIB, "a message waits")
            assert gateway.listener.buffered_bytes < 5 * MIB
            assert len(router.link.items) == 1
            reset(client.writer)
            await until(lambda: router.cancelled, "the call ends with its client")

    on_io_loop(scenario())


# ---- Clients that leave, and clients that do not read ----------------------------------------------------------------

UPLOADS = {
    "web": post("/upload", b"", "application/octet-stream", length=10**9),
    "Connect": post(TOTAL, b"", CONNECT_STREAM, length=10**9),
    "lines of JSON": post(TOTAL, b"", LINES, length=10**9),
    "WebSocket": b"",
}
PIECES = {
    "web": bytes(50_000),
    "Connect": envelope(Item(name="x" * 50_000).SerializeToString()),
    "lines of JSON": b'{"name": "' + b"x" * 50_000 + b'"}\n',
    "WebSocket": frame(BINARY, bytes(50_000)),
}


@pytest.mark.parametrize("is_abrupt", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("name", UPLOADS)
def test_a_client_that_leaves_while_the_replica_takes_nothing_frees_its_place(
    name: str, is_abrupt: bool, eager_pings: None
) -> None:
    """The gateway does not read its socket then, so that no event tells that it has gone; pings do."""
    router = FakeRouter(lambda call: allow(call, 2))

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            if name == "WebSocket":
                writer = (await open_socket(gateway, router)).writer
            else:
                _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                writer.write(UPLOADS[name])
            # As much as the gateway takes before it stops reading, and a little more.
            writer.write(PIECES[name] * 8)
            await until(lambda: gateway.listener.buffered_bytes > 200_000, "the gateway reads no more")
            await writer.drain()
            assert router.cancelled == []
            reset(writer) if is_abrupt else writer.transport.abort()
            await until(lambda: router.cancelled, "its call ends")
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())


@pytest.mark.parametrize("stays", [True, False], ids=["waits for the answer", "does not wait"])
@pytest.mark.parametrize("size", [1, 50_000])
def test_all_that_a_socket_got_before_it_was_closed_reaches_a_slow_replica(size: int, stays: bool) -> None:
    """The replica is far behind when the client closes, with a code, and leaves."""
    router = FakeRouter(lambda call: allow(call, 2))
    count = 40

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            client = await open_socket(gateway, router)
            client.writer.write(frame(BINARY, bytes(size)) * count + frame(CLOSE, b"\x03\xe8"))
            await client.writer.drain()
            if not stays:
                client.writer.close()
            await until(lambda: len(router.link.items) == 2, "the replica has no more credit")
            while not router.cancelled and len(router.link.items) < count + 2:
                await asyncio.sleep(0.02)  # some looks at the connection
                allow(client.call, 1)
            client.writer.transport.abort()
        events = [decode_websocket_event(each) for each in router.link.items[1:]]
        assert [len(each.binary) for each in events[:-1]] == [size] * count
        assert events[-1].close.code == 1000

    on_io_loop(scenario())


STREAMS = {
    "server-sent events": post(LIST, b"{}", JSON, "accept: text/event-stream"),
    "lines of JSON": post(LIST, b"{}", JSON, f"accept: {LINES}"),
    "array of JSON": post(LIST, b"{}", JSON),
    "gRPC-Web": post(LIST, envelope(b""), GRPC_WEB),
    "Connect": post(LIST, envelope(b""), CONNECT_STREAM),
    "web": post("/stream", b"", "text/plain"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_client_that_stops_reading_stops_the_replica_and_is_given_up(name: str) -> None:
    producer = Producer(Item(name="x" * (len(MESSAGE) - 4)).SerializeToString())
    if name == "web":
        producer.first = encode_response(200, [(b"content-type", b"text/plain")], b"")

    async def scenario() -> None:
        async with every_dialect(producer.router, policy=UpkeepPolicy(unread_timeout_s=0.3)) as gateway:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(STREAMS[name])
            await until(lambda: producer.is_out_of_credit, "the replica is out of credit")
            assert gateway.listener.buffered_bytes <= 2 * settings().payload.stream_credits * 65_536
            await until(lambda: producer.router.cancelled, "its call ends, and with it the place that it had")
            await until(lambda: not gateway.listener.buffered_bytes, "nothing waits for it")
            await until(lambda: not gateway.listener.connections, "its connection is broken")
            writer.transport.abort()

    on_io_loop(scenario())


# ---- Requests that two servers read in two ways ----------------------------------------------------------------------

SECOND = (
    b"POST " + PRICE.encode() + b" HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
)
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"
SMUGGLED = {
    "a length beside chunks": ("content-length: 2\r\ntransfer-encoding: chunked\r\n", CHUNKS, 400),
    "chunks beside a length": ("transfer-encoding: chunked\r\ncontent-length: 2\r\n", CHUNKS, 400),
    "two lengths": ("content-length: 2\r\ncontent-length: 3\r\n", b"{}", 400),
    "a list of lengths": ("content-length: 2, 3\r\n", b"{}", 400),
    "a signed length": ("content-length: +2\r\n", b"{}", 400),
    "chunked twice": ("transfer-encoding: chunked, chunked\r\n", CHUNKS, 400),
    "another coding": ("transfer-encoding: gzip, chunked\r\n", CHUNKS, 501),
    "chunked with a tab": ("transfer-encoding:\tchunked\r\ncontent-length: 2\r\n", CHUNKS, 400),
    "chunked in another name": ("transfer-encoding: xchunked\r\n", CHUNKS, 400),
    "a space before the colon": ("content-length : 2\r\n", b"{}", 400),
    "a folded line": ("x-a: b\r\n content-length: 2\r\n", b"{}", 400),
    "a bare line feed": ("x-a: b\ncontent-length: 2\r\n", b"{}", 400),
    "a bare carriage return": ("x-a: b\rcontent-length: 2\r\n", b"{}", 400),
    "a hexadecimal prefix": ("transfer-encoding: chunked\r\n", b"0x2\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk without its end": ("transfer-encoding: chunked\r\n", b"2\r\n{}0\r\n\r\n", 400),
    "a line feed behind a size": ("transfer-encoding: chunked\r\n", b"2\n{}\r\n0\r\n\r\n", 400),
    "a trailer that is no field": ("transfer-encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n" + SECOND, 400),
}
KINDS = {"JSON": (PRICE, JSON), "Connect": (PRICE, CONNECT), "gRPC-Web": (PRICE, GRPC_WEB), "web": ("/page", JSON)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMUGGLED)
def test_no_request_hides_in_another(name: str, kind: str) -> None:
    """Whatever dialect reads the first one, what stands behind it is never taken for a request."""
    lines, body, status = SMUGGLED[name]
    path, content_type = KINDS[kind]
    router = FakeRouter()
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {content_type}\r\n{lines}\r\n".encode()

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            answered, _ = await answer_to(gateway, head + body + SECOND)
            assert answered == status
            assert all(call in router.cancelled for call in router.calls), "no call goes on"
            assert len(router.calls) <= 1

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
            async with asyncio.timeout(20):
                await reader.read()
            writer.transport.abort()
            assert len(router.cancelled) == 1
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())
