"""Hostile clients of every dialect on real sockets: they leave, do not read, or hide requests. Nothing is left."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.http1.client_socket import ClientSocket
from gateway.web_rpc.envelope_reader import envelope
from mesh.http2.upkeep import UpkeepPolicy
from mesh.settings import settings
from mesh.wire.web_messages import encode_response
from tests.unit.fakes.shop_routes import LIST, PRICE, TOTAL, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, on_io_loop, until
from tests.unit.gateway.producer import MESSAGE, Producer
from tests.unit.gateway.raw_requests import (
    BINARY,
    CONNECT,
    CONNECT_STREAM,
    GRPC_WEB,
    JSON,
    LINES,
    answer_to,
    frame,
    open_socket,
    post,
    reset,
)
from tests.unit.protos.shop_pb2 import Item

pytestmark = pytest.mark.usefixtures("eager_upkeep")


@pytest.fixture
def eager_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A WebSocket that is silent for an instant gets one, and one more if it is held back and does not answer."""
    known = settings()
    limits = replace(known.gateway, websocket_ping_interval_s=0.05, websocket_ping_timeout_s=0.05)
    for module in ("websocket_connection", "websocket_keeper"):
        monkeypatch.setattr(f"gateway.websockets.{module}.settings", lambda: replace(known, gateway=limits))


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


@pytest.fixture
def client_sockets(monkeypatch: pytest.MonkeyPatch) -> list[ClientSocket]:
    """Those that the gateway accepts."""
    accepted: list[ClientSocket] = []

    def accept(transport: asyncio.Transport) -> ClientSocket:
        accepted.append(ClientSocket(transport))
        return accepted[-1]

    monkeypatch.setattr("gateway.http1.http1_connection.ClientSocket", accept)
    return accepted


async def write_until_unread(writer: asyncio.StreamWriter, piece: bytes, sockets: list[ClientSocket]) -> None:
    """Write as much as the gateway takes before it stops reading, and hardly more.

    What the kernel has no room for stands in front of the client's end: for minutes nothing shows that it has left.
    """
    async with asyncio.timeout(30):
        while not await is_unread(sockets):
            writer.write(piece)


async def is_unread(sockets: list[ClientSocket]) -> bool:
    """For longer than the turns of the loop in which the gateway deals with what it has read."""
    for _ in range(20):
        await asyncio.sleep(0)
        if not sockets or sockets[0].is_reading:
            return False
    return True


@pytest.mark.parametrize("is_abrupt", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("name", UPLOADS)
def test_a_client_that_leaves_while_the_replica_takes_nothing_frees_its_place(
    name: str, is_abrupt: bool, eager_pings: None, client_sockets: list[ClientSocket]
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
            await write_until_unread(writer, PIECES[name], client_sockets)
            await until(lambda: len(router.link.items) == 2, "the replica has no more credit")
            assert gateway.listener.buffered_bytes > 50_000
            await writer.drain()
            assert router.cancelled == []
            reset(writer) if is_abrupt else writer.transport.abort()
            await until(lambda: router.cancelled, "its call ends")
            assert gateway.listener.buffered_bytes == 0

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
    "a trailer that is not a field": ("transfer-encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n" + SECOND, 400),
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
            answered, text = await answer_to(gateway, head + body + SECOND)
            has_status_in_body = kind == "gRPC-Web" and lines == "transfer-encoding: chunked\r\n"
            assert answered == (200 if has_status_in_body else status)
            assert (b"grpc-status:3" in text) is has_status_in_body
            assert all(call in router.cancelled for call in router.calls), "no call goes on"
            assert len(router.calls) <= 1

    on_io_loop(scenario())
