"""Flow control and ends of a connection without a socket: clients that do not read, that leave, and early answers."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.http1.http1_limits import Http1Limits
from gateway.requests.exchange import BrokenBy, Exchange
from mesh.http2.limits import BufferBudget
from mesh.http2.write_turn import write_turn
from tests.unit.fakes.http1_ends import Client, Keeper, answers, on_loop, request
from tests.unit.gateway.fakes import until

PLAIN = [(b"content-type", b"text/plain")]


def ok(exchange: Exchange) -> None:
    exchange.send_whole(200, PLAIN, b"ok")


# ---- Flow control ----------------------------------------------------------------------------------------------------


@on_loop
def test_a_receiver_that_gives_no_room_stops_the_client() -> None:
    limits = Http1Limits(body_window_bytes=1_000)
    client = Client(lambda exchange: client.keepers.append(Keeper(exchange, slow=True)) or client.keepers[-1], limits)
    client.send(request("POST / HTTP/1.1", "content-length: 100000"), bytes(999))
    assert client.transport.is_reading
    client.send(bytes(10))
    assert not client.transport.is_reading
    (keeper,) = client.keepers
    keeper.exchange.give_room(500)
    assert not client.transport.is_reading
    keeper.exchange.give_room(500)
    assert client.transport.is_reading


@on_loop
def test_a_socket_that_lingers_behind_the_last_step_of_a_turn_is_read() -> None:
    client = Client(lambda exchange: ok(exchange))
    client.send(request() * 15 + request("GET / HTTP/1.1", "connection: close") + request())
    assert client.transport.is_half_closed
    assert client.transport.is_reading


def test_behind_a_large_read_the_loop_has_its_turn() -> None:
    """uvloop reads on in one turn while there is more, which for 8 MB of tiny chunks takes seconds."""

    async def scenario() -> None:
        client = Client()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        assert client.transport.is_reading
        client.send(b"1\r\nx\r\n" * 12_000)
        assert not client.transport.is_reading
        await until(lambda: client.transport.is_reading, "the next turns")
        client.send(b"0\r\n\r\n")
        assert (len(client.keepers[0].body), client.keepers[0].ends) == (12_000, 1)

    asyncio.run(scenario())


def test_what_requests_of_several_connections_have_to_write_leaves_together_and_of_a_lone_one_at_once() -> None:
    """To a link. A lone request does not wait for the loop to look at other sockets."""

    async def scenario() -> None:
        written: list[str] = []

        def opened(exchange: Exchange) -> Keeper:
            path = exchange.head.path
            write_turn().add(lambda: written.append(path))
            return Keeper(exchange)

        first = Client(opened)
        first.send(request("GET /alone HTTP/1.1"))
        assert written == ["/alone"]
        for _ in range(2):
            Client(opened, in_flight=first.in_flight).send(request("GET /beside HTTP/1.1"))
        assert written == ["/alone"]
        await asyncio.sleep(0)
        assert written == ["/alone", "/beside", "/beside"]

    asyncio.run(scenario())


@on_loop
def test_what_the_socket_does_not_take_waits_within_the_budget() -> None:
    client = Client(budget=BufferBudget(1_000))
    client.send(request())
    (keeper,) = client.keepers
    exchange = keeper.exchange
    exchange.send_head(200, [(b"content-length", b"1000")])
    client.transport.is_stuck = True
    assert exchange.send_body(bytes(200))
    assert exchange.is_blocked
    assert exchange.send_body(bytes(400))
    assert exchange.share.used_bytes == client.budget.used_bytes == 400
    assert not exchange.send_body(bytes(400))
    client.let_write()
    assert (keeper.writable, client.budget.used_bytes, exchange.is_blocked) == (1, 0, False)
    assert exchange.send_body(bytes(400))
    exchange.end()
    assert len(answers(client.written())[0][2]) == 1_000


@on_loop
def test_a_client_that_does_not_read_gets_no_further_answers() -> None:
    client = Client(ok).send(request())
    client.transport.is_stuck = True
    client.send(request() * 10)
    assert len(client.exchanges) == 2
    client.let_write()
    assert len(client.exchanges) == 11


@on_loop
def test_a_turn_of_tiny_chunks_is_short() -> None:
    """Fifty clients that send them delay the others by as many turns, and a turn takes 0.3 ms."""
    client = Client().send(request("POST / HTTP/1.1", "transfer-encoding: chunked"), b"1\r\nx\r\n" * 20_000)
    assert 0 < len(client.keepers[0].body) < 200


@on_loop
def test_a_large_answer_goes_out_in_pieces() -> None:
    client = Client().send(request("GET / HTTP/1.1", "connection: close"))
    client.transport.is_stuck = True
    assert client.keepers[0].exchange.send_whole(200, [], bytes(1_000_000))
    assert 500_000 < client.budget.used_bytes <= 1_000_000
    assert client.in_flight.count == 0
    while client.budget.used_bytes:
        assert not client.transport.is_closed
        client.connection.resume_writing()
    client.let_write()
    assert len(answers(client.written())[0][2]) == 1_000_000
    assert client.transport.is_closed


@on_loop
def test_what_waits_for_a_client_that_leaves_is_given_back() -> None:
    client = Client().send(request())
    client.transport.is_stuck = True
    client.keepers[0].exchange.send_whole(200, [], bytes(1_000_000))
    client.leave()
    assert client.budget.used_bytes == 0


# ---- Ends ------------------------------------------------------------------------------------------------------------


@on_loop
def test_a_client_that_leaves_breaks_its_exchange() -> None:
    client = Client().send(request())
    client.leave()
    assert client.keepers[0].broken == [BrokenBy.CLIENT]
    assert client.keepers[0].exchange.has_ended
    assert client.lost == [client.connection]
    assert client.in_flight.count == 0


@on_loop
def test_a_client_that_leaves_in_the_middle_of_a_body() -> None:
    client = Client().send(request("POST / HTTP/1.1", "content-length: 5"), b"he")
    client.connection.eof_received()
    assert (client.keepers[0].broken, client.keepers[0].ends) == ([BrokenBy.CLIENT], 0)
    assert client.statuses == [400]


@on_loop
def test_a_head_that_ends_early_gets_400_back() -> None:
    client = Client().send(b"GET / HTTP/1.1\r\nhost")
    client.connection.eof_received()
    assert client.statuses == [400]


@on_loop
def test_a_connection_that_ends_between_requests_ends_in_silence() -> None:
    client = Client(ok).send(request())
    client.written()
    client.connection.eof_received()
    assert client.written() == b""


@on_loop
def test_a_fault_in_a_body_breaks_the_exchange_and_gets_400_back() -> None:
    client = Client().send(request("POST / HTTP/1.1", "transfer-encoding: chunked"), b"zz\r\n")
    assert client.keepers[0].broken == [BrokenBy.PROTOCOL]
    ((status, fields, text),) = answers(client.written())
    assert (status, fields["connection"]) == (400, "close")
    assert b"chunk" in text
    assert client.in_flight.count == 0


@on_loop
def test_a_fault_in_a_body_behind_the_head_of_its_answer_breaks_the_answer() -> None:
    client = Client().send(request("POST / HTTP/1.1", "transfer-encoding: chunked"))
    client.keepers[0].exchange.send_head(200, [])
    client.send(b"zz\r\n")
    assert client.transport.is_aborted
    assert b"400" not in client.written()


@on_loop
def test_requests_before_a_fault_are_answered_and_none_behind_it() -> None:
    client = Client(ok).send(request() + b"nonsense\r\n\r\n" + request())
    assert client.statuses == [200, 400]
    client.send(request())
    assert len(client.exchanges) == 1
    assert client.transport.is_half_closed


@on_loop
def test_the_rest_of_a_small_body_is_dropped_behind_an_early_answer() -> None:
    client = Client(ok).send(request("POST / HTTP/1.1", "content-length: 10"), b"hello", b"world" + request())
    assert client.statuses == [200, 200]


@on_loop
def test_an_early_answer_to_a_chunked_body_keeps_the_connection_as_long_as_the_rest_is_small() -> None:
    client = Client(ok).send(request("POST / HTTP/1.1", "transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"))
    client.send(request("POST / HTTP/1.1", "transfer-encoding: chunked"))
    assert client.statuses == [200, 200]
    chunk = b"2000\r\n" + bytes(0x2000) + b"\r\n"
    for _ in range(20):
        client.send(chunk)
    assert client.transport.is_half_closed
    assert client.written() == b""


def test_a_receiver_that_fails_behind_its_answer_does_not_stop_the_next(caplog: pytest.LogCaptureFixture) -> None:
    def answer_and_fail(exchange: Exchange) -> None:
        exchange.send_whole(200, [], b"")
        raise RuntimeError("a bug")

    async def scenario() -> None:
        client = Client(answer_and_fail).send(request() * 3)
        for _ in range(5):
            await asyncio.sleep(0)
        assert client.statuses == [200, 200, 200]

    with caplog.at_level(logging.CRITICAL, "mesh.gateway"):
        asyncio.run(scenario())


@on_loop
def test_a_receiver_that_fails_hears_of_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """It has to end what it has begun, such as a call."""

    class Failing(Keeper):
        def on_end(self) -> None:
            raise RuntimeError("a bug")

    failing: list[Failing] = []

    def open_failing(exchange: Exchange) -> Failing:
        failing.append(Failing(exchange))
        return failing[-1]

    with caplog.at_level(logging.CRITICAL, "mesh.gateway"):
        client = Client(open_failing).send(request("POST / HTTP/1.1", "content-length: 1"), b"a")
    assert client.statuses == [500]
    assert [each.broken for each in failing] == [[BrokenBy.DRAIN]]


@on_loop
def test_an_early_answer_to_a_large_body_closes_the_connection_and_lets_the_client_read_it() -> None:
    client = Client(ok).send(request("POST / HTTP/1.1", "content-length: 1000000"), b"hello")
    ((_, fields, _),) = answers(client.written())
    assert fields["connection"] == "close"
    assert (client.transport.is_half_closed, client.transport.is_closed) == (True, False)
    client.send(bytes(1_000))
    assert client.transport.is_reading


@on_loop
def test_a_receiver_that_fails_gets_gets_500_back(caplog: pytest.LogCaptureFixture) -> None:
    def fail(exchange: Exchange) -> None:
        raise RuntimeError("a bug")

    with caplog.at_level(logging.CRITICAL, "mesh.gateway"):
        client = Client(fail).send(request(), request())
    assert client.statuses == [500, 500]
    assert client.in_flight.count == 0
