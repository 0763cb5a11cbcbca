"""What leaves when: turns between streams, windows, a socket that is full, and ends that wait."""

from __future__ import annotations

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode, Setting
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.outbox import OUTPUT_BYTES
from tests.unit.fakes.http2_ends import (
    PING,
    PONG,
    RESPONSE,
    TRAILERS,
    ServerEnd,
    answered,
    body_of,
    data,
    echo,
    failures,
    headers,
    rst_stream,
    settings,
    window_update,
)

RESPONSE_BLOCK = encode_fields(RESPONSE)
TRAILER_BLOCK = encode_fields(TRAILERS)


def open_server(*stream_ids: int, window_bytes: int = 2**20) -> ServerEnd:
    """With wide windows, and these streams open."""
    server = ServerEnd(client_settings=((Setting.INITIAL_WINDOW_SIZE, window_bytes),))
    server.receive(window_update(0, 2**30), *(headers(it, ends=True) for it in stream_ids))
    return server


def test_a_message_goes_out_with_its_prefix() -> None:
    server = open_server(1)
    server.connection.outbox.send_message(server.exchanges[1].stream, b"abc")
    assert body_of(server.written(), 1) == b"\0\0\0\0\3abc"


def test_a_large_message_goes_out_in_frames_and_the_others_take_turns() -> None:
    server = open_server(1, 3)
    outbox = server.connection.outbox
    for it in (1, 3):
        outbox.send_message(server.exchanges[it].stream, bytes(50_000))
    frames = server.written()
    assert [each.stream_id for each in frames] == [1, 3, 1, 3, 1, 3, 1, 3]
    assert body_of(frames, 3) == (50_000).to_bytes(5, "big") + bytes(50_000)


def test_what_a_window_leaves_of_a_large_message_goes_out_in_full_frames_and_one_that_is_not() -> None:
    server = open_server(1, window_bytes=40_000)
    message = bytes(range(250)) * 400
    server.connection.outbox.send_pieces(server.exchanges[1].stream, [message[:60_000], message[60_000:]])
    first = server.written()
    frames = first + server.receive(window_update(1, 2**20))
    assert [len(each.payload) for each in first] == [16_384, 16_384, 40_000 - 2 * 16_384]
    assert body_of(frames, 1) == b"\0" + len(message).to_bytes(4, "big") + message
    assert max(len(each.payload) for each in frames) == wire.FRAME_BYTES_MIN


def test_messages_of_one_stream_keep_their_order_when_windows_open_late() -> None:
    server = open_server(1, window_bytes=10)
    stream = server.exchanges[1].stream
    for message in (b"first message", b"x", b""):
        server.connection.outbox.send_message(stream, message)
    server.connection.outbox.end(stream, TRAILER_BLOCK)
    assert len(body_of(server.written(), 1)) == 10
    frames = server.receive(window_update(1, 1_000))
    assert body_of(frames, 1) == b"\0\0\0\0\x0dfirst message\0\0\0\0\1x\0\0\0\0\0"[10:]
    assert answered(frames) == [1]


def test_output_is_given_in_portions_so_that_a_full_socket_can_stop_it() -> None:
    server = open_server(1, window_bytes=2**24)
    server.connection.outbox.send_data(server.exchanges[1].stream, bytes(2**22))
    portion = b"".join(server.connection.take_output())
    assert OUTPUT_BYTES <= len(portion) < OUTPUT_BYTES + 2 * wire.FRAME_BYTES_MIN
    server.connection.outbox.is_paused = True
    assert not server.connection.take_output()
    server.connection.outbox.resume()
    assert len(server.output()) > 2**22 - OUTPUT_BYTES - 2 * wire.FRAME_BYTES_MIN


def test_a_receiver_learns_when_all_has_left() -> None:
    server = open_server(1, window_bytes=4)
    exchange = server.exchanges[1]
    server.connection.outbox.send_data(exchange.stream, b"123456")
    server.output()
    assert exchange.stream.is_blocked
    assert not exchange.writable
    server.receive(window_update(1, 2))
    assert exchange.writable == 1
    assert not exchange.stream.is_blocked


def test_while_the_socket_is_full_only_frames_about_the_connection_leave() -> None:
    server = open_server(1, 3, 5)
    outbox = server.connection.outbox
    outbox.is_paused = True
    outbox.send_message(server.exchanges[1].stream, b"x")
    outbox.end(server.exchanges[1].stream, TRAILER_BLOCK)
    outbox.end(server.exchanges[3].stream, TRAILER_BLOCK)
    outbox.send_headers(server.exchanges[5].stream, TRAILER_BLOCK, ends=True)
    assert server.receive(PING) == [PONG]
    assert sorted(server.connection.streams) == [1, 3, 5]
    outbox.resume()
    assert sorted(answered(server.written())) == [1, 3, 5]
    assert not server.connection.streams


@pytest.mark.parametrize("update", [window_update(1, 100), settings((Setting.INITIAL_WINDOW_SIZE, 100))])
def test_the_shell_is_asked_to_write_when_a_window_opens(update: bytes) -> None:
    server = open_server(1, window_bytes=0)
    server.connection.outbox.send_data(server.exchanges[1].stream, b"waits")
    assert not server.written()
    asked = server.calls_to_write
    server.connection.receive(update)
    assert server.calls_to_write > asked
    assert server.connection.outbox.output[-1] == b"waits"


