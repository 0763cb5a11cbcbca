"""RFC 9113 step by step: the preface, windows, limits and the drain of a server."""

from __future__ import annotations

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode, Setting
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from tests.unit.fakes.http2_ends import (
    PING,
    PONG,
    REQUEST,
    TRAILERS,
    ServerEnd,
    answered,
    body_of,
    data,
    echo,
    failures,
    frame,
    headers,
    padded,
    rst_stream,
    settings,
    window_update,
)

BLOCK = encode_fields(REQUEST)

PROTOCOL = ErrorCode.PROTOCOL_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR


def test_3_4_a_server_begins_with_settings() -> None:
    opening = ServerEnd(is_greeted=False).written()
    assert [each.kind for each in opening] == [wire.SETTINGS, wire.WINDOW_UPDATE]
    assert dict(wire.read_settings(opening[0].payload)) == {
        Setting.INITIAL_WINDOW_SIZE: 256 * 1024,
        Setting.MAX_FRAME_SIZE: 16_384,
        Setting.MAX_HEADER_LIST_SIZE: 16_384,
        Setting.MAX_CONCURRENT_STREAMS: 1_000,
    }


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"INVALID CONNECTION PREFACE\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX",
        b"\x16\x03\x01",
    ],
)
def test_3_4_a_wrong_preface_ends_the_connection(sent: bytes) -> None:
    assert failures(ServerEnd(is_greeted=False).receive(sent)) == [(0, PROTOCOL)]
    assert failures(ServerEnd(is_greeted=False).receive_singly(sent)) == [(0, PROTOCOL)]


@pytest.mark.parametrize("first", [PING, headers(1), frame(wire.SETTINGS, wire.ACK), frame(0x16)])
def test_3_4_settings_come_first(first: bytes) -> None:
    assert failures(ServerEnd(is_greeted=False).receive(wire.PREFACE, first)) == [(0, PROTOCOL)]


def test_3_4_a_client_need_not_wait_for_the_servers_settings() -> None:
    server = ServerEnd(answer=echo, is_greeted=False)
    frames = server.receive(wire.PREFACE, settings(), headers(1, ends=True))
    assert answered(frames) == [1]


def test_the_peer_owes_preface_settings_and_whole_header_blocks() -> None:
    server = ServerEnd(is_greeted=False)
    for byte in wire.PREFACE + settings((Setting.MAX_FRAME_SIZE, 16_384)):
        assert server.connection.reader.awaited_stream == 0
        server.receive(bytes((byte,)))
    assert server.connection.reader.awaited_stream is None
    for stream_id, beginning, rest in (
        (1, headers(1)[:12], headers(1)[12:]),
        (3, frame(wire.HEADERS, 1, 3, BLOCK[:4]), frame(wire.CONTINUATION, 4, 3, BLOCK[4:])),
    ):
        server.receive(beginning)
        assert server.connection.reader.awaited_stream == stream_id
        server.receive(rest)
        assert server.connection.reader.awaited_stream is None


def test_5_1_2_streams_above_the_limit_are_refused() -> None:
    server = ServerEnd(Limits(streams_max=3))
    frames = server.receive(*(headers(stream_id) for stream_id in (1, 3, 5, 7, 9)))
    assert failures(frames) == [(7, ErrorCode.REFUSED_STREAM), (9, ErrorCode.REFUSED_STREAM)]
    # A place is free again; what was on its way on the refused stream does no harm.
    frames = server.receive(data(7, b"x"), rst_stream(1), headers(11))
    assert not failures(frames)
    assert sorted(server.connection.streams) == [3, 5, 11]


def test_6_9_1_nothing_is_sent_beyond_the_windows() -> None:
    server = ServerEnd(answer=echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 1),))
    frames = server.receive(headers(1), data(1, b"abc", ends=True))
    assert body_of(frames, 1) == b"a"
    assert body_of(server.receive(window_update(1, 1)), 1) == b"b"
    frames = server.receive(window_update(1, 5))
    assert body_of(frames, 1) == b"c"
    assert answered(frames) == [1]


def test_6_9_1_the_connection_has_a_window_of_its_own() -> None:
    server = ServerEnd(answer=echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 2**20),))
    body = bytes(100_000)
    frames = server.receive(
        headers(1), *(data(1, body[at : at + 10_000]) for at in range(0, 100_000, 10_000)), data(1, ends=True)
    )
    assert len(body_of(frames, 1)) == wire.WINDOW_DEFAULT
    assert body_of(server.receive(window_update(0, 10)), 1) == bytes(10)
    assert answered(server.receive(window_update(0, 2**20))) == [1]


def test_6_9_2_a_new_initial_window_moves_the_windows_of_open_streams() -> None:
    server = ServerEnd(answer=echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 0),))
    assert not body_of(server.receive(headers(1), data(1, b"abcdef", ends=True)), 1)
    assert body_of(server.receive(settings((Setting.INITIAL_WINDOW_SIZE, 3))), 1) == b"abc"


def test_6_9_2_a_window_may_become_negative() -> None:
    server = ServerEnd(answer=echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 3),))
    assert body_of(server.receive(headers(1), data(1, b"abcdefg", ends=True)), 1) == b"abc"
    frames = server.receive(settings((Setting.INITIAL_WINDOW_SIZE, 2)), window_update(1, 1))
    assert [each.kind for each in frames] == [wire.SETTINGS], "one byte less and one more: still nothing may leave"
    assert body_of(server.receive(window_update(1, 1)), 1) == b"d"


