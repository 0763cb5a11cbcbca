"""Clients that send a byte of a request now and then, in each dialect over real sockets; the looks are in fake time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from gateway.http1.http1_connection import Http1Connection
from gateway.http1.http1_limits import Http1Limits
from gateway.ops.grpc_reflection import Reflection
from gateway.requests.routes import NO_ROUTES
from gateway.web_rpc.envelope_reader import envelope
from mesh.http2.upkeep import UpkeepPolicy
from mesh.v1 import reflection_pb2
from tests.unit.fakes.shop_routes import PRICE, TOTAL, EveryDialect, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, on_io_loop, until
from tests.unit.gateway.open_ports import Http2Client, fields, http2
from tests.unit.gateway.raw_requests import CONNECT, CONNECT_STREAM, GRPC_WEB, JSON, LINES, post
from tests.unit.protos.shop_pb2 import Item

POLICY = UpkeepPolicy(body_timeout_s=60.0, body_min_bytes=6_000, keepalive_after_s=1e9)
GRPC = "application/grpc"
CHECK, REFLECT = "/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
BEGUN = (10_000).to_bytes(5, "big")
LINE = b'{"name": "tea"}\n'
MESSAGE = envelope(Item(name="tea").SerializeToString())

DRIPS = {
    "web": ("/upload", "text/plain", b"a", "408"),
    "JSON": (PRICE, JSON, b'{"name": "', "408"),
    "lines of JSON": (TOTAL, LINES, LINE + b'{"name": "', "408"),
    "Connect": (PRICE, CONNECT, b"\n", "408"),
    "a stream of Connect": (TOTAL, CONNECT_STREAM, MESSAGE + BEGUN, "200"),
    "gRPC-Web": (PRICE, GRPC_WEB, BEGUN, "200"),
    "gRPC": (PRICE, GRPC, BEGUN, "4"),
    "a stream of gRPC": (TOTAL, GRPC, MESSAGE + BEGUN, "4"),
    "a large message": (PRICE, GRPC, (1_000_000).to_bytes(5, "big"), "4"),
}
BUILT_IN = {
    "a service of the gateway": (CHECK, GRPC, (100).to_bytes(5, "big"), "4"),
    "a stream of the gateway": (REFLECT, GRPC, (100).to_bytes(5, "big"), "4"),
}
STREAMS = {
    "lines of JSON": (TOTAL, LINES, LINE),
    "a stream of Connect": (TOTAL, CONNECT_STREAM, MESSAGE),
    "a stream of gRPC": (TOTAL, GRPC, MESSAGE),
}


def ready_router() -> FakeRouter:
    return FakeRouter(lambda call: allow(call, 1_000))


class Looks:
    """Looks at all connections of a gateway, ten seconds between two of them."""

    def __init__(self, gateway: EveryDialect) -> None:
        self._gateway = gateway
        self._now_s = time.monotonic()
        self.look(0)

    def look(self, seconds: float = 10.0) -> None:
        self._now_s += seconds
        for connection in self._gateway.listener.server.client_connections():
            connection.look_after(POLICY, self._now_s)


class Upload:
    """A request on HTTP/2 that goes on."""

    def __init__(self, client: Http2Client, path: str, content_type: str, body: bytes) -> None:
        self._client = client
        self.stream = client.request(fields("POST", path, content_type=content_type, te="trailers"), body, ended=False)

    async def send(self, data: bytes) -> None:
        self._client.h2.send_data(self.stream, data)
        self._client.flush()
        await self._client.round_trip()

    @property
    def status(self) -> str:
        """Of gRPC, or else of HTTP; empty while there is none."""
        head = self._client.trailers.get(self.stream) or self._client.headers.get(self.stream, {})
        return head.get("grpc-status", head.get(":status", ""))


@pytest.mark.parametrize("name", DRIPS | BUILT_IN)
def test_a_request_that_drips_is_given_up_with_the_status_of_a_pause(name: str) -> None:
    path, content_type, begun, status = (DRIPS | BUILT_IN)[name]

    async def scenario() -> None:
        async with every_dialect(ready_router(), policy=POLICY) as gateway, http2(gateway.port) as client:
            gateway.listener._built_in.add_generic_rpc_handlers(Reflection(lambda: NO_ROUTES).handlers())
            upload = Upload(client, path, content_type, begun)
            await client.round_trip()
            looks = Looks(gateway)
            for _ in range(5):
                await upload.send(b"a")
                looks.look()
            await client.round_trip()
            assert upload.status == ""
            looks.look()
            await client.until(lambda: upload.status)
            assert upload.status == status

    on_io_loop(scenario())


@pytest.mark.parametrize("name", DRIPS)
def test_a_request_that_comes_at_a_hundred_bytes_a_second_is_not_slow(name: str) -> None:
    path, content_type, begun, _ = DRIPS[name]

    async def scenario() -> None:
        async with every_dialect(ready_router(), policy=POLICY) as gateway, http2(gateway.port) as client:
            upload = Upload(client, path, content_type, begun)
            await client.round_trip()
            looks = Looks(gateway)
            for _ in range(9):
                await upload.send(b"a" * 1_000)
                looks.look()
            await client.round_trip()
            assert upload.status == ""
            client.h2.reset_stream(upload.stream)
            client.flush()

    on_io_loop(scenario())


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_stream_may_pause_between_messages_however_they_are_cut(name: str, is_cut: bool) -> None:
    """`is_cut`: at each look half of a message is here, each time of another one."""
    path, content_type, message = STREAMS[name]
    half = len(message) // 2 if is_cut else 0

    async def scenario() -> None:
        router = ready_router()
        async with every_dialect(router, policy=POLICY) as gateway, http2(gateway.port) as client:
            upload = Upload(client, path, content_type, message[:half] or message)
            await client.round_trip()
            looks = Looks(gateway)
            for _ in range(10):
                await upload.send(message[half:] + message[:half])
                looks.look(30.0)
            await upload.send(message[half:])
            looks.look(0)
            looks.look(10_000.0)
            await client.round_trip()
            assert upload.status == ""
            assert len(router.link.items) >= 11
            client.h2.reset_stream(upload.stream)
            client.flush()

    on_io_loop(scenario())


def test_a_stream_of_the_gateway_may_pause_between_messages() -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString()

    async def scenario() -> None:
        async with every_dialect(ready_router(), policy=POLICY) as gateway, http2(gateway.port) as client:
            gateway.listener._built_in.add_generic_rpc_handlers(Reflection(lambda: NO_ROUTES).handlers())
            upload = Upload(client, REFLECT, GRPC, envelope(request) + envelope(request)[:3])
            await client.until(lambda: client.bodies.get(upload.stream))
            looks = Looks(gateway)
            looks.look()
            await upload.send(envelope(request)[3:])
            looks.look(10_000.0)
            looks.look(10_000.0)
            await client.round_trip()
            assert upload.status == "200"
            client.h2.end_stream(upload.stream)
            client.flush()
            await client.until(lambda: upload.status == "0")

    on_io_loop(scenario())


@pytest.mark.parametrize("name", STREAMS)
def test_a_client_is_not_slow_while_its_messages_wait_for_the_handler(name: str) -> None:
    path, content_type, message = STREAMS[name]

    async def scenario() -> None:
        router = FakeRouter(lambda call: allow(call, 1))
        async with every_dialect(router, policy=POLICY) as gateway, http2(gateway.port) as client:
            upload = Upload(client, path, content_type, message * 3 + message[:-1])
            await client.round_trip()
            looks = Looks(gateway)
            looks.look(10_000.0)
            await client.round_trip()
            assert upload.status == ""
            assert len(router.link.items) == 1
            client.h2.reset_stream(upload.stream)
            client.flush()

    on_io_loop(scenario())


# ---- HTTP/1.1 --------------------------------------------------------------------------------------------------------

LIMITS = Http1Limits(body_timeout_s=60.0, body_min_bytes=6_000)
REQUESTS = {name: case for name, case in DRIPS.items() if case[1] != GRPC}


async def upload_in_pieces(gateway: EveryDialect, head: bytes, pieces: list[bytes], pause_s: float) -> bytes:
    """What comes back to a client that looks at nothing until it has sent all; the answer, or nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head)
    (connection,) = await _connections(gateway, lambda each: bool(each.clock.requests))
    looks = Looks(gateway)
    for number, piece in enumerate(pieces, start=connection.clock.reads + 1):
        writer.write(piece)
        await until(lambda number=number: connection.clock.reads >= number or connection.is_lost, "the piece is read")  # type: ignore[misc]
        looks.look(pause_s)
    answer = b""
    if not connection._socket.is_open:
        async with asyncio.timeout(30):
            answer = await reader.read()
    writer.transport.abort()
    return answer


