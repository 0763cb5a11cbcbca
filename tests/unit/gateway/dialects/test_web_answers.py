"""Answers to web requests: heads, streams, credit, and errors with their statuses."""

from __future__ import annotations

import logging

import pytest

from mesh.exceptions import (
    BackPressureError,
    CancelReason,
    DeploymentUnavailableError,
    GrpcStatusError,
    PayloadTooLargeError,
    ReplicaUnavailableError,
)
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.status_codes import status_code
from mesh.wire.outcome import Outcome, failed_in_user_code
from mesh.wire.payload import PICKLE, Payload
from tests.unit.gateway.fakes import FakeRouter, finish, item
from tests.unit.gateway.web_ends import WebEnds, begin_response, fail, respond, web_request

MIB = 1024 * 1024


# ---- Heads -----------------------------------------------------------------------------------------------------------


def test_headers_of_the_answer_are_passed_on() -> None:
    headers = (b"Content-Type", b"text/html", b"content-length", b"99", b"set-cookie", b"a", b"set-cookie", b"b")
    ends = WebEnds(FakeRouter(lambda call: respond(call, b"x", 201, headers=headers)))
    exchange = ends.open(web_request())
    assert exchange.status == 201
    assert (exchange.field("content-type"), exchange.field("content-length")) == ("text/html", None)
    assert [value for name, value in exchange.fields if name == b"set-cookie"] == [b"a", b"b"]


@pytest.mark.parametrize("length", [None, 5, 1234])
def test_the_answer_to_head_has_the_length_of_its_body_and_no_body(length: int | None) -> None:
    headers = () if length is None else (b"content-length", b"%d" % length)
    body = b"" if length == 1234 else b"hello"
    ends = WebEnds(FakeRouter(lambda call: respond(call, body, headers=headers)))
    exchange = ends.open(web_request("HEAD"))
    assert (exchange.body, exchange.field("content-length")) == (b"", str(length or 5))
    assert exchange.has_ended


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_body_is_only_a_head(status: int) -> None:
    exchange = WebEnds(FakeRouter(lambda call: respond(call, b"not allowed", status))).open(web_request())
    assert (exchange.status, exchange.body, exchange.has_ended) == (status, b"", True)


@pytest.mark.parametrize("headers", [(b"x", b"a\r\nb: c"), (b"x\ny", b"a"), (b"content-length", b"many")])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_header_that_would_break_the_framing_is_the_applications_failure(
    headers: tuple[bytes, ...], is_streamed: bool
) -> None:
    answer = begin_response if is_streamed else respond
    ends = WebEnds(FakeRouter(lambda call: answer(call, b"x", headers=headers)))
    exchange = ends.open(web_request())
    assert exchange.status == 500
    assert exchange.body.startswith(b"The answer of the application cannot be sent: ")
    assert all(b"\r" not in value and b"\n" not in value for _, value in exchange.fields)
    ends.assert_idle()


@pytest.mark.parametrize("payload", [None, Payload(PICKLE, b"x"), Payload(0, b"\xff\xff")])
def test_an_answer_that_is_none_is_never_opened(payload: Payload | None) -> None:
    ends = WebEnds(FakeRouter(lambda call: finish(call, Outcome(payload=payload))))
    assert ends.open(web_request()).status == 500


# ---- Failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), 503, b"Request dropped due to backpressure"),
        (DeploymentUnavailableError("shop#Front"), 503, b"Deployment 'Front' of application 'shop' is unavailable"),
        (ReplicaUnavailableError("r1"), 503, b"Replica r1 is unavailable"),
        (PayloadTooLargeError("result", 2, 1), 500, b"Internal Server Error"),
        (GrpcStatusError(status_code(5), "secret"), 500, b"Internal Server Error"),
    ],
)
def test_errors_of_the_mesh_have_their_status(error: Exception, status: int, text: bytes) -> None:
    """Errors of the mesh have their status (items 143, 144)."""
    for outcome_of in (None, failed_in_user_code):
        ends = WebEnds()
        exchange = ends.open(web_request())
        if outcome_of is None:
            fail(ends.call, error)  # type: ignore[arg-type]
        else:
            finish(ends.call, outcome_of(error))
        assert exchange.status == status
        assert exchange.body.startswith(text)
        assert ends.count("shop", "/", "GET", str(status)) == 1
        ends.assert_idle()