def test_6_9_2_a_stream_that_waits_for_the_connection_may_lose_its_window() -> None:
    server = ServerEnd(answer=echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 100_000),))
    server.receive(headers(1), *[data(1, bytes(16_384))] * 5, data(1, ends=True))
    frames = server.receive(settings((Setting.INITIAL_WINDOW_SIZE, 0)), window_update(0, 1_000))
    assert [each.kind for each in frames] == [wire.SETTINGS], "no empty DATA"
    assert (
        len(body_of(server.receive(settings((Setting.INITIAL_WINDOW_SIZE, 66_000))), 1)) == 66_000 - wire.WINDOW_DEFAULT
    )


def test_6_9_1_a_client_may_use_its_windows_to_the_last_byte_and_no_further() -> None:
    server = ServerEnd()
    server.receive(headers(1), headers(3))
    server.exchanges[1].takes = False
    assert not failures(server.receive(*[data(1, bytes(16_384))] * 16))
    assert len(server.exchanges[1].body) == 256 * 1024
    assert failures(server.receive(data(1, b"x"))) == [(0, FLOW)]

    # Wherever their frames are cut.
    server = ServerEnd()
    server.receive(headers(1))
    server.exchanges[1].takes = False
    sent = data(1, bytes(16_384)) * 16
    for at in range(0, len(sent), 1_000):
        assert not failures(server.receive(sent[at : at + 1_000]))
    assert failures(server.receive(data(1, b"x"))) == [(0, FLOW)]

    server = ServerEnd(Limits(frame_max_bytes=2**20, connection_window_bytes=wire.WINDOW_DEFAULT))
    server.receive(headers(1))
    assert failures(server.receive(data(1, bytes(65_535)))) == []
    assert failures(server.receive(data(1, bytes(65_536)))) == [(0, FLOW)]


def test_6_9_1_room_is_given_back_for_padding_too() -> None:
    server = ServerEnd()
    server.receive(headers(1))
    increments = [
        int.from_bytes(each.payload, "big")
        for _ in range(600)
        for each in server.receive(frame(wire.DATA, 8, 1, padded(b"x", 255)))
        if each.stream_id == 1
    ]
    assert sum(increments) > 256 * 600 - 128 * 1024


def test_6_5_3_the_last_value_of_a_parameter_counts() -> None:
    server = ServerEnd(
        answer=echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 100), (Setting.INITIAL_WINDOW_SIZE, 1))
    )
    assert body_of(server.receive(headers(1), data(1, b"abc", ends=True)), 1) == b"a"


def test_6_5_2_frames_are_no_larger_than_the_peer_takes() -> None:
    server = ServerEnd(
        Limits(frame_max_bytes=2**20),
        echo,
        client_settings=((Setting.INITIAL_WINDOW_SIZE, 2**20), (Setting.MAX_FRAME_SIZE, 20_000)),
    )
    frames = server.receive(window_update(0, 2**20), headers(1), data(1, bytes(50_000), ends=True))
    assert [len(each.payload) for each in frames if each.kind == wire.DATA] == [20_000, 20_000, 10_000]


def test_8_1_a_response_that_is_complete_early_asks_for_no_more_of_the_request() -> None:
    server = ServerEnd()
    server.receive(headers(1), data(1, b"x"))
    echo(server.exchanges[1])
    frames = server.written()
    assert failures(frames) == [(1, ErrorCode.NO_ERROR)]
    assert answered(frames) == [1]
    # What was on its way is taken without a word, and given back to the connection's window.
    assert server.receive(data(1, bytes(16_000)), data(1, b"x", ends=True), PING) == [PONG]


def test_8_1_a_complete_request_is_answered_without_a_reset() -> None:
    server = ServerEnd(answer=echo)
    assert not failures(server.receive(headers(1), data(1, b"x", ends=True)))
    assert not failures(server.receive(headers(3, ends=True)))
    assert not failures(server.receive(headers(5), headers(5, TRAILERS, ends=True)))


def test_10_5_1_a_header_list_above_the_limit_is_answered_and_the_table_stays_right() -> None:
    server = ServerEnd()
    kept = b"\x40\x01a\x01b"
    long = encode_fields([(b"k", b"v" * 1_023)] * 16)
    frames = server.receive(frame(1, 1, 1, BLOCK + kept), frame(9, 0, 1, long[:16_384]), frame(9, 4, 1, long[16_384:]))
    assert answered(frames) == [1]
    server.receive(frame(wire.HEADERS, 5, 3, BLOCK + b"\xbe"))
    assert server.exchanges[3].heads[0][-1] == (b"a", b"b")


def test_6_8_a_drain_names_the_last_stream_once_the_client_knows() -> None:
    server = ServerEnd()
    server.receive(headers(1))
    server.connection.drain()
    goaway, ping = server.written()
    assert wire.read_goaway(goaway.payload)[:2] == (2**31 - 1, ErrorCode.NO_ERROR)
    # On its way before the client had read that: still served.
    server.receive(headers(3, ends=True))
    (goaway,) = server.receive(frame(wire.PING, wire.ACK, 0, ping.payload))
    assert wire.read_goaway(goaway.payload)[:2] == (3, ErrorCode.NO_ERROR)
    assert failures(server.receive(headers(5))) == [(5, ErrorCode.REFUSED_STREAM)]
    assert not server.connection.is_done
    for exchange in server.exchanges.values():
        echo(exchange)
    assert sorted(answered(server.written())) == [1, 3]
    assert server.connection.is_done


def test_6_8_a_drain_ends_after_the_last_stream_id_too() -> None:
    server = ServerEnd(answer=echo)
    server.connection.drain()
    server.receive(headers(2**31 - 1, ends=True))
    assert not server.connection.is_done
    server.connection.finish_drain()
    assert server.connection.is_done
