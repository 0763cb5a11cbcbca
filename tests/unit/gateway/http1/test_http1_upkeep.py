"""Connections whose clients stall, idle or do not read, in fake time; looked at once a second."""

from __future__ import annotations

import pytest

from gateway.http1.http1_limits import Http1Limits
from gateway.http1.http1_upkeep import Doing, Http1Clock, Http1Upkeep, Http1Vitals
from gateway.requests.exchange import BrokenBy, Exchange
from mesh.http2.upkeep import UpkeepPolicy
from tests.unit.fakes.http1_ends import Client, Keeper, on_loop, request

LIMITS = Http1Limits(head_timeout_s=10, body_timeout_s=60, keep_alive_timeout_s=90, linger_timeout_s=2)
POLICY = UpkeepPolicy(unread_timeout_s=60, drain_timeout_s=30, age_max_s=1_000)


def ok(exchange: Exchange) -> None:
    exchange.send_whole(200, [], b"ok")


class Looked:
    """A connection at which a test looks once a second."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.now_s = 0.0
        client.connection.clock = Http1Clock(0)

    def wait(self, seconds: int) -> Looked:
        for _ in range(seconds):
            self.now_s += 1
            self.client.connection.look_after(POLICY, self.now_s)
        return self

    @property
    def is_closed(self) -> bool:
        return self.client.transport.is_closed

    @property
    def lost_reason(self) -> str:
        return self.client.connection.lost_reason


@on_loop
def test_a_client_that_sends_nothing_is_left() -> None:
    looked = Looked(Client(limits=LIMITS)).wait(9)
    assert not looked.is_closed
    assert looked.wait(2).is_closed
    assert looked.client.written() == b""


@on_loop
def test_an_empty_line_behind_a_body_is_no_head_that_has_begun() -> None:
    """Some old clients send one (RFC 9112 §2.2)."""
    looked = Looked(Client(ok, LIMITS))
    looked.client.send(request("POST / HTTP/1.1", "content-length: 3", body=b"abc") + b"\r\n")
    assert looked.client.statuses == [200]
    assert not looked.wait(60).is_closed
    assert looked.client.send(request()).statuses == [200]
    assert looked.wait(95).lost_reason == Http1Upkeep.IDLE.value


@on_loop
def test_a_slow_head_has_one_limit_from_its_first_byte_to_its_last() -> None:
    """A byte now and then (slowloris) does not lengthen it."""
    looked = Looked(Client(ok, LIMITS))
    looked.client.send(request()).written()
    looked.wait(50)
    for byte in b"GET / HTTP":
        looked.client.send(bytes([byte]))
        looked.wait(1)
    assert not looked.client.transport.is_half_closed
    looked.wait(1)
    assert looked.client.statuses == [408]
    assert looked.client.transport.is_half_closed


@on_loop
def test_a_client_that_sends_one_head_after_the_other_is_not_slow() -> None:
    looked = Looked(Client(ok, LIMITS)).wait(1)
    for _ in range(30):
        looked.client.send(request() + b"GET / HT")
        looked.wait(1)
        looked.client.send(b"TP/1.1\r\nhost: a\r\n\r\nGE")
        looked.wait(1)
        looked.client.send(b"T / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert not looked.is_closed


@on_loop
def test_an_idle_connection_is_closed() -> None:
    looked = Looked(Client(ok, LIMITS))
    looked.client.send(request())
    assert not looked.wait(80).is_closed
    looked.client.send(request())
    assert not looked.wait(89).is_closed
    assert looked.wait(3).is_closed
    assert looked.lost_reason == Http1Upkeep.IDLE.value


@on_loop
def test_a_body_that_stops_is_given_up() -> None:
    looked = Looked(Client(limits=LIMITS))
    looked.client.send(request("POST / HTTP/1.1", "content-length: 10"))
    for _ in range(3):
        looked.wait(50)
        looked.client.send(b"x")
    looked.wait(59)
    (keeper,) = looked.client.keepers
    assert not keeper.broken
    looked.wait(3)
    assert keeper.broken == [BrokenBy.TIMEOUT]
    assert looked.client.statuses == [408]


@on_loop
def test_the_rest_of_a_body_that_was_answered_already_gets_no_second_answer() -> None:
    for rest in (b"", b"zz\r\n", b"4000\r\n" + bytes(0x4000)):
        looked = Looked(Client(ok, LIMITS))
        looked.client.send(request("POST / HTTP/1.1", "transfer-encoding: chunked"))
        assert looked.client.statuses == [200]
        looked.client.send(rest)
        assert looked.wait(70).is_closed
        assert looked.client.written() == b""


@on_loop
def test_a_client_whose_body_we_do_not_take_is_not_slow() -> None:
    client = Client(limits=Http1Limits(body_window_bytes=10))
    client._opener = lambda exchange: client.keepers.append(Keeper(exchange, slow=True)) or client.keepers[-1]
    looked = Looked(client)
    client.send(request("POST / HTTP/1.1", "content-length: 100"), bytes(20))
    assert not looked.wait(200).is_closed


@on_loop
def test_a_client_that_waits_for_its_answer_may_wait() -> None:
    looked = Looked(Client(limits=LIMITS))
    looked.client.send(request())
    assert not looked.wait(900).is_closed


@on_loop
def test_a_client_that_does_not_read_is_left() -> None:
    looked = Looked(Client(limits=LIMITS))
    looked.client.transport.is_stuck = True
    looked.client.send(request())
    (keeper,) = looked.client.keepers
    keeper.exchange.send_head(200, [])
    assert not looked.wait(59).is_closed
    assert looked.wait(3).client.transport.is_aborted
    assert keeper.broken == [BrokenBy.TIMEOUT]
    assert looked.lost_reason == Http1Upkeep.UNREAD.value


@on_loop
def test_the_last_answer_to_a_client_that_does_not_read_is_given_up() -> None:
    looked = Looked(Client(ok, LIMITS))
    looked.client.transport.is_stuck = True
    looked.client.send(request("GET / HTTP/1.1", "connection: close"))
    assert not looked.client.transport.is_aborted
    assert looked.wait(62).client.transport.is_aborted


@on_loop
def test_a_client_that_sends_on_has_two_seconds_to_read_why_not_to() -> None:
    looked = Looked(Client(ok, LIMITS))
    looked.client.send(request("POST / HTTP/1.1", "content-length: 1000000"))
    for _ in range(2):
        looked.client.send(bytes(1_000))
        assert not looked.is_closed
        looked.wait(1)
    assert looked.wait(1).is_closed


@on_loop
def test_an_old_connection_is_closed_behind_its_next_answer() -> None:
    looked = Looked(Client(limits=LIMITS))
    looked.client.send(request())
    looked.wait(1_001)
    assert (looked.is_closed, looked.client.connection.is_draining) == (False, True)
    looked.client.keepers[0].exchange.send_whole(200, [], b"")
    assert looked.is_closed


@on_loop
def test_a_drain_has_an_end() -> None:
    looked = Looked(Client(limits=LIMITS)).wait(1)
    looked.client.send(request())
    looked.client.connection.drain()
    assert not looked.wait(30).is_closed
    looked.wait(2)
    assert looked.client.keepers[0].broken == [BrokenBy.DRAIN]


@pytest.mark.parametrize("doing", list(Doing))
def test_nothing_is_due_at_once(doing: Doing) -> None:
    assert Http1Clock(5).check(Http1Vitals(doing, is_paused=False, is_draining=False), LIMITS, POLICY, 5) is None