def test_ends_need_no_window() -> None:
    server = ServerEnd(client_settings=((Setting.INITIAL_WINDOW_SIZE, 2**20),))
    server.receive(headers(1, ends=True), headers(3, ends=True))
    outbox = server.connection.outbox
    outbox.send_data(server.exchanges[1].stream, bytes(100_000))
    server.output()
    assert outbox.window == 0
    outbox.is_paused = True
    outbox.end(server.exchanges[3].stream, TRAILER_BLOCK)
    outbox.resume()
    assert answered(server.written()) == [3]


def test_a_response_that_waits_for_the_socket_is_dropped_when_the_client_resets_it() -> None:
    server = open_server(1, 3)
    outbox = server.connection.outbox
    outbox.is_paused = True
    for it in (1, 3):
        echo(server.exchanges[it])
    server.output()
    server.receive(rst_stream(1))
    outbox.resume()
    assert answered(server.written()) == [3]


def test_nothing_is_sent_on_a_stream_that_has_ended() -> None:
    server = open_server()
    server.receive(headers(1))
    stream = server.exchanges[1].stream
    server.receive(rst_stream(1))
    outbox = server.connection.outbox
    outbox.send_headers(stream, RESPONSE_BLOCK)
    outbox.send_message(stream, b"x")
    outbox.send_data(stream, b"x")
    outbox.end(stream, TRAILER_BLOCK)
    outbox.send_headers(stream, TRAILER_BLOCK, ends=True)
    server.connection.give_room(stream, 2**20)
    server.connection.reset(stream)
    server.connection.send_unary(stream, RESPONSE_BLOCK, b"x", TRAILER_BLOCK)
    assert server.written() == []
    assert outbox.pending_bytes == 0


def test_a_unary_response_is_three_frames() -> None:
    server = open_server(1)
    server.connection.send_unary(server.exchanges[1].stream, RESPONSE_BLOCK, b"abc", TRAILER_BLOCK)
    frames = server.written()
    assert [(each.kind, each.flags) for each in frames] == [
        (wire.HEADERS, wire.END_HEADERS),
        (wire.DATA, 0),
        (wire.HEADERS, wire.END_HEADERS | wire.END_STREAM),
    ]
    assert not server.connection.streams


def test_unary_responses_keep_to_the_windows() -> None:
    server = ServerEnd(client_settings=((Setting.INITIAL_WINDOW_SIZE, 12_000),))
    server.receive(*(headers(it, ends=True) for it in range(1, 20, 2)))
    for exchange in server.exchanges.values():
        server.connection.send_unary(exchange.stream, RESPONSE_BLOCK, bytes(10_000), TRAILER_BLOCK)
    frames = server.written()
    assert sum(len(each.payload) for each in frames if each.kind == wire.DATA) == wire.WINDOW_DEFAULT
    assert len(answered(frames)) == 6
    frames = server.receive(window_update(0, 2**20))
    assert len(answered(frames)) == 4

    server = ServerEnd(client_settings=((Setting.INITIAL_WINDOW_SIZE, 10_004),))
    server.receive(headers(1, ends=True))
    server.connection.send_unary(server.exchanges[1].stream, RESPONSE_BLOCK, bytes(10_000), TRAILER_BLOCK)
    assert not answered(server.written())
    assert answered(server.receive(window_update(1, 1))) == [1]


def test_a_unary_response_with_large_metadata_is_cut_into_frames() -> None:
    large = encode_fields([*RESPONSE, (b"k", b"v" * 20_000)])
    for response, trailers in ((large, TRAILER_BLOCK), (RESPONSE_BLOCK, large)):
        server = open_server(1)
        server.connection.send_unary(server.exchanges[1].stream, response, b"abc", trailers)
        frames = server.written()
        assert max(len(each.payload) for each in frames) == wire.FRAME_BYTES_MIN
        assert [each.kind for each in frames].count(wire.CONTINUATION) == 1
        assert sum(bool(each.flags & wire.END_STREAM) for each in frames) == 1


def test_a_smaller_header_table_is_confirmed_in_the_next_block_only() -> None:
    server = open_server(1, 3)
    server.receive(settings((Setting.HEADER_TABLE_SIZE, 100)))
    for it in (1, 3):
        server.connection.send_unary(server.exchanges[it].stream, RESPONSE_BLOCK, b"abc", TRAILER_BLOCK)
    blocks = [each.payload for each in server.written() if each.kind == wire.HEADERS]
    assert blocks == [b"\x20" + RESPONSE_BLOCK, TRAILER_BLOCK, RESPONSE_BLOCK, TRAILER_BLOCK]


def test_a_table_as_large_as_ours_needs_no_confirmation() -> None:
    server = open_server(1)
    server.receive(settings((Setting.HEADER_TABLE_SIZE, 4_096)))
    server.connection.outbox.send_headers(server.exchanges[1].stream, RESPONSE_BLOCK)
    assert server.written()[-1].payload == RESPONSE_BLOCK


def test_the_connections_window_is_given_back_for_streams_that_were_reset() -> None:
    """Else each reset with data on its way would make the connection slower, until it stops."""
    server = ServerEnd()
    for it in range(1, 1_000, 2):
        server.receive(headers(it))
        server.connection.reset(server.exchanges[it].stream)
        assert failures(server.receive(data(it, bytes(16_384)))) == [(it, ErrorCode.CANCEL)]
    assert server.connection._receive_window >= server.connection.limits.connection_window_bytes // 2
