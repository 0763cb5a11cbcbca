"""Timeouts of web requests, and clients that leave."""

from __future__ import annotations

import pytest

from gateway.dialects.web_target import WebOptions
from gateway.requests.exchange import BrokenBy
from mesh.exceptions import CancelReason, DeadlineExceededError
from mesh.wire.outcome import Outcome, failed_in_user_code
from tests.unit.gateway.fakes import FakeRouter, finish, item
from tests.unit.gateway.web_ends import WebEnds, begin_response, fail, respond, web_request


def answering(body: bytes = b"ok", **options: object) -> WebEnds:
    return WebEnds(FakeRouter(lambda call: respond(call, body)))


# ---- Timeouts --------------------------------------------------------------------------------------------------------


def test_a_request_without_timeout_has_no_deadline() -> None:
    ends = answering()
    ends.open(web_request())
    assert ends.call.request.deadline_at_s is None


@pytest.mark.parametrize(("header", "timeout"), [("", 10.0), ("0.5", 0.5), ("60", 10.0)])
def test_the_shorter_of_both_timeouts_counts(header: str, timeout: float) -> None:
    """The shorter of both timeouts counts (items 54, 205)."""
    ends = WebEnds(options=WebOptions(timeout_s=10.0))
    exchange = ends.open(web_request(**({"x_request_timeout_seconds": header} if header else {})))
    assert ends.call.request.deadline_at_s == pytest.approx(ends.call.started_at_s + timeout, abs=0.2)
    fail(ends.call, DeadlineExceededError())
    request_id = exchange.field("x-request-id")
    assert (exchange.status, exchange.body.decode()) == (408, f"Request {request_id} timed out after {timeout:g}s.")


def test_a_timeout_that_is_no_number_is_refused() -> None:
    """A timeout that is not a number is refused (item 205)."""
    ends = WebEnds()
    exchange = ends.open(web_request(x_request_timeout_seconds="soon"))
    assert exchange.status == 400
    assert ends.router.calls == []


def test_a_timeout_within_the_answer_breaks_it_off() -> None:
    """A timeout within the answer breaks it off (item 205, D10)."""
    ends = WebEnds(options=WebOptions(timeout_s=0.1))
    exchange = ends.open(web_request())
    begin_response(ends.call, b"part")
    fail(ends.call, DeadlineExceededError())
    assert (exchange.status, exchange.body, exchange.is_aborted) == (200, b"part", True)
    assert ends.count("shop", "/", "GET", "408") == 1
    ends.assert_idle()


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("early_s", [0.005, 0.025], ids=["running", "queued"])
def test_a_failure_at_the_very_end_of_the_time_is_the_timeout(
    is_streamed: bool, early_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nested calls have the same deadline and fail a moment before it, queued ones earlier (items 144, 205, D10)."""
    now_s = 1_000.0
    monkeypatch.setattr("gateway.dialects.web.monotonic", lambda: now_s)
    ends = WebEnds(options=WebOptions(timeout_s=5.0))
    exchange, early = ends.open(web_request(x_request_id="r1")), ends.open(web_request())
    answer = begin_response if is_streamed else respond
    now_s += 4.9
    respond(ends.router.calls[1], b"Internal Server Error", 500)
    now_s += 0.1 - early_s
    answer(ends.router.calls[0], b"Internal Server Error", 500)
    assert (early.status, early.body) == (500, b"Internal Server Error")
    assert (exchange.status, exchange.body) == (408, b"Request r1 timed out after 5s.")
    ends.assert_idle()


def test_a_deadline_of_a_child_call_is_not_the_timeout_of_the_request() -> None:
    ends = WebEnds(options=WebOptions(timeout_s=10.0))
    exchange = ends.open(web_request())
    try:
        raise DeadlineExceededError
    except DeadlineExceededError as error:
        finish(ends.call, failed_in_user_code(error))
    assert exchange.status == 500


# ---- Clients that leave ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_leaves_cancels_its_request(has_begun: bool) -> None:
    """A client that leaves cancels its request (items 144, 207)."""
    ends = WebEnds()
    exchange = ends.open(web_request())
    if has_begun:
        begin_response(ends.call, b"a")
    exchange.break_by(BrokenBy.CLIENT)
    assert ends.router.cancel_reasons == [CancelReason.CLIENT]
    assert ends.count("shop", "/", "GET", "499") == 1
    ends.assert_idle()


def test_a_client_that_leaves_within_its_body_makes_no_call() -> None:
    """A client that leaves within its body makes no call (item 207)."""
    ends = WebEnds()
    exchange = ends.open(web_request("POST", "/", body_bytes=10), is_complete=False)
    exchange.receive(b"12345", ends=False)
    exchange.break_by(BrokenBy.CLIENT)
    assert ends.router.calls == []
    ends.assert_idle()


@pytest.mark.parametrize(
    ("by", "status"), [(BrokenBy.PROTOCOL, "400"), (BrokenBy.TIMEOUT, "408"), (BrokenBy.DRAIN, "503")]
)
def test_each_way_to_break_off_counts_as_what_it_is(by: BrokenBy, status: str) -> None:
    ends = WebEnds()
    ends.open(web_request()).break_by(by)
    assert len(ends.router.cancelled) == 1
    assert ends.count("shop", "/", "GET", status) == 1


def test_a_request_may_ask_to_outlive_its_client() -> None:
    """A request may ask to outlive its client (item 206)."""
    ends = WebEnds()
    exchange = ends.open(web_request(x_request_disconnect_disabled="?1"))
    begin_response(ends.call, b"a")
    exchange.break_by(BrokenBy.CLIENT)
    assert ends.router.cancelled == []
    for _ in range(300):
        item(ends.call, b"x")
    assert sum(ends.router.link.granted) > 200
    finish(ends.call, Outcome())
    assert ends.count("shop", "/", "GET", "499") == 1
    ends.assert_idle()


def test_a_streamed_answer_that_begins_when_its_client_has_left_is_taken_to_its_end() -> None:
    """Otherwise the application would wait for credit, in its place at the replica, as long as that lives."""
    ends = WebEnds()
    exchange = ends.open(web_request(x_request_disconnect_disabled="?1"))
    exchange.break_by(BrokenBy.CLIENT)
    begin_response(ends.call, b"a")
    for _ in range(300):
        item(ends.call, b"x")
    assert sum(ends.router.link.granted) > 200
    finish(ends.call, Outcome())
    assert ends.count("shop", "/", "GET", "499") == 1
    ends.assert_idle()


def test_a_request_that_is_not_complete_cannot_outlive_its_client() -> None:
    """A request that is not complete cannot outlive its client (item 206)."""
    ends = WebEnds()
    head = web_request("POST", "/", body_bytes=None, x_request_disconnect_disabled="?1")
    exchange = ends.open(head, is_complete=False)
    exchange.break_by(BrokenBy.CLIENT)
    assert len(ends.router.cancelled) == 1
    ends.assert_idle()
