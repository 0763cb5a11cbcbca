"""What a receiver may count on, and what it may do inside the events of its stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode, Http2Error
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from mesh.http2.stream import Stream
from tests.unit.fakes.http2_ends import (
    PING,
    RESPONSE,
    TRAILERS,
    ClientEnd,
    Exchange,
    ServerEnd,
    answered,
    carry,
    data,
    echo,
    failures,
    headers,
    rst_stream,
    window_update,
)


class Acting(Exchange):
    """Does one thing inside one event."""

    def __init__(self, event: str, action: Callable[[Stream], None]) -> None:
        super().__init__(lambda exchange: None)
        self._event, self._action = event, action

    def on_data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        super().on_data(stream, data, start, stop)
        self._act("data", stream)

    def on_end(self, stream: Stream) -> None:
        super().on_end(stream)
        self._act("end", stream)

    def on_reset(self, stream: Stream, code: ErrorCode | int) -> None:
        super().on_reset(stream, code)
        self._act("reset", stream)

    def on_headers(self, stream: Stream, head: object, *, ended: bool) -> None:
        self._act("headers", stream)

    def on_writable(self, stream: Stream) -> None:
        self._act("writable", stream)

    def _act(self, event: str, stream: Stream) -> None:
        if event == self._event:
            self._action(stream)


def with_receiver(event: str, action: Callable[[Stream], None]) -> tuple[ServerEnd, Acting]:
    """A server with stream 1 open, whose receiver acts."""
    server = ServerEnd()
    server.receive(headers(1))
    acting = Acting(event, action)
    acting.stream = server.exchanges[1].stream
    acting.stream.receiver = server.exchanges[1] = acting
    return server, acting


def reset(stream: Stream) -> None:
    stream.connection.reset(stream)


@pytest.mark.parametrize(
    ("event", "sent"),
    [
        ("data", data(1, b"x", ends=True)),
        ("end", data(1, b"x", ends=True)),
        ("headers", headers(1, TRAILERS, ends=True)),
    ],
)
def test_a_receiver_that_resets_its_stream_hears_no_more(event: str, sent: bytes) -> None:
    server, exchange = with_receiver(event, reset)
    assert failures(server.receive(sent)) == [(1, ErrorCode.CANCEL)]
    assert exchange.reset_code is None
    assert exchange.is_complete == (event == "end")
    assert not server.connection.streams


def test_a_receiver_may_answer_with_the_last_data() -> None:
    unary = encode_fields(RESPONSE), b"answer", encode_fields(TRAILERS)
    server, exchange = with_receiver("data", lambda stream: stream.connection.send_unary(stream, *unary))
    frames = server.receive(data(1, b"x", ends=True))
    assert answered(frames) == [1]
    assert not failures(frames)
    assert not exchange.is_complete


def test_a_receiver_may_close_the_connection() -> None:
    """What comes behind, even in the same read, opens no stream."""
    server, exchange = with_receiver("data", lambda stream: stream.connection.close(ErrorCode.CANCEL))
    server.receive(data(1, b"x"), data(1, b"y"), headers(3), headers(5, ends=True))
    assert exchange.body == b"x"
    assert list(server.exchanges) == [1]
    assert server.connection.is_done


def test_a_receiver_may_fail_the_connection() -> None:
    fault = Http2Error(ErrorCode.INTERNAL_ERROR, "out of order")
    server, exchange = with_receiver("data", lambda stream: stream.connection.fail(fault))
    frames = server.receive(data(1, b"x"), data(1, b"y"), headers(3), PING)
    assert failures(frames)[0] == (0, ErrorCode.INTERNAL_ERROR)
    assert exchange.reset_code == ErrorCode.INTERNAL_ERROR
    assert list(server.exchanges) == [1]


def test_receivers_that_reset_each_other_at_the_end_hear_one_event_each() -> None:
    server = ServerEnd()
    server.receive(*map(headers, (1, 3, 5)))
    for exchange in list(server.exchanges.values()):
        acting = Acting("reset", lambda stream: [reset(it.stream) for it in server.exchanges.values()])
        acting.stream = exchange.stream
        exchange.stream.receiver = server.exchanges[exchange.stream.id] = acting
    server.connection.close(ErrorCode.CANCEL)
    assert [each.reset_code is not None for each in server.exchanges.values()] == [True, False, False]


def test_a_receiver_may_send_as_soon_as_all_has_left() -> None:
    sent = []

    def more(stream: Stream) -> None:
        if len(sent) < 100:
            sent.append(1)
            stream.connection.outbox.send_data(stream, bytes(1_000))

    server, exchange = with_receiver("writable", more)
    server.receive(window_update(1, 2**20), window_update(0, 2**20))
    server.connection.outbox.send_data(exchange.stream, b"x")
    assert len(server.output()) == 1 + 9 + 100 * 1_009
    assert not exchange.stream.is_blocked


def test_a_receiver_may_open_the_next_stream_at_the_end_of_one() -> None:
    client = ClientEnd(Limits(streams_max=1), is_greeted=False)
    server = ServerEnd(answer=echo, is_greeted=False)
    opened: list[Exchange] = []

    def open_next(exchange: Exchange) -> None:
        if len(opened) < 50:
            following = client.open(ends=True)
            following._answer = open_next
            opened.append(following)

    open_next(Exchange(lambda exchange: None))
    carry(client, server)
    assert len(opened) == 50
    assert all(each.is_complete for each in opened)


def test_refused_streams_may_be_opened_elsewhere_at_once() -> None:
    first, second = ClientEnd(), ClientEnd()
    moved: list[Exchange] = []
    for _ in range(3):
        exchange = Acting("reset", lambda stream: moved.append(second.open(ends=True)))
        exchange.stream = first.connection.open(b"\x83", exchange)
    first.receive(wire.goaway_frame(1, ErrorCode.NO_ERROR))
    assert len(moved) == 2
    assert len(second.connection.streams) == 2


def test_a_stream_that_fails_is_reset_once_and_its_receiver_hears_it_once() -> None:
    server = ServerEnd()
    server.receive(headers(1))
    stream = server.exchanges[1].stream
    for _ in range(3):
        server.connection.fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
    assert failures(server.written()) == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert server.exchanges[1].reset_code == ErrorCode.PROTOCOL_ERROR


def test_room_comes_back_half_a_window_at_a_time() -> None:
    server = ServerEnd()
    server.receive(headers(1))
    server.exchanges[1].takes = False
    server.receive(*[data(1, bytes(16_384))] * 16)
    stream = server.exchanges[1].stream
    server.connection.give_room(stream, 128 * 1024)
    assert not server.written()
    server.connection.give_room(stream, 1)
    (update,) = server.written()
    assert int.from_bytes(update.payload, "big") == 128 * 1024 + 1


def test_no_room_is_given_for_what_cannot_come() -> None:
    server = ServerEnd()
    server.receive(headers(1), *[data(1, bytes(16_384))] * 7)
    assert [each for each in server.receive(data(1, bytes(16_384)), data(1, b"x", ends=True)) if each.stream_id] == []


def test_a_message_that_is_larger_than_the_window_arrives() -> None:
    client, server = ClientEnd(is_greeted=False), ServerEnd(answer=echo, is_greeted=False)
    exchange = client.open()
    client.connection.outbox.send_data(exchange.stream, bytes(3_000_000))
    client.connection.outbox.end(exchange.stream)
    carry(client, server)
    assert server.exchanges[1].body == bytes(3_000_000)
    assert exchange.body == bytes(3_000_000)
    assert exchange.heads == [list(RESPONSE), list(TRAILERS)]


def test_streams_and_connections_describe_themselves() -> None:
    server = ServerEnd()
    server.receive(headers(1), headers(3, ends=True))
    assert repr(server.connection) == "<ServerConnection open, 2 streams>"
    assert repr(server.exchanges[1].stream) == "<Stream 1 open>"
    assert repr(server.exchanges[3].stream) == "<Stream 3 half-closed by the peer>"
    server.receive(rst_stream(1))
    assert repr(server.exchanges[1].stream) == "<Stream 1 ended>"
    server.receive(window_update(0, 0))
    assert repr(server.connection) == "<ServerConnection failed, 0 streams>"


@pytest.mark.parametrize(
    "values",
    [{"stream_window_bytes": 65_534}, {"connection_window_bytes": 2**31}, {"frame_max_bytes": 16_383}],
)
def test_limits_below_what_a_peer_may_take_for_granted_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="choose"):
        Limits(**values)  # type: ignore[arg-type]


def test_an_answer_of_a_stream_whose_headers_are_known_uses_no_table() -> None:
    client, server = ClientEnd(is_greeted=False), ServerEnd(answer=echo, is_greeted=False)
    for _ in range(3):
        client.open([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/B"), (b"x", b"y")], ends=True)
    carry(client, server)
    assert not server.connection.decoder._table
    assert not client.connection.decoder._table
    assert encode_fields(RESPONSE) == b"\x88"