async def _connections(gateway: EveryDialect, condition: Callable[[Http1Connection], bool]) -> list[Http1Connection]:
    def found() -> list[Http1Connection]:
        each = [each for each in gateway.listener.server.client_connections() if isinstance(each, Http1Connection)]
        return [connection for connection in each if condition(connection)]

    await until(found, "the connection")
    return found()


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(("size", "is_slow"), [(1, True), (1_000, False)])
def test_a_request_on_http_1_comes_at_the_same_rate(name: str, size: int, is_slow: bool) -> None:
    path, content_type, begun, status = REQUESTS[name]

    async def scenario() -> None:
        async with every_dialect(ready_router(), http1=LIMITS) as gateway:
            head = post(path, begun, content_type, length=1_000_000)
            answer = await upload_in_pieces(gateway, head, [b"a" * size] * 7, 10.0)
            assert (b"took too long to arrive" in answer) is is_slow
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()) is is_slow
            await until(lambda: not gateway.listener.connections, "the connection is closed")

    on_io_loop(scenario())


@pytest.mark.parametrize("name", [name for name in STREAMS if "gRPC" not in name])
def test_small_messages_of_a_stream_on_http_1_may_come_now_and_then(name: str) -> None:
    """Here a pause of the timeout ends the request, but no rate does."""
    path, content_type, message = STREAMS[name]

    async def scenario() -> None:
        async with every_dialect(ready_router(), http1=LIMITS) as gateway:
            head = post(path, message, content_type, length=1_000_000)
            assert await upload_in_pieces(gateway, head, [message] * 10, 50.0) == b""
            await until(lambda: not gateway.listener.connections, "the connection is closed")
            cut = message[len(message) // 2 :] + message[: len(message) // 2]
            head = post(path, message[: len(message) // 2], content_type, length=1_000_000)
            assert await upload_in_pieces(gateway, head, [cut] * 10, 50.0) == b""
            await until(lambda: not gateway.listener.connections, "the connection is closed")

    on_io_loop(scenario())
