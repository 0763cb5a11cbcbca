"""Bodies of web requests: they stream as the replica takes them, within limits."""

from __future__ import annotations

import pytest

from gateway.dialects.web import SMALL_BODY_MAX_BYTES
from gateway.requests.exchange import BrokenBy
from mesh.exceptions import CancelReason
from mesh.http2.limits import BufferBudget, BufferShare
from mesh.wire.web_messages import decode_request
from tests.unit.gateway.fakes import allow
from tests.unit.gateway.web_ends import WebEnds, WebExchange, respond, web_request

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [None, SMALL_BODY_MAX_BYTES + 1])
def test_other_bodies_are_streamed_as_the_replica_takes_them(size: int | None) -> None:
    ends = WebEnds()
    exchange = ends.open(web_request("POST", "/up", body_bytes=size), is_complete=False)
    link = ends.router.link
    assert ends.call.request.streams_request
    exchange.receive(b"one", b"two", ends=False)
    assert link.items == []
    allow(ends.call, 2)
    assert decode_request(link.items[0]).raw_path == b"/up"
    assert decode_request(link.items[0]).body == b""
    assert link.items[1:] == [b"one"]
    assert exchange.given_room == 0
    exchange.receiver.on_end()
    assert link.half_closed == 0
    allow(ends.call, 8)
    assert (link.items[2:], link.half_closed, exchange.given_room) == ([b"two"], 1, 6)
    respond(ends.call, b"done")
    assert exchange.body == b"done"
    ends.assert_idle()


def test_what_waits_in_the_gateway_is_bounded_by_the_clients_room() -> None:
    """One GiB passes, and never more is held than the client was given room for."""
    ends = WebEnds()
    window, total, piece = MIB // 4, 1024 * MIB, bytes(MIB // 16)
    exchange = ends.open(web_request("POST", "/", body_bytes=total), is_complete=False)
    link, sent, taken = ends.router.link, 0, 0
    link.items = _Sizes()  # type: ignore[assignment]
    allow(ends.call, 1)
    while sent < total:
        while sent < total and sent - exchange.given_room + len(piece) <= window:
            exchange.receiver.on_body(piece)
            sent += len(piece)
        assert sent - link.items.total <= window + 1024  # type: ignore[attr-defined]
        allow(ends.call, 8)
        taken += 1
    exchange.receiver.on_end()
    allow(ends.call, 64)
    assert link.half_closed == 1
    assert link.items.total >= total  # type: ignore[attr-defined]
    assert taken > 1


class _Sizes:
    """Counts what it is to hold."""

    def __init__(self) -> None:
        self.total = 0

    def append(self, data: bytes) -> None:
        self.total += len(data)


def test_an_application_may_answer_before_it_has_read_the_body() -> None:
    ends = WebEnds()
    exchange = ends.open(web_request("POST", "/", body_bytes=None), is_complete=False)
    exchange.receive(b"part", ends=False)
    respond(ends.call, b"no", 413)
    assert (exchange.status, exchange.body) == (413, b"no")
    ends.assert_idle()


def test_a_body_that_is_too_large_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("web", "web_target"):
        monkeypatch.setattr(f"gateway.dialects.{module}.body_max_bytes", lambda: 10)
    ends = WebEnds()
    exchange = ends.open(web_request("POST", "/", body_bytes=11))
    assert exchange.status == 413
    assert ends.router.calls == []


def test_a_body_of_unknown_length_is_refused_once_it_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("web", "web_target"):
        monkeypatch.setattr(f"gateway.dialects.{module}.body_max_bytes", lambda: 10)
    ends = WebEnds()
    exchange = ends.open(web_request("POST", "/", body_bytes=None), is_complete=False)
    exchange.receive(b"12345", b"67890", ends=False)
    assert not exchange.has_ended
    exchange.receive(b"1", ends=False)
    assert exchange.status == 413
    assert ends.router.cancel_reasons == [CancelReason.CLIENT]
    assert ends.count("shop", "/", "POST", "413") == 1
    ends.assert_idle()


@pytest.mark.parametrize("size", [30_000, None])
def test_what_waits_of_a_body_counts_as_buffered(size: int | None) -> None:
    """Each stream of a connection may send so much ahead, while no replica takes it."""
    ends = WebEnds()
    budget = BufferBudget(60_000)
    share, exchanges = BufferShare(budget), []
    for _ in range(3):
        exchange = WebExchange(web_request("POST", "/", body_bytes=size))
        exchange.share = share
        exchange.accept(ends.web.open(exchange), is_complete=False)
        exchange.receive(b"x" * 14_000, ends=False)
        exchanges.append(exchange)
    assert [each.status for each in exchanges] == [0, 0, 503]
    for each in exchanges[:2]:
        each.break_by(BrokenBy.CLIENT)
    assert budget.used_bytes == 0
    ends.assert_idle()


@pytest.mark.parametrize(("size", "counted"), [(60_000, 60_000), (1_000, 0)])
def test_a_large_body_of_one_frame_counts_until_its_call_has_ended(size: int, counted: int) -> None:
    """Calls wait for a place with all of it."""
    ends = WebEnds()
    exchange = ends.open(web_request("POST", "/", body_bytes=size), is_complete=False)
    exchange.receive(b"x" * size)
    assert exchange.share.used_bytes == counted
    respond(ends.call, b"done")
    assert exchange.share.used_bytes == 0
    ends.assert_idle()
