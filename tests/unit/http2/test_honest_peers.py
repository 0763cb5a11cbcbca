"""Honest peers, however busy, are never taken for a flood."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh.http2.hpack_encoder import encode_fields
from mesh.http2.limits import Limits
from tests.unit.fakes.http2_ends import (
    PING,
    RESPONSE,
    TRAILERS,
    ClientEnd,
    End,
    ServerEnd,
    answered,
    data,
    echo,
    headers,
    rst_stream,
    window_update,
)
from tests.unit.http2.flooding import streams, whole_request


def test_a_client_may_cancel_half_of_its_calls() -> None:
    server = ServerEnd(answer=lambda exchange: echo(exchange) if exchange.stream.id % 4 == 1 else None)
    for it in range(1, 40_001, 4):
        server.receive(whole_request(it), whole_request(it + 2), rst_stream(it + 2))
    assert server.connection.fault is None
    assert len(server.exchanges) == 20_000


def test_a_client_may_cancel_all_its_calls_at_once() -> None:
    server = ServerEnd()
    server.receive(*map(whole_request, streams(1_000)))
    server.receive(*map(rst_stream, streams(1_000)))
    assert server.connection.fault is None


def test_a_client_may_cancel_streams_that_have_begun_to_answer() -> None:
    server = ServerEnd()
    for it in streams(5_000):
        server.receive(whole_request(it))
        server.connection.outbox.send_headers(server.exchanges[it].stream, encode_fields(RESPONSE))
        server.receive(rst_stream(it))
    assert server.connection.fault is None


def test_an_overload_in_which_every_call_reaches_its_deadline_is_no_attack() -> None:
    """Stock gRPC clients say with each request that they can take more of the response."""
    server = ServerEnd()
    last = 1
    for _ in range(60):
        opened = range(last, last + 1_000, 2)
        last += 1_000
        server.receive(*(whole_request(it) + window_update(it, 5) + window_update(0, 5) for it in opened))
        server.clock.advance(0.2)
        server.receive(*map(rst_stream, opened))
    assert server.connection.fault is None
    assert len(server.exchanges) == 30_000


def test_a_client_may_widen_the_window_of_each_of_very_many_streams_at_once() -> None:
    """As stock gRPC clients do with each request."""
    server = ServerEnd(Limits(streams_max=5_000))
    server.receive(*(whole_request(it) + window_update(it, 5) for it in streams(5_000)))
    assert server.connection.fault is None
    assert len(server.exchanges) == 5_000


def test_a_client_may_acknowledge_every_small_message_twice() -> None:
    server = ServerEnd()
    server.receive(headers(1))
    stream = server.exchanges[1].stream
    server.connection.outbox.send_headers(stream, encode_fields(RESPONSE))
    for _ in range(20_000):
        server.connection.outbox.send_message(stream, b"ten bytes.")
        assert server.written()
        server.receive(window_update(0, 15), window_update(1, 15))
    assert server.connection.fault is None


def test_small_calls_may_be_acknowledged_on_stream_and_connection() -> None:
    server = ServerEnd(answer=echo)
    for it in streams(20_000):
        assert answered(server.receive(whole_request(it))) == [it]
        server.receive(window_update(0, 7), window_update(it, 7))
    assert server.connection.fault is None


@pytest.mark.parametrize("end", [ServerEnd, ClientEnd])
def test_a_ping_every_second_for_ten_hours(end: Callable[[], End]) -> None:
    tested = end()
    for _ in range(36_000):
        tested.receive(PING)
        tested.clock.advance(1.0)
    assert tested.connection.fault is None


def test_uploads_that_are_refused_early_do_no_harm() -> None:
    """What the client had sent before it read the answer arrives later."""
    server = ServerEnd()
    for it in streams(2_000):
        server.receive(headers(it))
        server.connection.outbox.send_headers(server.exchanges[it].stream, encode_fields(TRAILERS), ends=True)
        late = data(it, bytes(16_000)) * 8
        server.receive(late[:70_000])
        server.receive(late[70_000:], rst_stream(it))
    assert server.connection.fault is None


def test_a_client_that_cancels_does_not_blame_its_server() -> None:
    client = ClientEnd()
    for _ in range(5_000):
        exchange = client.open(ends=True)
        client.connection.reset(exchange.stream)
        it = exchange.stream.id
        client.receive(headers(it, RESPONSE), data(it, b"x"), data(it, b"x"), headers(it, TRAILERS, ends=True))
        client.output()
    assert client.connection.fault is None


def test_a_busy_client_keeps_its_connection() -> None:
    client = ClientEnd()
    for _ in range(10_000):
        exchange = client.open(ends=True)
        it = exchange.stream.id
        client.receive(headers(it, RESPONSE), data(it, b"x"), headers(it, TRAILERS, ends=True), window_update(it, 100))
        client.output()
        assert exchange.is_complete
    assert client.connection.fault is None
