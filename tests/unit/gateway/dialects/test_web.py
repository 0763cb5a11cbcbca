"""Web requests between a client's exchange and a replica, both in memory: who gets them, and what it sees."""

from __future__ import annotations

import logging

import pytest

from gateway.dialects.web_target import WebOptions
from gateway.requests.routes import read_routes
from gateway.requests.trusted_proxies import TrustedProxies
from mesh.wire.web_messages import WEB_METHOD, header_pairs
from tests.unit.gateway.fakes import FakeRouter
from tests.unit.gateway.web_ends import WebEnds, respond, sent_request, web_request, web_table, websocket_request

UUID_CHARS = 36


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
    assert call.request.source == "ipv4:10.0.0.1:4711", "connections take turns in the queue"
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


def test_the_path_of_a_websocket_may_name_the_model() -> None:
    """As that of a request (item 124): a page cannot send headers with a WebSocket."""
    table = web_table(zoo="/zoo")
    table.routes[0].model_id_paths.append("v2/models/{}")
    ends = WebEnds(FakeRouter(respond))
    ends.targets.set_routes(read_routes(table))
    ends.open_websocket(websocket_request("/zoo/v2/models/a%20b/stream"))
    ends.open_websocket(websocket_request("/zoo/v2/models/m", serve_multiplexed_model_id="m1"))
    assert [call.request.context.multiplexed_model_id for call in ends.router.calls] == ["a b", "m1"]


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


def test_the_root_path_is_in_front_of_the_path_of_the_application() -> None:
    """The root path is in front of the path of the application (items 54, 109)."""
    ends = WebEnds(FakeRouter(respond), WebOptions(root_path="/mesh"), shop="/shop")
    assert ends.open(web_request(path="/shop/a%20b")).status == 200
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
