"""A connection on a socket that is not there: requests in their order, answers, tunnels and drains."""

from __future__ import annotations

import logging

import pytest

from gateway.requests.exchange import BrokenBy, Exchange
from tests.unit.fakes.http1_ends import Client, answers, on_loop, request

PLAIN = [(b"content-type", b"text/plain")]


def ok(exchange: Exchange) -> None:
    exchange.send_whole(200, PLAIN, b"ok")


# ---- Requests --------------------------------------------------------------------------------------------------------


@on_loop
def test_a_request_is_answered_in_one_write() -> None:
    client = Client(ok).send(request())
    ((status, fields, body),) = answers(client.written())
    assert (status, body, fields["content-length"], fields["content-type"]) == (200, b"ok", "2", "text/plain")
    assert fields["date"].endswith("GMT")
    assert "connection" not in fields
    assert client.transport.writes == 1
    assert not client.transport.is_closed


@on_loop
def test_a_body_arrives_in_pieces_and_then_ends() -> None:
    client = Client().send(request("POST / HTTP/1.1", "content-length: 10"), b"hello", b"world")
    (keeper,) = client.keepers
    assert (keeper.body, keeper.ends) == (b"helloworld", 1)


@on_loop
def test_requests_arrive_byte_by_byte() -> None:
    data = request("POST / HTTP/1.1", "transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\nx: y\r\n\r\n") + request()
    client = Client().send(*(data[at : at + 1] for at in range(len(data))))
    (keeper,) = client.keepers
    assert (keeper.body, keeper.ends) == (b"abc", 1)
    keeper.exchange.send_whole(200, [], b"")
    assert len(client.keepers) == 2


@on_loop
def test_requests_sent_at_once_are_answered_in_order_one_at_a_time() -> None:
    client = Client().send(b"".join(request(f"GET /{number} HTTP/1.1") for number in range(5)))
    for number in range(5):
        assert len(client.keepers) == number + 1
        client.keepers[number].exchange.send_whole(200, [], b"%d" % number)
    assert [body for _, _, body in answers(client.written())] == [b"0", b"1", b"2", b"3", b"4"]
    assert [each.head.path for each in client.exchanges] == ["/0", "/1", "/2", "/3", "/4"]


@on_loop
def test_equal_heads_are_read_once() -> None:
    client = Client(ok).send(request() * 3)
    assert len({id(each.head) for each in client.exchanges}) == 1


@on_loop
def test_a_client_that_sends_ahead_is_not_read_on() -> None:
    client = Client()
    client.send(request(), request() * 100)
    assert client.transport.is_reading
    client.send(request() * 5_000)
    assert not client.transport.is_reading
    assert len(client.keepers) == 1


@on_loop
def test_options_of_the_server_itself() -> None:
    client = Client().send(request("OPTIONS * HTTP/1.1"))
    assert client.statuses == [204]
    assert not client.keepers


@on_loop
def test_100_continue_is_sent_when_a_receiver_waits_for_the_body() -> None:
    client = Client().send(request("PUT / HTTP/1.1", "expect: 100-continue", "content-length: 3"))
    assert client.written() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"abc")
    assert client.keepers[0].body == b"abc"


@on_loop
def test_a_client_of_http_1_0_gets_no_100_continue() -> None:
    """It would take that for the answer."""
    client = Client().send(request("PUT / HTTP/1.0", "expect: 100-continue", "content-length: 3"))
    assert client.written() == b""
    client.send(b"abc")
    assert client.keepers[0].body == b"abc"


@on_loop
def test_no_100_continue_for_a_request_that_is_refused() -> None:
    client = Client(lambda exchange: exchange.send_whole(404, [], b"") and None)
    client.send(request("PUT / HTTP/1.1", "expect: 100-continue", "content-length: 3"))
    ((status, fields, _),) = answers(client.written())
    assert (status, fields["connection"]) == (404, "close")
    assert client.transport.is_half_closed


# ---- Answers ---------------------------------------------------------------------------------------------------------


@on_loop
def test_a_streamed_answer_comes_in_chunks_with_trailers() -> None:
    client = Client().send(request("GET / HTTP/1.1", "te: trailers"))
    exchange = client.keepers[0].exchange
    exchange.send_head(200, [])
    for piece in (b"a", b"", memoryview(b"bc")):
        assert exchange.send_body(piece)
    exchange.end([(b"x-sum", b"3")])
    ((_, fields, body),) = answers(client.written())
    assert (body, fields["transfer-encoding"], fields["trailer x-sum"]) == (b"abc", "chunked", "3")


