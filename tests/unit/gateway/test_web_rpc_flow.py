"""Flow control of HTTP dialects over real sockets: what a slow end does not take stays at the other end."""

from __future__ import annotations

import asyncio

import pytest

from gateway.web_rpc.envelope_reader import envelope
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.shop_routes import LIST, TOTAL, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, finish, on_io_loop, until
from tests.unit.gateway.producer import COUNT, MESSAGE, Producer

STREAMS = {"Connect": "application/connect+proto", "gRPC-Web": "application/grpc-web"}


def head(path: str, content_type: str, length: int) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: a", f"content-type: {content_type}", f"content-length: {length}"]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode()


@pytest.mark.parametrize("name", STREAMS)
def test_a_client_that_does_not_read_stops_the_replica(name: str) -> None:
    producer = Producer()

    async def scenario() -> None:
        async with every_dialect(producer.router) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            body = envelope(b"")
            writer.write(head(LIST, STREAMS[name], len(body)) + body)
            await until(lambda: producer.is_out_of_credit, "the replica is out of credit")
            assert producer.sent < COUNT
            assert gateway.listener.buffered_bytes <= settings().payload.stream_credits * 65_536
            answer = await asyncio.wait_for(reader.read(), 30)
            assert answer.count(envelope(MESSAGE)) == producer.sent == COUNT
            writer.close()

    on_io_loop(scenario())


def test_a_replica_that_takes_nothing_stops_the_client() -> None:
    router = FakeRouter()
    body = envelope(MESSAGE) * COUNT

    async def scenario() -> None:
        async with every_dialect(router) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(head(TOTAL, STREAMS["Connect"], len(body)) + body)
            await until(lambda: router.calls, "the call")
            call = router.calls[0]
            # A few messages show that the bytes flow; without more credit they stop.
            allow(call, 3)
            await until(lambda: len(router.link.items) == 3, "what the credit allows")
            assert writer.transport.get_write_buffer_size() > len(body) // 2
            assert gateway.listener.buffered_bytes < 1024 * 1024
            router.link.on_item = lambda call, _: allow(call, 1)
            router.link.on_half_close = lambda call: finish(call, Outcome(payload=raw(b"")))
            allow(call, 2)
            answer = await asyncio.wait_for(reader.read(), 30)
            assert len(router.link.items) == COUNT
            assert answer.startswith(b"HTTP/1.1 200")
            writer.close()

    on_io_loop(scenario())