def test_back_pressure_says_when_to_try_again() -> None:
    """Back pressure says when to try again (item 144)."""
    ends = WebEnds()
    exchange = ends.open(web_request())
    fail(ends.call, BackPressureError(num_queued_requests=1, max_queued_requests=1))
    assert exchange.field("retry-after") == "1"


def test_clients_do_not_see_what_user_code_raises() -> None:
    """Clients do not see what user code raises (item 144)."""
    ends = WebEnds()
    exchange = ends.open(web_request())
    finish(ends.call, failed_in_user_code(ValueError("the password is 123")))
    assert (exchange.status, exchange.body) == (500, b"Internal Server Error")


def test_a_router_that_fails_fails_only_the_request(caplog: pytest.LogCaptureFixture) -> None:
    def broken(call: OutgoingCall) -> None:
        raise RuntimeError("a fault of ours")

    with caplog.at_level(logging.ERROR):
        exchange = WebEnds(FakeRouter(broken)).open(web_request())
    assert exchange.status == 500
    assert "the gateway failed in a web request to shop" in caplog.text


# ---- Streams ---------------------------------------------------------------------------------------------------------


def test_a_streamed_answer_leaves_piece_by_piece() -> None:
    """A streamed answer leaves piece by piece (item 112)."""
    ends = WebEnds()
    exchange = ends.open(web_request())
    begin_response(ends.call, b"a", headers=(b"content-type", b"text/event-stream"))
    assert (exchange.status, exchange.pieces, exchange.has_ended) == (200, [b"a"], False)
    item(ends.call, b"b")
    assert exchange.pieces == [b"a", b"b"]
    finish(ends.call, Outcome())
    assert exchange.has_ended
    assert not exchange.is_aborted
    assert ends.count("shop", "/", "GET", "200") == 1
    ends.assert_idle()


def test_an_answer_that_breaks_in_the_middle_is_not_taken_for_complete() -> None:
    """An answer that breaks in the middle is not taken for complete (item 112)."""
    ends = WebEnds()
    exchange = ends.open(web_request())
    begin_response(ends.call, b"a")
    finish(ends.call, failed_in_user_code(ValueError("x")))
    assert exchange.is_aborted
    ends.assert_idle()


@pytest.mark.parametrize("pieces", [[b"12345", b"67"], [b"123"]])
def test_a_body_that_differs_from_its_length_breaks_the_exchange(pieces: list[bytes]) -> None:
    ends = WebEnds()
    exchange = ends.open(web_request())
    begin_response(ends.call, headers=(b"content-length", b"6"))
    for piece in pieces:
        item(ends.call, piece)
    if not exchange.is_aborted:
        finish(ends.call, Outcome())
    assert exchange.is_aborted
    assert len(exchange.body) <= 6
    ends.assert_idle()


def test_credit_is_granted_when_the_client_has_what_was_sent() -> None:
    ends = WebEnds()
    exchange = ends.open(web_request())
    begin_response(ends.call)
    exchange.is_blocked = True
    for _ in range(200):
        item(ends.call, b"x")
    assert ends.router.link.granted == []
    exchange.unblock()
    assert sum(ends.router.link.granted) == 201
    for _ in range(100):
        item(ends.call, b"x")
    assert sum(ends.router.link.granted) > 201


def test_large_pieces_take_more_credit() -> None:
    ends = WebEnds()
    exchange = ends.open(web_request())
    exchange.is_blocked = True
    begin_response(ends.call)
    item(ends.call, bytes(MIB))
    exchange.unblock()
    assert sum(ends.router.link.granted) == 1 + 17


def test_an_answer_without_room_breaks_off() -> None:
    ends = WebEnds()
    exchange = ends.open(web_request())
    begin_response(ends.call, b"a")
    exchange.is_blocked, exchange.has_room = True, False
    item(ends.call, b"b")
    assert exchange.is_aborted
    assert ends.router.cancel_reasons == [CancelReason.CLIENT]
    ends.assert_idle()


def test_a_whole_answer_without_room_is_an_error_of_the_gateway() -> None:
    ends = WebEnds()
    exchange = ends.open(web_request())
    exchange.is_blocked, exchange.has_room = True, False
    respond(ends.call, b"large")
    assert exchange.is_aborted
    assert ends.count("shop", "/", "GET", "503") == 1
