"""Web requests between a client's exchange and a replica, both in memory."""

from __future__ import annotations

import logging

import pytest

from gateway.dialects.web import SMALL_BODY_MAX_BYTES
from gateway.dialects.web_target import WebOptions
from gateway.requests.exchange import BrokenBy
from gateway.requests.routes import read_routes
from gateway.requests.trusted_proxies import TrustedProxies
from mesh.exceptions import (
    BackPressureError,
    CancelReason,
    DeadlineExceededError,
    DeploymentUnavailableError,
    GrpcStatusError,
    PayloadTooLargeError,
    ReplicaUnavailableError,
)
from mesh.http2.limits import BufferBudget, BufferShare
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.outcome import Outcome, failed_in_user_code, status_code
from mesh.wire.payload import PICKLE, Payload
from mesh.wire.web_messages import WEB_METHOD, decode_request, header_pairs
from tests.unit.gateway.fakes import FakeRouter, allow, finish, item
from tests.unit.gateway.web_ends import (
    WebEnds,
    WebExchange,
    begin_response,
    fail,
    respond,
    sent_request,
    web_request,
    web_table,
    websocket_request,
)

UUID_CHARS = 36
MIB = 1024 * 1024


def answering(body: bytes = b"ok", **options: object) -> WebEnds:
    return WebEnds(FakeRouter(lambda call: respond(call, body)))


# ---- One frame each way ----------------------------------------------------------------------------------------------


def test_a_request_without_body_is_one_frame_and_its_answer_one_write() -> None:
    ends = answering(b"hello")
    exchange = ends.open(web_request("GET", "/hello", query=b"a=1"))
    assert (exchange.status, exchange.body, exchange.writes) == (200, b"hello", 1)
    [call] = ends.router.calls
    assert (call.request.method, call.request.streams_request, call.request.streams_response) == (
        WEB_METHOD,
        False,
        True,
    )
    sent = sent_request(call)
    assert (sent.method, sent.raw_path, sent.query_string, sent.root_path) == ("GET", b"/hello", b"a=1", "")
    assert (sent.client_host, sent.client_port) == ("10.0.0.1", 4711)
    assert ends.router.link.items == []
    ends.assert_idle()


def test_a_small_body_travels_with_its_head() -> None:
    ends = answering()
    exchange = ends.open(web_request("POST", "/", body_bytes=6))
    assert ends.router.calls == []
    exchange.receive(b"abc", b"def")
    assert sent_request(ends.call).body == b"abcdef"
    assert exchange.status == 200


def test_the_context_names_route_application_and_model() -> None:
    """The context names route application and model (items 124, 131)."""
    ends = WebEnds(FakeRouter(respond), shop="/shop")
    ends.open(web_request(path="/shop/x", serve_multiplexed_model_id="m1", traceparent="00-a-b-01"))
    context = ends.call.request.context
    assert (context.route, context.app, context.multiplexed_model_id) == ("/shop", "shop", "m1")
    assert context.traceparent == "00-a-b-01"
    assert sent_request(ends.call).root_path == "/shop"


def test_what_a_head_means_changes_with_the_routes() -> None:
    """A client repeats its head on one connection, before and behind an update of the routes."""
    ends = WebEnds(FakeRouter(respond), shop="/")
    head = web_request(path="/x", traceparent="00-a-b-01")
    for _ in range(2):
        ends.open(head)
    ends.targets.set_routes(read_routes(web_table(shop="/", zoo="/x")))
    ends.open(head)
    ends.targets.set_routes(read_routes(web_table(shop="/shop")))
    assert ends.open(head).status == 404
    contexts = [call.request.context for call in ends.router.calls]
    assert [(each.app, each.route) for each in contexts] == [("shop", "/"), ("shop", "/"), ("zoo", "/x")]
    assert len({each.request_id for each in contexts}) == 3
    assert [sent_request(call).root_path for call in ends.router.calls] == ["", "", "/x"]


