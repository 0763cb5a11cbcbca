"""Large messages of clients that pad, pause, send too much or leave: limits hold, and other calls go on."""

from __future__ import annotations

import pytest

from gateway.requests.exchange import UNHEARD as IGNORING
from gateway.requests.exchange import Exchange, ExchangeReceiver, HttpHead
from mesh.http2 import frame_format as wire
from mesh.http2.client_connection import ClientConnection
from mesh.http2.frame_format import ErrorCode
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.stream import Stream
from mesh.http2.transport import Http2Transport
from mesh.http2.upkeep import UpkeepPolicy
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.outcome import Outcome
from tests.unit.fakes.http2_ends import frame, padded
from tests.unit.fakes.rpc_ends import RAW_REQUEST, RawCall, raw_connection
from tests.unit.gateway.fakes import (
    CLIENT_STREAM,
    UNARY,
    FakeRouter,
    Gateway,
    echo,
    finish,
    on_io_loop,
    serving,
    until,
)

SIZE = 3_000_000
PIECE = 16_000


def begin(connection: ClientConnection, call: RawCall, data: bytes, method: str = UNARY) -> Stream:
    fields = [(key, method.encode() if key == b":path" else value) for key, value in RAW_REQUEST]
    stream = connection.open(encode_fields(fields), call)
    connection.outbox.send_data(stream, data)
    return stream


def test_a_client_that_pads_its_frames_gets_room_for_the_padding_too() -> None:
    """Padding takes of the window as data do (RFC 9113 §6.9.1)."""

    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop") as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            body = bytes(range(256)) * (SIZE // 256)
            call = RawCall()
            stream = begin(client, call, len(body).to_bytes(5, "big"))
            await until(lambda: not stream.is_blocked, "the prefix has left")
            for start in range(0, len(body), PIECE):
                payload = padded(body[start : start + PIECE], 200)
                await until(lambda: min(stream.send_window, client.outbox.window) > wire.FRAME_BYTES_MIN, "room")
                stream.send_window -= len(payload)
                client.outbox.window -= len(payload)
                client.outbox.send(frame(wire.DATA, wire.PADDED, stream.id, payload))
            client.outbox.end(stream)
            await until(lambda: call.has_ended, "the answer")
            assert call.body[5:] == body

    on_io_loop(scenario())


