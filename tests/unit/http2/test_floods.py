"""Floods: peers that cost work and bring none run dry soon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.frame_format import ErrorCode, Setting
from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from mesh.http2.upkeep import Upkeep, UpkeepClock, UpkeepPolicy, Vitals
from tests.unit.fakes.http2_ends import (
    PING,
    REQUEST,
    TRAILERS,
    ClientEnd,
    End,
    Exchange,
    ServerEnd,
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
from tests.unit.http2.flooding import BURST, CALM, each_stream, end_rest, flood, streams, whole_request, work

PRIORITY = frame(wire.PRIORITY, 0, 1, b"\0\0\0\0\x0f")
LARGE_FIELD = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4_000


# ---- Floods that end -------------------------------------------------------------------------------------------------

OF_THE_CONNECTION = {
    "PING (CVE-2019-9512)": PING,
    "answers to no PING": wire.ping_frame(b"8 bytes.", wire.ACK),
    "SETTINGS (CVE-2019-9515)": settings(),
    "SETTINGS with 2,730 parameters": settings(*[(Setting.INITIAL_WINDOW_SIZE, 1)] * 2_730),
    "acknowledgements of SETTINGS": frame(wire.SETTINGS, wire.ACK),
    "WINDOW_UPDATE byte by byte": window_update(0, 1),
    "frames of unknown type": frame(0x99),
    "large frames of unknown type": frame(0x99, payload=bytes(16_000)),
    "GOAWAY": wire.goaway_frame(2**31 - 1, ErrorCode.NO_ERROR),
    "PRIORITY (CVE-2019-9513)": PRIORITY,
}


@pytest.mark.parametrize("end", [ServerEnd, ClientEnd])
@pytest.mark.parametrize("title", OF_THE_CONNECTION)
def test_frames_that_bring_nothing_end_the_connection(end: Callable[[], End], title: str) -> None:
    tested = end()
    flood(tested, [OF_THE_CONNECTION[title]] * 12_000)
    assert tested.connection.fault is not None
    assert tested.connection.fault.code is CALM


ON_A_STREAM = {
    "empty DATA (CVE-2019-9518)": data(1),
    "padding only": frame(wire.DATA, wire.PADDED, 1, padded(b"", 200)),
    "WINDOW_UPDATE of a stream, byte by byte": window_update(1, 1),
    "RST_STREAM again and again": rst_stream(1),
}
ON_AN_ENDED_STREAM = {
    "WINDOW_UPDATE": window_update(1, 5_000),
    "empty DATA": data(1),
    "DATA of one byte": data(1, b"x"),
    "RST_STREAM": rst_stream(1),
}


@pytest.mark.parametrize("title", ON_A_STREAM)
def test_frames_that_bring_nothing_on_a_stream_end_the_connection(title: str) -> None:
    server = ServerEnd()
    server.receive(headers(1))
    flood(server, [ON_A_STREAM[title]] * 10_000)
    assert server.connection.fault is not None
    assert server.connection.fault.code is CALM


@pytest.mark.parametrize("title", ON_AN_ENDED_STREAM)
@pytest.mark.parametrize("is_ours", [False, True])
def test_frames_of_a_stream_that_has_ended_end_the_connection(title: str, is_ours: bool) -> None:
    server = ServerEnd()
    server.receive(headers(1))
    if is_ours:
        server.connection.reset(server.exchanges[1].stream)
    else:
        server.receive(rst_stream(1))
    flood(server, [ON_AN_ENDED_STREAM[title]] * 300_000)
    assert server.connection.fault is not None
    assert server.connection.fault.code is (ErrorCode.FLOW_CONTROL_ERROR if title == "DATA of one byte" else CALM)


RESETS = {
    "rapid reset (CVE-2023-44487)": (headers, rst_stream),
    "rapid reset of whole requests": (whole_request, rst_stream),
    "streams that are refused": (lambda stream_id: headers(stream_id),),
}
MADE_YOU_RESET = {
    "a window of 0": (headers, lambda it: window_update(it, 0)),
    "a window too large": (headers, lambda it: window_update(it, 2**31 - 1)),
    "DATA behind the end": (whole_request, lambda it: data(it, b"x")),
    "HEADERS behind the end": (whole_request, lambda it: headers(it, TRAILERS, ends=True)),
    "HEADERS within a request": (headers, headers),
    "a wrong content-length": (lambda it: headers(it, [*REQUEST, (b"content-length", b"1")]) + data(it, b"ab"),),
    "a malformed request": (lambda it: headers(it, [*REQUEST, (b"connection", b"close")]),),
    "trailers with a pseudo-header field": (headers, lambda it: headers(it, REQUEST, ends=True)),
}


@pytest.mark.parametrize("title", [*RESETS, *MADE_YOU_RESET])
def test_requests_that_end_at_once_end_the_connection(title: str) -> None:
    """Resets by the client, and those that it makes the server send (CVE-2025-8671)."""
    server = ServerEnd()
    opened = flood(server, each_stream(*{**RESETS, **MADE_YOU_RESET}[title]))
    assert server.connection.fault is not None
    assert server.connection.fault.code is CALM
    assert opened < 4 * BURST
    assert len(server.exchanges) <= BURST + Limits().streams_max
    end_rest(server)
    assert not server.connection.streams


@pytest.mark.parametrize("status", [b"100", b"103", b"200"])
def test_a_response_with_ever_more_headers_ends_the_connection(status: bytes) -> None:
    client = ClientEnd()
    exchange = client.open(ends=True)
    flood(client, [headers(1, [(b":status", status)])] * 10_000)
    assert exchange.has_heard_the_end
    assert client.connection.fault is not None
    assert client.connection.fault.code is CALM


def test_many_responses_may_begin_at_once() -> None:
    client = ClientEnd(Limits(control_burst=10))
    client.receive(*(headers(client.open(ends=True).stream.id, [(b":status", b"200")]) for _ in range(1_000)))
    assert client.connection.fault is None


def test_requests_that_are_answered_do_not_pay_for_a_rapid_reset() -> None:
    """One call of twenty is honest."""
    server = ServerEnd(answer=lambda exchange: echo(exchange) if exchange.stream.id % 40 == 1 else None)
    flood(server, each_stream(whole_request, lambda it: b"" if it % 40 == 1 else rst_stream(it)))
    assert server.connection.fault is not None
    assert len(server.exchanges) < 3 * BURST


@pytest.mark.parametrize("size", [0, 1, 16_384])
def test_a_header_block_that_does_not_end(size: int) -> None:
    """CVE-2024-27316."""
    server = ServerEnd()
    sent = flood(server, [headers(1)[:3] + b"\x01\0" + headers(1)[5:], *[frame(9, 0, 1, bytes(size))] * 5_000])
    assert server.connection.fault is not None
    assert server.connection.fault.code is CALM
    assert sent < 6_000
    assert not server.exchanges


def test_a_header_block_in_one_frame_is_limited_too() -> None:
    server = ServerEnd(Limits(frame_max_bytes=2**20))
    assert failures(server.receive(frame(wire.HEADERS, 4, 1, encode_fields([(b"k", bytes(66_000))])))) == [(0, CALM)]
    assert str(server.connection.fault) == "header block too long"


@pytest.mark.parametrize(
    ("kind", "flags", "stream_id"), [(wire.SETTINGS, 0, 0), (wire.DATA, wire.PADDED, 1), (99, 0, 0)]
)
def test_only_data_may_come_in_frames_that_are_larger_than_a_header_block(
    kind: int, flags: int, stream_id: int
) -> None:
    """All others are kept until they are complete; so the beginning of such a frame ends the connection."""
    server = ServerEnd(Limits(frame_max_bytes=2**20))
    server.receive(headers(1))
    begun = frame(kind, flags, stream_id, bytes(66_000))[:100]
    assert failures(server.receive(begun)) == [(0, CALM)]


def test_data_in_large_frames_arrives_piece_by_piece() -> None:
    server = ServerEnd(Limits(frame_max_bytes=2**20))
    server.receive(headers(1))
    server.receive(data(1, bytes(200_000))[:150_000])
    assert len(server.exchanges[1].body) == 150_000 - wire.HEADER_BYTES


def test_a_header_block_is_limited_over_all_its_frames() -> None:
    server = ServerEnd()
    server.receive(frame(wire.HEADERS, 0, 1, bytes(16_384)), *[frame(9, 0, 1, bytes(16_384))] * 3)
    assert server.connection.fault is None
    assert failures(server.receive(frame(9, 0, 1, b"x"))) == [(0, CALM)]


def test_a_bomb_of_headers() -> None:
    server = ServerEnd()
    server.receive(frame(wire.HEADERS, 4, 1, encode_fields(REQUEST) + LARGE_FIELD))
    bomb = frame(wire.HEADERS, 4, 3, b"\xbe" * 16_000)
    assert work(lambda: server.connection.receive(bomb)) < 1_000
    assert server.connection.fault is not None
    assert server.connection.fault.code is CALM


def test_headers_without_names_and_values_are_counted() -> None:
    """CVE-2019-9516."""
    server = ServerEnd()
    assert failures(server.receive(frame(wire.HEADERS, 4, 1, b"\0\0\0" * 5_000))) == [(0, CALM)]


# ---- Peers that do not take what they ask for ------------------------------------------------------------------------


@pytest.mark.parametrize("question", [PING, settings()])
def test_answers_that_are_not_read_are_limited(question: bytes) -> None:
    server = ServerEnd(Limits(control_burst=1_000_000))
    server.connection.outbox.is_paused = True
    sent = flood(server, [question] * 10_000)
    assert server.connection.fault is not None
    assert server.connection.fault.code is CALM
    assert sent < 8_000


def test_a_peer_that_reads_in_between_owes_nothing() -> None:
    server = ServerEnd(Limits(control_burst=1_000_000))
    for _ in range(10):
        server.connection.outbox.is_paused = True
        server.receive(*[PING] * 900)
        server.connection.outbox.resume()
    assert server.connection.fault is None


def answer_without_a_message(exchange: Exchange) -> None:
    exchange.stream.connection.outbox.send_headers(exchange.stream, encode_fields(TRAILERS), ends=True)


@pytest.mark.parametrize("answer", [echo, answer_without_a_message])
def test_requests_whose_answers_are_not_read_are_limited(answer: Callable[[Exchange], None]) -> None:
    """CVE-2019-9517."""
    server = ServerEnd(answer=answer)
    server.connection.outbox.is_paused = True
    flood(server, each_stream(whole_request))
    assert server.connection.fault is not None
    assert len(server.exchanges) == Limits().streams_max


def test_answers_that_are_not_read_are_limited_though_their_requests_are_reset() -> None:
    """Their headers have been written."""
    server = ServerEnd(answer=echo)
    server.connection.outbox.is_paused = True
    flood(server, each_stream(whole_request, rst_stream))
    assert server.connection.fault is not None
    assert len(server.exchanges) < 3 * BURST


def test_requests_whose_answers_have_no_window_are_limited() -> None:
    server = ServerEnd(answer=echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 0),))
    flood(server, each_stream(whole_request))
    assert server.connection.fault is not None
    assert len(server.exchanges) == Limits().streams_max
    end_rest(server)
    assert server.connection.outbox.pending_bytes == 0


def test_a_window_that_is_opened_byte_by_byte_on_many_streams() -> None:
    server = ServerEnd(
        Limits(stream_window_bytes=2**20),
        lambda exchange: echo(exchange),
        client_settings=((Setting.INITIAL_WINDOW_SIZE, 0),),
    )
    server.receive(*(headers(it) + data(it, bytes(10_000), ends=True) for it in streams(100)))
    updates = flood(server, (window_update(it, 1) for _ in range(1_000) for it in streams(100)))
    assert server.connection.fault is not None
    assert server.connection.fault.code is CALM
    assert updates < 10_000


def test_a_connection_window_that_is_opened_byte_by_byte() -> None:
    server = ServerEnd(answer=echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 2**20),))
    server.receive(*(headers(it) + data(it, bytes(10_000), ends=True) for it in streams(100)))
    for _ in range(20 * BURST):
        server.receive(window_update(0, 1))
    assert server.connection.fault is not None
    assert server.connection.fault.code is CALM


def test_a_header_block_that_drips_is_found_by_the_clock() -> None:
    """No frame is complete, so there is nothing to count."""
    server = ServerEnd()
    policy, clock = UpkeepPolicy(), UpkeepClock(0)
    found = None
    for second, byte in enumerate(headers(1)[:-1]):
        server.receive(bytes((byte,)))
        vitals = Vitals(second, 0, server.connection.reader.awaited_stream, is_paused=False, is_draining=False)
        found = found or clock.check(vitals, policy, second)
    assert found is Upkeep.SLOW


# ---- Work per byte ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [PING, window_update(0, 5_000), window_update(1, 2_000), headers(20_001, ends=True), settings(), PRIORITY],
    ids=["PING", "WINDOW_UPDATE", "WINDOW_UPDATE of a stream", "HEADERS", "SETTINGS", "PRIORITY"],
)
def test_streams_that_wait_make_no_other_frame_expensive(sent: bytes) -> None:
    def calls(parked: int) -> int:
        server = ServerEnd(answer=echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 0),))
        server.receive(headers(1))
        server.receive(*(headers(it) + data(it, b"x", ends=True) for it in streams(parked) if it > 1))
        assert len(server.connection.streams) == parked
        return work(lambda: server.receive(sent))

    assert calls(900) <= calls(2) + 10


def test_a_new_initial_window_costs_the_peer_as_much_as_us() -> None:
    server = ServerEnd(client_settings=((Setting.INITIAL_WINDOW_SIZE, 0),))
    server.receive(*map(headers, streams(1_000)))
    toggles = [settings((Setting.INITIAL_WINDOW_SIZE, value)) for value in (5, 6)] * 500
    calls = work(lambda: server.connection.receive(b"".join(toggles)))
    assert server.connection.fault is not None
    assert calls < 60 * BURST


def test_a_drip_of_single_bytes_costs_a_few_calls_each() -> None:
    server = ServerEnd()
    request = headers(1) + data(1, bytes(1_000))
    calls = work(lambda: [server.connection.receive(bytes((byte,))) for byte in request])
    assert calls < 30 * len(request)


# ---- Memory ----------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_streams_that_have_ended() -> None:
    server = ServerEnd(Limits(control_burst=10**6), echo, client_settings=((Setting.INITIAL_WINDOW_SIZE, 2**20),))
    outbox = server.connection.outbox
    server.receive(*(headers(it) + data(it, bytes(1_000), ends=True) for it in streams(100)))
    assert outbox.window == 0
    assert outbox.pending_bytes == 100_000 - wire.WINDOW_DEFAULT
    for it in range(201, 20_001, 2):
        server.receive(headers(it), data(it, bytes(1_000), ends=True), rst_stream(it))
    assert len(outbox._ready) == len(server.connection.streams) <= 100
    assert outbox.pending_bytes == 100_000 - wire.WINDOW_DEFAULT
    server.receive(*map(rst_stream, streams(100)))
    assert not outbox._ready
    assert outbox.pending_bytes == 0


def test_what_is_remembered_of_streams_is_bounded() -> None:
    server = ServerEnd(Limits(control_burst=10**6, streams_max=1))
    server.receive(*(headers(it) for it in range(1, 40_001, 4)))
    assert len(server.connection._recent_resets._windows) <= 1_024
    assert len(server.connection._gaps) <= 64


def test_data_on_its_way_to_a_stream_that_was_reset_is_bounded() -> None:
    server = ServerEnd()
    server.receive(headers(1))
    server.connection.reset(server.exchanges[1].stream)
    frames = [data(1, bytes(16_384))] * 16
    assert failures(server.receive(*frames)) == [(1, ErrorCode.CANCEL)]
    assert failures(server.receive(data(1, b"x"))) == [(0, ErrorCode.FLOW_CONTROL_ERROR)]