@on_loop
def test_trailers_are_kept_from_a_client_that_does_not_take_them() -> None:
    client = Client().send(request())
    exchange = client.keepers[0].exchange
    exchange.send_head(200, [])
    exchange.end([(b"x-sum", b"3")])
    assert b"x-sum" not in client.written()


@on_loop
def test_head_204_and_304_have_no_body() -> None:
    client = Client(ok).send(request("HEAD / HTTP/1.1"))
    ((status, fields, body),) = answers(client.written(), b"HEAD")
    assert (status, fields["content-length"], body) == (200, "2", b"")
    for status in (204, 304):
        client = Client(lambda exchange, status=status: exchange.send_whole(status, [], b"") and None)
        assert client.send(request()).written().endswith(b"\r\n\r\n")


@on_loop
def test_a_streamed_answer_to_head_has_no_body() -> None:
    client = Client().send(request("HEAD / HTTP/1.1"))
    exchange = client.keepers[0].exchange
    exchange.send_head(200, [(b"content-length", b"5")])
    exchange.send_body(b"hello")
    exchange.end()
    assert client.written().endswith(b"content-length: 5\r\n\r\n")
    client.send(request())
    assert len(client.keepers) == 2


@on_loop
def test_http_1_0_gets_no_chunks() -> None:
    client = Client().send(b"GET / HTTP/1.0\r\n\r\n")
    exchange = client.keepers[0].exchange
    exchange.send_head(200, [])
    exchange.send_body(b"hello")
    exchange.end()
    head, _, body = client.written().partition(b"\r\n\r\n")
    assert body == b"hello"
    assert b"transfer-encoding" not in head
    assert client.transport.is_closed


@on_loop
def test_http_1_0_keeps_the_connection_where_it_asks_to_and_the_length_is_known() -> None:
    client = Client(ok).send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" * 2)
    assert [fields["connection"] for _, fields, _ in answers(client.written())] == ["keep-alive"] * 2
    assert not client.transport.is_closed


@on_loop
def test_a_client_that_says_close_gets_it() -> None:
    client = Client(ok).send(request("GET / HTTP/1.1", "connection: close"))
    ((_, fields, _),) = answers(client.written())
    assert fields["connection"] == "close"
    assert client.transport.is_closed


@on_loop
def test_an_answer_may_close_the_connection() -> None:
    client = Client(lambda exchange: exchange.send_whole(200, [(b"connection", b"close")], b"") and None)
    client.send(request())
    assert client.transport.is_closed


