"""RFC 9113 as a table: what a server may send, and what the client does about it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode, Setting
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits, opening_frames
from tests.unit.fakes.http2_ends import (
    PING,
    PONG,
    RESPONSE,
    TRAILERS,
    ClientEnd,
    Exchange,
    body_of,
    data,
    failures,
    frame,
    headers,
    hold,
    padded,
    rst_stream,
    settings,
    window_update,
)

PROTOCOL = ErrorCode.PROTOCOL_ERROR
BLOCK = encode_fields(RESPONSE)
WITH_LENGTH = [*RESPONSE, (b"content-length", b"4")]


@dataclass(frozen=True)
class Case:
    """What a server sends on connection with streams 1 (request complete) and 3 (open), and what the client answers."""

    section: str
    title: str
    sent: bytes
    failures: tuple[tuple[int, ErrorCode], ...] = ()


def fatal(section: str, title: str, code: ErrorCode, *sent: bytes) -> Case:
    return Case(section, title, b"".join(sent), ((0, code),))


def broken(section: str, title: str, code: ErrorCode, *sent: bytes, stream_id: int = 1) -> Case:
    return Case(section, title, b"".join(sent), ((stream_id, code),))


def fine(section: str, title: str, *sent: bytes) -> Case:
    return Case(section, title, b"".join(sent))


CASES = [
    fatal("4.3", "a block that cannot be decoded", ErrorCode.COMPRESSION_ERROR, frame(wire.HEADERS, 4, 1, b"\x80")),
    fatal("4.3", "another frame inside a header block", PROTOCOL, frame(wire.HEADERS, 0, 1, BLOCK), PING),
    fatal("5.1", "HEADERS on an idle stream", PROTOCOL, headers(5, RESPONSE)),
    fatal("5.1", "HEADERS on a stream of the server", PROTOCOL, headers(2, RESPONSE)),
    fatal("5.1", "DATA on an idle stream", PROTOCOL, data(5, b"x")),
    fatal("5.1", "DATA on a stream of the server", PROTOCOL, data(2, b"x")),
    fatal("5.1", "RST_STREAM on an idle stream", PROTOCOL, rst_stream(5)),
    fatal("5.1", "WINDOW_UPDATE on an idle stream", PROTOCOL, window_update(5, 1)),
    fatal("5.1", "CONTINUATION without HEADERS", PROTOCOL, frame(wire.CONTINUATION, 4, 1, BLOCK)),
    broken("5.1", "DATA behind the end", ErrorCode.STREAM_CLOSED, headers(1, RESPONSE, ends=True), data(1, b"x")),
    fine("5.1", "HEADERS behind the end", headers(1, RESPONSE, ends=True), headers(1, TRAILERS, ends=True)),
    fine(
        "5.1",
        "WINDOW_UPDATE and RST_STREAM behind the end",
        headers(1, RESPONSE, ends=True),
        window_update(1, 9),
        rst_stream(1),
    ),
    fatal("6.1", "more padding than DATA", PROTOCOL, headers(1, RESPONSE), frame(wire.DATA, 8, 1, b"\x09abc")),
    fatal("6.5.2", "ENABLE_PUSH of a server", PROTOCOL, settings((Setting.ENABLE_PUSH, 1))),
    fatal("6.6", "PUSH_PROMISE, which was not allowed", PROTOCOL, frame(5, 4, 1, b"\0\0\0\2" + BLOCK)),
    broken("6.9", "WINDOW_UPDATE of 0 on a stream", PROTOCOL, window_update(3, 0), stream_id=3),
    broken("6.9.1", "a window above 2^31-1", ErrorCode.FLOW_CONTROL_ERROR, window_update(3, 2**31 - 1), stream_id=3),
    fine("8.1", "a response", headers(1, RESPONSE), data(1, b"x"), headers(1, TRAILERS, ends=True)),
    fine("8.1", "a response that DATA ends", headers(1, RESPONSE), data(1, b"x", ends=True)),
    fine("8.1", "padded", headers(1, RESPONSE), frame(wire.DATA, 9, 1, padded(b"x", 3))),
    fine("8.1", "an interim response", headers(1, [(b":status", b"103")]), headers(1, RESPONSE, ends=True)),
    broken(
        "8.1",
        "a response that is complete before its request",
        ErrorCode.NO_ERROR,
        headers(3, RESPONSE, ends=True),
        stream_id=3,
    ),
    broken("8.1.1", "a body longer than its content-length", PROTOCOL, headers(1, WITH_LENGTH), data(1, b"12345")),
    broken(
        "8.1.1", "a body shorter than its content-length", PROTOCOL, headers(1, WITH_LENGTH), data(1, b"123", ends=True)
    ),
    broken(
        "8.1.1",
        "trailers before the end of the content",
        PROTOCOL,
        headers(1, WITH_LENGTH),
        headers(1, TRAILERS, ends=True),
    ),
    broken("8.2.1", "a name in upper case", PROTOCOL, headers(1, [*RESPONSE, (b"X", b"y")])),
    broken("8.2.2", "a field of the connection", PROTOCOL, headers(1, [*RESPONSE, (b"connection", b"close")])),
    broken("8.3.2", "no :status", PROTOCOL, headers(1, TRAILERS)),
    broken("8.3.2", ":status twice", PROTOCOL, headers(1, [*RESPONSE, *RESPONSE])),
    broken("8.3.2", "a pseudo-header field of requests", PROTOCOL, headers(1, [*RESPONSE, (b":path", b"/")])),
]


@pytest.mark.parametrize("singly", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section} {case.title}")
def test_a_client_answers_what_a_server_sends_as_the_standard_says(case: Case, singly: bool) -> None:
    client = ClientEnd()
    exchanges = [client.open(ends=True), client.open()]
    client.output()
    receive = client.receive_singly if singly else client.receive

    frames = receive(case.sent)

    assert failures(frames) == list(case.failures)
    if case.failures[:1] and not case.failures[0][0]:
        assert not client.connection.has_room
        assert [each.reset_code for each in exchanges] == [case.failures[0][1]] * 2
        assert receive(PING) == []
    else:
        assert receive(PING) == [PONG]
        assert client.connection.has_room
        if case.failures and case.failures[0][1] not in (ErrorCode.NO_ERROR, ErrorCode.STREAM_CLOSED):
            assert client.exchanges[case.failures[0][0]].reset_code == case.failures[0][1]


def test_8_1_wrong_trailers_are_for_the_receiver_to_refuse() -> None:
    """The stream has ended with them: nothing is left to reset."""
    client = ClientEnd()
    exchange = client.open(ends=True)
    client.output()
    assert client.receive(headers(1, RESPONSE), headers(1, RESPONSE, ends=True)) == []
    assert exchange.heads == [list(RESPONSE)]


def test_8_1_interim_responses_come_before_the_response() -> None:
    client = ClientEnd()
    exchange = client.open(ends=True)
    client.receive(headers(1, [(b":status", b"103")]), headers(1, RESPONSE), headers(1, TRAILERS, ends=True))
    assert exchange.heads == [list(RESPONSE), list(TRAILERS)]


def test_3_4_a_client_begins_with_the_preface_and_settings() -> None:
    opening = opening_frames(Limits(), is_server=False)
    assert opening.startswith(wire.PREFACE)
    high, low, kind, _, _ = wire.FRAME_HEADER.unpack_from(opening, len(wire.PREFACE))
    assert kind == wire.SETTINGS
    start = len(wire.PREFACE) + wire.HEADER_BYTES
    announced = dict(wire.read_settings(opening[start : start + (high << 8 | low)]))
    assert announced[Setting.ENABLE_PUSH] == 0
    assert Setting.MAX_CONCURRENT_STREAMS not in announced


@pytest.mark.parametrize("first", [PING, frame(wire.SETTINGS, wire.ACK), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_3_4_the_servers_settings_come_first(first: bytes) -> None:
    (failure,) = failures(ClientEnd(is_greeted=False).receive(first))
    assert failure in [(0, PROTOCOL), (0, ErrorCode.FRAME_SIZE_ERROR)]


def test_5_1_2_a_client_opens_no_more_streams_than_the_server_allows() -> None:
    client = ClientEnd(Limits(streams_max=4))
    client.receive(settings((Setting.MAX_CONCURRENT_STREAMS, 2)))
    one, two = client.open(ends=True), client.open(ends=True)
    assert not client.connection.has_room
    client.receive(headers(one.stream.id, RESPONSE, ends=True))
    assert client.connection.has_room
    client.receive(settings((Setting.MAX_CONCURRENT_STREAMS, 0)))
    assert not client.connection.has_room
    client.receive(settings((Setting.MAX_CONCURRENT_STREAMS, 2**32 - 1)))
    for _ in range(3):
        assert client.connection.has_room
        client.open(ends=True)
    assert not client.connection.has_room
    assert not two.has_heard_the_end


def test_5_1_2_a_place_is_free_when_the_receiver_hears_the_end() -> None:
    client = ClientEnd(Limits(streams_max=1))
    seen = []

    class Next(Exchange):
        def on_end(self, stream: object) -> None:
            seen.append(client.connection.has_room)

    client.connection.open(b"\x83", Next(hold))
    client.receive(headers(1, RESPONSE, ends=True))
    client.connection.open(b"\x83", Next(hold))
    client.receive(headers(3, RESPONSE), data(3, b"x", ends=True))
    assert seen == [True, True]


def test_6_8_streams_that_the_server_will_not_serve_are_refused() -> None:
    client = ClientEnd()
    served, refused = client.open(ends=True), client.open(ends=True)
    client.receive(wire.goaway_frame(1, ErrorCode.NO_ERROR, "draining"))
    assert refused.reset_code == ErrorCode.REFUSED_STREAM
    assert not client.connection.has_room
    client.receive(headers(1, RESPONSE, ends=True))
    assert served.is_complete
    assert client.connection.is_done


def test_6_8_a_drain_in_two_steps_serves_what_was_on_its_way() -> None:
    client = ClientEnd()
    on_its_way = client.open(ends=True)
    client.receive(wire.goaway_frame(2**31 - 1, ErrorCode.NO_ERROR))
    assert not client.connection.has_room
    client.receive(wire.goaway_frame(1, ErrorCode.NO_ERROR))
    assert on_its_way.reset_code is None


def test_6_9_1_a_client_keeps_to_the_servers_windows() -> None:
    client = ClientEnd()
    exchange = client.open()
    client.connection.outbox.send_data(exchange.stream, bytes(100_000))
    client.connection.outbox.end(exchange.stream)
    assert len(body_of(client.written(), 1)) == wire.WINDOW_DEFAULT
    assert not client.receive(window_update(0, 100_000))
    frames = client.receive(window_update(1, 100_000))
    assert len(body_of(frames, 1)) == 100_000 - wire.WINDOW_DEFAULT
    assert frames[-1].flags == wire.END_STREAM


def test_8_1_the_end_of_a_response_is_one_event_and_no_reset() -> None:
    client = ClientEnd()
    exchange = client.open(ends=True)
    client.output()

    def reset_it(exchange: Exchange) -> None:
        client.connection.reset(exchange.stream)

    exchange._answer = reset_it
    assert client.receive(headers(1, RESPONSE), data(1, b"x"), headers(1, TRAILERS, ends=True)) == []
    assert exchange.is_complete


def test_a_cancelled_call_is_reset_and_what_is_on_its_way_is_dropped() -> None:
    client = ClientEnd()
    exchange = client.open(ends=True)
    client.output()
    client.connection.reset(exchange.stream)
    client.connection.reset(exchange.stream)
    assert failures(client.written()) == [(1, ErrorCode.CANCEL)]
    late = headers(1, RESPONSE), data(1, bytes(16_000)), headers(1, TRAILERS, ends=True)
    assert client.receive(*late, rst_stream(1)) == []
    assert not exchange.heads
    assert not exchange.body


def test_a_request_with_large_headers_goes_out_in_several_frames() -> None:
    client = ClientEnd()
    client.open([(b"k", bytes(b"v" * 40_000))], ends=True)
    frames = client.written()
    assert [each.kind for each in frames] == [wire.HEADERS, wire.CONTINUATION, wire.CONTINUATION, wire.DATA]
    assert [each.flags for each in frames] == [0, 0, wire.END_HEADERS, wire.END_STREAM]
    assert max(len(each.payload) for each in frames) == wire.FRAME_BYTES_MIN
