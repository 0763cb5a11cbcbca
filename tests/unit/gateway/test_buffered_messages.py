"""What a gateway buffers is limited: slow clients cost the others little, and memory comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from mesh.http2.client_connection import ClientConnection
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.stream import Stream
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.rpc_ends import RAW_REQUEST, RawCall, raw_connection
from tests.unit.gateway.fakes import (
    CLIENT_STREAM,
    SERVER_STREAM,
    UNARY,
    FakeRouter,
    Gateway,
    allow,
    echo,
    failure_of,
    finish,
    item,
    on_io_loop,
    serving,
    until,
)

REQUESTS = "mesh_gateway_grpc_requests_total"
KIB = 1024
MIB = 1024 * KIB
BUDGET_BYTES = 4 * MIB


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(settings(), gateway=replace(settings().gateway, buffer_max_bytes=BUDGET_BYTES))
    monkeypatch.setattr("gateway.gateway_listener.settings", lambda: small)


class Call(RawCall):
    """A call of a client that sends what the test says, and reads only when it says so."""

    def __init__(self, connection: ClientConnection, method: str) -> None:
        super().__init__()
        self._unread = 0
        fields = [(key, method.encode() if key == b":path" else value) for key, value in RAW_REQUEST]
        self.stream = connection.open(encode_fields(fields), self)

    def send(self, data: bytes, *, ends: bool = False) -> None:
        outbox = self.stream.connection.outbox
        outbox.send_data(self.stream, data)
        if ends:
            outbox.end(self.stream)

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        self.body += data[start:stop]
        self._unread += stop - start

    def read(self) -> None:
        unread, self._unread = self._unread, 0
        self.stream.connection.give_room(self.stream, unread)

    @property
    def status(self) -> bytes | None:
        return self.heads[-1].get(b"grpc-status") if self.heads else None


def prefix(length: int) -> bytes:
    return length.to_bytes(5, "big")


@asynccontextmanager
async def a_gateway(router: FakeRouter) -> AsyncIterator[Gateway]:
    """When it is over, nothing is buffered any more."""
    async with serving(router, "shop") as gateway:
        yield gateway
        await until(lambda: not gateway.listener.buffered_bytes, "nothing is buffered")


@asynccontextmanager
async def slow_client(gateway: Gateway) -> AsyncIterator[ClientConnection]:
    async with raw_connection(f"localhost:{gateway.port}") as connection:
        yield connection


async def ask(gateway: Gateway, size: int) -> int:
    return len(await gateway.channel.unary_unary(UNARY)(bytes(size), timeout=10))


def test_a_slow_upload_leaves_room_for_others_and_its_memory_comes_back() -> None:
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with a_gateway(router) as gateway:
            async with slow_client(gateway) as connection:
                for _ in range(2):
                    Call(connection, UNARY).send(prefix(2 * MIB - 5) + bytes(1000 * KIB))
                await until(lambda: gateway.listener.buffered_bytes >= 2000 * KIB, "both are buffered")
                assert await ask(gateway, 10 * KIB) == 10 * KIB
                assert await ask(gateway, 900 * KIB) == 900 * KIB
                error = await failure_of(gateway.channel.unary_unary(UNARY)(bytes(1500 * KIB), timeout=10))
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "MESH_GATEWAY_BUFFER_MAX_BYTES" in (error.details() or "")
                assert gateway.sample(REQUESTS, "shop", UNARY, "RESOURCE_EXHAUSTED") == 1
            await until(lambda: gateway.listener.buffered_bytes == 0, "the slow client's memory is back")
            assert await ask(gateway, 900 * KIB) == 900 * KIB
        assert not router.cancelled

    on_io_loop(scenario())


def test_one_connection_gets_half() -> None:
    async def scenario() -> None:
        async with a_gateway(FakeRouter(echo)) as gateway, slow_client(gateway) as connection:
            calls = [Call(connection, UNARY) for _ in range(3)]
            for call in calls:
                call.send(prefix(2 * MIB - 5) + bytes(1000 * KIB))
            await until(lambda: any(call.status == b"8" for call in calls), "one is refused")
            assert gateway.listener.buffered_bytes <= BUDGET_BYTES // 2
            assert [call.status for call in calls].count(b"8") == 1

    on_io_loop(scenario())


def test_small_messages_that_come_at_once_are_not_counted() -> None:
    async def scenario() -> None:
        router = FakeRouter()
        async with a_gateway(router) as gateway, slow_client(gateway) as connection:
            for _ in range(50):
                Call(connection, UNARY).send(prefix(KIB) + bytes(KIB), ends=True)
            await until(lambda: len(router.calls) == 50, "the calls")
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())


def test_a_large_request_counts_until_its_call_has_ended() -> None:
    async def scenario() -> None:
        router = FakeRouter()
        async with a_gateway(router) as gateway:
            call = gateway.channel.unary_unary(UNARY)(bytes(MIB), timeout=10)
            await until(lambda: router.calls, "the call")
            assert gateway.listener.buffered_bytes == MIB
            finish(router.calls[0], Outcome(payload=raw(b"done")))
            assert await call == b"done"
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())


def test_a_message_above_half_of_the_budget_is_too_large() -> None:
    async def scenario() -> None:
        async with a_gateway(FakeRouter(echo)) as gateway:
            error = await failure_of(gateway.channel.unary_unary(UNARY)(bytes(2 * MIB), timeout=10))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert str(2 * MIB - 5) in (error.details() or "")

    on_io_loop(scenario())


def test_compressed_stream_items_without_credit_wait_and_count_as_they_came() -> None:
    async def scenario() -> None:
        router = FakeRouter()
        async with a_gateway(router) as gateway:
            call = gateway.channel.stream_unary(CLIENT_STREAM)(compression=grpc.Compression.Gzip, timeout=10)
            for _ in range(3):
                await call.write(bytes(1500 * KIB))
            await call.done_writing()
            await until(lambda: 4 * KIB < gateway.listener.buffered_bytes < 20 * KIB, "three small items wait")
            allow(router.calls[0], 1)
            assert router.link.items == [bytes(1500 * KIB)]
            assert 0 < gateway.listener.buffered_bytes < 15 * KIB
            allow(router.calls[0], 10_000)
            await until(lambda: router.link.half_closed, "the whole request has left")
            assert router.link.items == [bytes(1500 * KIB)] * 3
            assert gateway.listener.buffered_bytes == 0
            finish(router.calls[0], Outcome(payload=raw(b"")))
            assert await call == b""

    on_io_loop(scenario())


def test_a_response_that_is_not_read_leaves_room_for_others_and_its_memory_comes_back() -> None:
    def answer(call: OutgoingCall) -> None:
        finish(call, Outcome(payload=raw(bytes(1500 * KIB))))

    async def scenario() -> None:
        async with a_gateway(FakeRouter(answer)) as gateway:
            async with slow_client(gateway) as connection:
                first, second = (Call(connection, UNARY) for _ in range(2))
                first.send(prefix(0), ends=True)
                await until(lambda: gateway.listener.buffered_bytes > MIB, "the response waits")
                second.send(prefix(0), ends=True)
                await until(lambda: second.status == b"8", "the second is refused")
                assert b"was executed" in second.heads[-1][b"grpc-message"]
                assert gateway.sample(REQUESTS, "shop", UNARY, "RESOURCE_EXHAUSTED") == 1
                assert await ask(gateway, 0) == 1500 * KIB
            await until(lambda: gateway.listener.buffered_bytes == 0, "the slow client's memory is back")

    on_io_loop(scenario())


def test_a_stream_that_is_not_read_ends_behind_what_waits_for_its_client() -> None:
    def produce(call: OutgoingCall) -> None:
        for _ in range(5):
            if call.state is not CallState.DONE:
                item(call, bytes(800 * KIB))

    async def scenario() -> None:
        router = FakeRouter(produce)
        async with a_gateway(router) as gateway, slow_client(gateway) as connection:
            call = Call(connection, SERVER_STREAM)
            call.send(prefix(0), ends=True)
            await until(lambda: router.cancelled, "the call is ended on the mesh")
            assert gateway.sample(REQUESTS, "shop", SERVER_STREAM, "RESOURCE_EXHAUSTED") == 1
            assert MIB < gateway.listener.buffered_bytes <= BUDGET_BYTES // 2

            def is_complete() -> bool:
                call.read()
                return call.status == b"8"

            await until(is_complete, "the status behind the items")
            assert len(call.body) == 2 * (800 * KIB + 5)

    on_io_loop(scenario())


def test_what_comes_behind_the_end_of_a_call_is_not_counted() -> None:
    """Its answer waits for the client, which goes on sending."""

    async def scenario() -> None:
        router = FakeRouter()
        async with a_gateway(router) as gateway:
            async with slow_client(gateway) as connection:
                call = Call(connection, CLIENT_STREAM)
                await until(lambda: router.calls, "the call")
                finish(router.calls[0], Outcome(payload=raw(bytes(MIB))))
                waiting = gateway.listener.buffered_bytes
                assert waiting > 0
                call.send(prefix(MIB) + bytes(100 * KIB))
                assert await unanswered(gateway) is grpc.StatusCode.DEADLINE_EXCEEDED
                assert gateway.listener.buffered_bytes <= waiting
            await until(lambda: gateway.listener.buffered_bytes == 0, "the memory is back")

    on_io_loop(scenario())


async def unanswered(gateway: Gateway) -> grpc.StatusCode:
    """A round trip, after which what was sent before has been read."""
    return (await failure_of(gateway.channel.unary_unary(UNARY)(b"", timeout=0.05))).code()