@pytest.mark.parametrize(
    "wrong",
    [
        [(b"x", b"a\r\nset-cookie: b")],
        [(b"x", b"a\nb")],
        [(b"x\r\ny", b"a")],
        [(b"x y", b"a")],
        [(b"x", b"a\0b")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"7")],
    ],
)
@on_loop
def test_an_answer_that_is_no_http_gets_500_back(
    wrong: list[tuple[bytes, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, "mesh.gateway"):
        client = Client(lambda exchange: exchange.send_whole(200, wrong, b"ok") and None)
        client.send(request())
    ((status, fields, _),) = answers(client.written())
    assert (status, "set-cookie" in fields) == (500, False)


@on_loop
def test_an_answer_shorter_than_its_length_is_not_complete(caplog: pytest.LogCaptureFixture) -> None:
    for body, is_end in ((b"hell", True), (b"hello!", False)):
        client = Client().send(request())
        exchange = client.keepers[-1].exchange
        exchange.send_head(200, [(b"content-length", b"5")])
        with caplog.at_level(logging.CRITICAL, "mesh.gateway"):
            exchange.send_body(body)
            if is_end:
                exchange.end()
        assert client.transport.is_closed
        assert len(client.written().partition(b"\r\n\r\n")[2]) < 5


@on_loop
def test_an_exchange_that_has_ended_does_nothing_any_more() -> None:
    client = Client().send(request() * 2)
    first = client.keepers[0].exchange
    first.send_whole(200, [], b"1")
    assert client.statuses == [200]
    first.send_head(500, [])
    first.send_body(b"x")
    first.send_whole(500, [], b"")
    first.end()
    first.give_room(5)
    first.abort()
    assert client.written() == b""
    assert first.has_ended
    assert not client.keepers[1].broken


@on_loop
def test_an_aborted_answer_is_not_complete_for_the_client() -> None:
    for version, is_reset in (("1.1", False), ("1.0", True)):
        client = Client().send(request(f"GET / HTTP/{version}"))
        exchange = client.keepers[0].exchange
        exchange.send_head(200, [])
        exchange.send_body(b"a part")
        exchange.abort()
        assert (client.transport.is_closed, client.transport.is_aborted) == (True, is_reset)
        assert not client.written().endswith(b"0\r\n\r\n")
        client.leave()
        assert (client.keepers[0].broken, client.in_flight.count) == ([], 0)


# ---- Tunnels ---------------------------------------------------------------------------------------------------------

HANDSHAKE = request(
    "GET /chat HTTP/1.1", "connection: upgrade", "upgrade: websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
)


@on_loop
def test_a_websocket_is_opened_as_the_rfc_shows_it() -> None:
    """The key and its answer are those of RFC 6455 §1.3."""
    client = Client().send(HANDSHAKE)
    (keeper,) = client.keepers
    assert keeper.ends == 0
    keeper.exchange.open_tunnel([(b"sec-websocket-protocol", b"chat")])
    head = client.written().decode()
    assert head.startswith("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n")
    assert "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert "sec-websocket-protocol: chat\r\n" in head
    client.send(b"\x81\x00GET", b"more")
    assert keeper.body == b"\x81\x00GETmore"
    keeper.exchange.send_body(b"back")
    assert client.written() == b"back"
    keeper.exchange.end()
    assert client.transport.is_half_closed
    client.send(b"what its client still sends").leave()
    assert keeper.body == b"\x81\x00GETmore"


@on_loop
def test_a_tunnel_whose_last_bytes_wait_for_the_socket_closes_only_our_side_behind_them() -> None:
    """To close a socket with unread bytes breaks it, and the client may never see the close frame."""
    client = Client().send(HANDSHAKE)
    (keeper,) = client.keepers
    keeper.exchange.open_tunnel([])
    client.transport.is_stuck = True
    keeper.exchange.send_body(b"first")
    keeper.exchange.send_body(b"last")
    keeper.exchange.end()
    assert not client.transport.is_half_closed
    client.let_write()
    assert client.written().endswith(b"firstlast")
    assert client.transport.is_half_closed
    assert not client.transport.is_closed


@on_loop
def test_bytes_behind_a_handshake_wait_for_the_tunnel() -> None:
    client = Client().send(HANDSHAKE + b"early")
    (keeper,) = client.keepers
    assert keeper.body == b""
    keeper.exchange.open_tunnel([])
    assert keeper.body == b"early"


@on_loop
def test_a_websocket_may_be_refused() -> None:
    client = Client(lambda exchange: exchange.send_whole(403, [], b"no") and None).send(HANDSHAKE + request())
    assert client.statuses == [403, 403]


@on_loop
def test_only_a_handshake_opens_a_tunnel() -> None:
    client = Client().send(request())
    client.keepers[0].exchange.open_tunnel([])
    assert client.written() == b""


# ---- Life ------------------------------------------------------------------------------------------------------------


@on_loop
def test_a_drain_lets_requests_finish_and_answers_those_on_their_way() -> None:
    quiet, busy, arriving = Client(ok).send(request()), Client().send(request()), Client(ok).send(b"GET / HT")
    quiet.written()
    for each in (quiet, busy, arriving):
        each.connection.drain()
    assert not any(each.transport.is_closed for each in (quiet, busy, arriving))
    quiet.send(request())
    busy.keepers[0].exchange.send_whole(200, [], b"")
    arriving.send(b"TP/1.1\r\nhost: a\r\n\r\n")
    for each in (quiet, busy, arriving):
        ((_, fields, _),) = answers(each.written())
        assert fields["connection"] == "close"
        assert each.transport.is_closed


@on_loop
def test_an_announced_drain_closes_a_connection_behind_its_next_answer() -> None:
    client = Client(ok)
    client.connection.is_draining = True
    assert not client.transport.is_closed
    assert "close" in answers(client.send(request()).written())[0][1]["connection"]
    assert client.transport.is_closed


@on_loop
def test_an_abort_breaks_the_exchange() -> None:
    client = Client().send(request())
    client.connection.abort("the server stops")
    assert client.keepers[0].broken == [BrokenBy.DRAIN]
    assert client.transport.is_aborted
    assert client.connection.lost_reason == "the server stops"