def test_a_path_may_name_the_model() -> None:
    """Where the application says so, and no header names one (item 124)."""
    table = web_table(zoo="/zoo", shop="/shop")
    table.routes[0].model_id_paths.append("v2/models/{}")
    ends = WebEnds(FakeRouter(respond))
    ends.targets.set_routes(read_routes(table))
    for path in ("/zoo/v2/models/a%20b/infer", "/zoo/v2/health/live", "/shop/v2/models/m"):
        ends.open(web_request(path=path))
    ends.open(web_request(path="/zoo/v2/models/m", serve_multiplexed_model_id="m1"))
    assert [call.request.context.multiplexed_model_id for call in ends.router.calls] == ["a b", "", "", "m1"]


@pytest.mark.parametrize(("sent", "track"), [("yes", "|+shop|"), ("no", "")])
def test_a_header_field_sends_requests_and_websockets_to_the_canary(sent: str, track: str) -> None:
    table = web_table(shop="/shop")
    table.routes[0].traffic.header, table.routes[0].traffic.value = "x-canary", "yes"
    ends = WebEnds(FakeRouter(respond))
    ends.targets.set_routes(read_routes(table))
    ends.open(web_request(path="/shop", x_canary=sent))
    ends.open_websocket(websocket_request("/shop", x_canary=sent))
    ends.open(web_request(path="/shop"))
    assert [call.request.context.track for call in ends.router.calls] == [track, track, ""]


def test_the_session_of_a_request_decides_where_it_goes() -> None:
    """The router gets it (item 206)."""
    ends = answering()
    ends.open(web_request(x_session_id="s-1"))
    ends.open_websocket(websocket_request(x_session_id="s-2"))
    assert [call.request.session_id for call in ends.router.calls] == ["s-1", "s-2"]


def test_the_tenant_of_a_request_goes_with_it() -> None:
    """As its header says (item 206)."""
    ends = answering()
    ends.open(web_request(x_tenant_id="acme"))
    ends.open_websocket(websocket_request(x_tenant="acme"))
    assert [call.request.context.tenant for call in ends.router.calls] == ["acme", "acme"]


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


# ---- Routes ----------------------------------------------------------------------------------------------------------


def test_each_application_gets_the_requests_below_its_prefix() -> None:
    """Each application gets the requests below its prefix (item 203)."""
    ends = WebEnds(FakeRouter(respond), root="/", shop="/shop", admin="/shop/admin")
    for path in ("/", "/shopping", "/shop", "/shop/x", "/shop/admin", "/sh%6fp/admin/x"):
        ends.open(web_request(path=path))
    assert [call.request.context.app for call in ends.router.calls] == [
        "root",
        "root",
        "shop",
        "shop",
        "admin",
        "admin",
    ]


def test_an_unknown_path_is_not_found() -> None:
    """An unknown path is not found (items 144, 203)."""
    ends = WebEnds(shop="/shop")
    exchange = ends.open(web_request(path="/x"))
    assert (exchange.status, exchange.body.partition(b". ")[0]) == (404, b"Path '/x' not found")
    assert exchange.field("x-request-id")
    assert ends.count("other", "other", "GET", "404") == 1
    ends.assert_idle()


def test_a_long_unknown_path_is_cut() -> None:
    exchange = WebEnds(shop="/shop").open(web_request(path="/" + "x" * 5_000))
    assert len(exchange.body) < 300


def test_an_application_without_web_side_says_so() -> None:
    exchange = WebEnds(root="/", typed="/typed").open(web_request(path="/typed/x"))
    assert exchange.status == 404
    assert b"Application 'typed' at '/typed' takes no web requests" in exchange.body


def test_requests_before_the_first_routes_are_asked_to_wait() -> None:
    """Requests before the first routes are asked to wait (item 201)."""
    ends = WebEnds()
    ends.targets.__init__(lambda *_: ends.router, ends.metrics)  # type: ignore[misc]
    exchange = ends.open(web_request())
    assert exchange.status == 503
    assert exchange.body.startswith(b"Route table is not populated yet.")


@pytest.mark.parametrize("path", ["/mesh/shop/a%20b", "/shop/a%20b"])
def test_the_root_path_is_in_front_of_the_path_of_the_application(path: str) -> None:
    """The root path is in front of the path of the application (items 54, 109)."""
    ends = WebEnds(FakeRouter(respond), WebOptions(root_path="/mesh"), shop="/shop")
    assert ends.open(web_request(path=path)).status == 200
    sent = sent_request(ends.call)
    assert (sent.raw_path, sent.root_path) == (b"/mesh/shop/a%20b", "/mesh/shop")