@pytest.mark.parametrize("missing", [0, 1, 10_000, SIZE // 2])
def test_a_client_that_stops_in_a_large_request_is_answered_after_the_timeout(missing: int) -> None:
    """Also shortly before its end, and where only the end of the stream is missing."""

    async def scenario() -> None:
        served = serving(FakeRouter(echo), "shop", policy=UpkeepPolicy(body_timeout_s=0.0))
        async with served as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            call = RawCall()
            begin(client, call, SIZE.to_bytes(5, "big") + bytes(SIZE - missing))
            await until(lambda: call.has_ended, "the answer")
            assert call.heads[-1][b"grpc-status"] == b"4"

    on_io_loop(scenario())


@pytest.mark.parametrize("ends", [False, True])
def test_a_message_that_came_at_once_is_counted_too_as_long_as_its_call_lasts(ends: bool) -> None:
    """Whether only the end of its stream is missing, or its call waits for a replica."""

    async def scenario() -> None:
        router = FakeRouter()
        async with serving(router, "shop") as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            streams = [begin(client, RawCall(), PIECE.to_bytes(5, "big") + bytes(PIECE)) for _ in range(4)]
            if ends:
                for stream in streams:
                    client.outbox.end(stream)
                await until(lambda: len(router.calls) == 4, "the calls")
            await until(lambda: gateway.listener.buffered_bytes >= 4 * PIECE, "all of them are counted")
            assert len(router.calls) == (4 if ends else 0)
            for stream in streams:
                client.reset(stream)
            await until(lambda: not gateway.listener.buffered_bytes, "nothing is left of them")

    on_io_loop(scenario())


def test_messages_that_came_at_once_are_refused_where_there_is_no_room_for_them() -> None:
    async def scenario() -> None:
        router = FakeRouter()
        async with serving(router, "shop") as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            gateway.listener._budget.max_bytes = 5 * PIECE
            calls = [RawCall() for _ in range(4)]
            for call in calls:
                begin(client, call, PIECE.to_bytes(5, "big") + bytes(PIECE))
            await until(lambda: any(call.has_ended for call in calls), "an answer")
            refused = [call.heads[-1][b"grpc-status"] for call in calls if call.has_ended]
            assert set(refused) == {b"8"}
            assert gateway.listener.buffered_bytes <= 5 * PIECE
            small = RawCall()
            client.outbox.end(begin(client, small, bytes(5)))
            await until(lambda: router.calls, "a small message needs no room")

    on_io_loop(scenario())


def test_what_comes_behind_a_whole_request_is_refused_and_its_message_stays_counted_until_then() -> None:
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop") as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            call = RawCall()
            stream = begin(client, call, SIZE.to_bytes(5, "big") + bytes(SIZE))
            await until(lambda: gateway.listener.buffered_bytes == SIZE, "the whole message is here")
            client.outbox.send_data(stream, b"\0")
            await until(lambda: call.has_ended, "the answer")
            assert call.heads[-1][b"grpc-status"] == b"12"
            assert not gateway.listener.buffered_bytes
            assert not router.calls

    on_io_loop(scenario())


def test_the_rest_of_a_large_request_that_was_refused_ends_no_other_call_of_its_connection() -> None:
    """The client had room for all of it, and goes on until it has read the reset."""

    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop") as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            refused, other = RawCall(), RawCall()
            stream = begin(client, refused, SIZE.to_bytes(5, "big") + bytes(100_000))
            await until(lambda: stream.send_window > SIZE // 2, "room for the rest")
            for transport in transports(gateway):
                for each in list(transport.connection.streams.values()):
                    each.receiver.on_stalled()  # type: ignore[attr-defined]
            rest = bytes(PIECE)
            for _ in range((SIZE - 100_000) // PIECE):
                client.outbox.send(frame(wire.DATA, 0, stream.id, rest))
            client.outbox.end(begin(client, other, bytes(5)))
            await until(lambda: other.has_ended, "the answer of the other call")
            assert other.heads[-1][b"grpc-status"] == b"0"
            assert refused.heads[-1][b"grpc-status"] == b"4"

    on_io_loop(scenario())


class Reading:
    """A dialect that waits for all of a request."""

    def claims(self, head: HttpHead) -> bool:
        return True

    def open(self, exchange: Exchange) -> ExchangeReceiver:
        return IGNORING


@pytest.mark.parametrize("content_type", [b"application/grpc", b"application/json"])
@pytest.mark.parametrize("path", [UNARY, CLIENT_STREAM])
def test_a_request_with_malformed_trailers_is_reset_and_counted_once(content_type: bytes, path: str) -> None:
    """RFC 9113 §8.1, whatever serves the request."""

    async def scenario() -> None:
        router = FakeRouter()
        async with serving(router, "shop") as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            gateway.listener.add_dialects(Reading())
            own = {b":path": path.encode(), b"content-type": content_type}
            call = RawCall()
            stream = client.open(encode_fields([(key, own.get(key, value)) for key, value in RAW_REQUEST]), call)
            client.outbox.send_data(stream, bytes(5))
            client.outbox.end(stream, encode_fields([(b":path", b"/other")]))
            await until(lambda: call.has_ended, "the reset")
            assert call.reset_code == ErrorCode.PROTOCOL_ERROR
            await until(
                lambda: not gateway.metrics.in_flight.count and not gateway.listener.exchanges, "no call is left"
            )

    on_io_loop(scenario())


def test_a_stream_that_was_refused_at_once_is_counted_once_when_its_client_leaves() -> None:
    """Its answer waits, because the client does not read."""

    def refuse(call: OutgoingCall) -> None:
        finish(call, Outcome(8, "full"))

    async def scenario() -> None:
        router = FakeRouter(refuse)
        async with serving(router, "shop") as gateway, raw_connection(f"localhost:{gateway.port}") as client:
            await until(lambda: transports(gateway), "the connection")
            for transport in transports(gateway):
                transport.pause_writing()
            stream = begin(client, RawCall(), bytes(5), CLIENT_STREAM)
            await until(lambda: router.calls, "the call")
            client.reset(stream)
            await until(lambda: not any(each.connection.streams for each in transports(gateway)), "it has left")
            assert gateway.metrics.in_flight.count == 0

    on_io_loop(scenario())


def transports(gateway: Gateway) -> list[Http2Transport]:
    connections = gateway.listener.server.sockets.connections
    return [each for each in connections if isinstance(each, Http2Transport)]