def test_a_trusted_proxy_names_the_client_of_its_requests() -> None:
    ends = WebEnds(FakeRouter(respond), WebOptions(proxies=TrustedProxies("10.0.0.0/8")))
    ends.open(web_request(x_forwarded_for="9.9.9.9", x_forwarded_proto="https"))
    sent = sent_request(ends.call)
    assert (sent.client_host, sent.client_port, sent.scheme) == ("9.9.9.9", 0, "https")


# ---- Request ids -----------------------------------------------------------------------------------------------------


def test_the_id_of_a_request_is_returned() -> None:
    """The id of a request is returned (item 204)."""
    ends = answering()
    assert ends.open(web_request(x_request_id="mine")).field("x-request-id") == "mine"
    assert ends.call.request.context.request_id == "mine"
    assert header_pairs(sent_request(ends.call).headers).count((b"x-request-id", b"mine")) == 1


def test_an_id_is_made_for_requests_without_one_and_its_application_sees_it() -> None:
    """An id is made for requests without one and its application sees it (item 204)."""
    ends = answering()
    request_id = ends.open(web_request()).field("x-request-id")
    assert request_id is not None
    assert len(request_id) == UUID_CHARS
    assert ends.call.request.context.request_id == request_id
    assert (b"x-request-id", request_id.encode()) in header_pairs(sent_request(ends.call).headers)


def test_the_same_id_twice_at_a_time_does_no_harm() -> None:
    """The same id twice at a time does no harm (item 204)."""
    ends = WebEnds()
    first, second = ends.open(web_request(x_request_id="same")), ends.open(web_request(x_request_id="same"))
    respond(ends.router.calls[1], b"second")
    respond(ends.router.calls[0], b"first")
    assert (first.body, second.body) == (b"first", b"second")
    ends.assert_idle()


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
    """A timeout that is no number is refused (item 205)."""
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
def test_a_failure_at_the_very_end_of_the_time_is_the_timeout(
    is_streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nested calls have the same deadline and fail a moment before it (item 205, D10)."""
    now_s = 1_000.0
    monkeypatch.setattr("gateway.dialects.web.monotonic", lambda: now_s)
    ends = WebEnds(options=WebOptions(timeout_s=5.0))
    exchange, early = ends.open(web_request(x_request_id="r1")), ends.open(web_request())
    answer = begin_response if is_streamed else respond
    now_s += 4.9
    respond(ends.router.calls[1], b"Internal Server Error", 500)
    now_s += 0.095
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


# ---- Counts ----------------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_the_pattern_that_served_them() -> None:
    ends = WebEnds(FakeRouter(lambda call: respond(call, route="/items/{id}")), shop="/shop")
    for number in range(3):
        ends.open(web_request(path=f"/shop/items/{number}"))
    assert ends.count("shop", "/shop/items/{id}", "GET", "200") == 3
    assert ends.latencies("shop", "/shop/items/{id}", "GET") == 3


def test_methods_that_clients_invent_make_no_series() -> None:
    ends = answering()
    for method in ("BREW", "SPILL"):
        ends.open(web_request(method))
    assert ends.count("shop", "/", "other", "200") == 2


def test_each_request_is_logged_if_the_mesh_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Each request is logged if the mesh says so (item 210)."""
    ends = WebEnds(
        FakeRouter(lambda call: respond(call, route="/items/{id}")), WebOptions(has_access_log=True), shop="/shop"
    )
    with caplog.at_level(logging.INFO, "mesh.access"):
        ends.open(web_request(path="/shop/items/1", x_request_id="r1"))
        ends.open(web_request(path="/else"))
    served, unknown = caplog.records
    assert served.getMessage().startswith("GET /shop/items/{id} 200 ")
    assert served.getMessage().endswith("ms")
    assert served.request_id == "r1"  # type: ignore[attr-defined]
    assert unknown.getMessage().startswith("GET /else 404 ")
