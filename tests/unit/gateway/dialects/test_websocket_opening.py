"""The opening of WebSockets: what reaches the application, and how it accepts or refuses."""

from __future__ import annotations

import logging

import pytest

from gateway.dialects.web_target import WebOptions
from gateway.requests.exchange import BrokenBy
from mesh.exceptions import BackPressureError, CancelReason
from mesh.http2.limits import BufferBudget, BufferShare
from mesh.v1 import web_pb2
from mesh.wire.outcome import Outcome, failed, failed_in_user_code
from mesh.wire.web_messages import (
    decode_request,
    encode_accept,
    encode_close,
    encode_denial,
    encode_message,
    header_pairs,
)
from tests.unit.gateway.dialects.socket_ends import Socket
from tests.unit.gateway.fakes import finish, item
from tests.unit.gateway.web_ends import WebEnds, websocket_request

pytestmark = pytest.mark.usefixtures("on_a_loop")


def test_the_application_sees_one_request_id() -> None:
    """Its own, or one that the gateway has made."""
    for headers, count in (({"x_request_id": "r1"}, 0), ({}, 1)):
        socket = Socket(**headers)
        request = decode_request(socket.ends.router.link.items[0])
        ids = [value for name, value in header_pairs(request.headers) if name == b"x-request-id"]
        assert ids == [socket.ends.call.request.context.request_id.encode()]
        assert len(request.headers) // 2 - len(socket.exchange.head.fields) == count


def test_the_handshake_goes_to_the_application_without_a_deadline() -> None:
    """The handshake goes to the application without a deadline (items 111, 204)."""
    socket = Socket(sec_websocket_protocol="chat, v2", x_request_id="r1")
    call = socket.ends.call
    assert (call.request.streams_request, call.request.streams_response, call.request.deadline_at_s) == (
        True,
        True,
        None,
    )
    assert call.request.source == "ipv4:10.0.0.1:4711", "connections take turns in the queue"
    request = decode_request(socket.ends.router.link.items[0])
    assert (request.is_websocket, request.scheme, list(request.subprotocols)) == (True, "ws", ["chat", "v2"])
    assert (request.raw_path, request.root_path) == (b"/shop/chat", "/shop")
    assert not socket.exchange.has_sent_head
    assert repr(socket.connection) == "<WebSocketConnection handshake, waiting: 0 messages, 0 bytes>"
    socket.accept("v2", (b"x-extra", b"1"))
    assert repr(socket.connection) == "<WebSocketConnection open, waiting: 0 messages, 0 bytes>"
    exchange = socket.exchange
    assert exchange.is_tunnel
    assert (exchange.field("sec-websocket-protocol"), exchange.field("x-extra")) == ("v2", "1")
    assert exchange.field("x-request-id") == "r1"
    assert socket.ends.metrics.websockets == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec_websocket_version": "8"}, 426),
        ({"sec_websocket_key": "short"}, 400),
        ({"sec_websocket_key": "not base64!"}, 400),
        ({"sec_websocket_protocol": "a, , (b)"}, 400),
        ({"sec_websocket_extensions": "permessage-deflate; ="}, 400),
    ],
)
def test_a_wrong_handshake_makes_no_call(headers: dict[str, str], status: int) -> None:
    ends = WebEnds()
    exchange = ends.open_websocket(websocket_request(**headers))
    assert exchange.status == status
    assert ends.router.calls == []
    assert exchange.field("sec-websocket-version") == ("13" if status == 426 else None)
    assert ends.count("shop", "/", "WS", str(status)) == 1
    ends.assert_idle()


def test_a_socket_that_no_application_serves_is_not_found() -> None:
    """A socket that no application serves is not found (item 203)."""
    ends = WebEnds(shop="/shop")
    assert ends.open_websocket(websocket_request("/else")).status == 404
    assert ends.count("other", "other", "WS", "404") == 1


def test_an_application_that_closes_at_once_refuses() -> None:
    """An application that closes at once refuses (item 111)."""
    socket = Socket()
    item(socket.ends.call, encode_close(1000))
    assert socket.exchange.status == 403
    assert socket.ends.count("shop", "/shop", "WS", "403") == 1
    socket.ends.assert_idle()


def test_an_application_that_ends_without_a_word_refuses() -> None:
    socket = Socket()
    finish(socket.ends.call, Outcome())
    assert socket.exchange.status == 403
    socket.ends.assert_idle()


def test_a_socket_is_counted_and_logged_by_the_route_of_its_application(caplog: pytest.LogCaptureFixture) -> None:
    """A WebSocket is named like a request by its route (items 111, 210)."""
    socket = Socket(options=WebOptions(has_access_log=True))
    item(socket.ends.call, encode_accept(None, [], "/chat/{room}"))
    with caplog.at_level(logging.INFO, "mesh.access"):
        finish(socket.ends.call, Outcome())
    assert socket.ends.count("shop", "/shop/chat/{room}", "WS", "101") == 1
    assert caplog.messages[0].startswith("WS /shop/chat/{room} 101 ")


def test_an_application_may_answer_as_it_likes_instead() -> None:
    socket = Socket()
    response = web_pb2.WebResponse(status=401, headers=[b"www-authenticate", b"Bearer"], body=b"who?", route="/{room}")
    item(socket.ends.call, web_pb2.WebSocketEvent(deny=response).SerializeToString())
    assert (socket.exchange.status, socket.exchange.body) == (401, b"who?")
    finish(socket.ends.call, Outcome())
    assert socket.ends.count("shop", "/shop/{room}", "WS", "401") == 1
    socket.ends.assert_idle()


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (failed(BackPressureError(num_queued_requests=1, max_queued_requests=1)), 503),
        (failed_in_user_code(ValueError("x")), 500),
    ],
)
def test_a_call_that_fails_before_it_accepts_has_the_status_of_a_request(outcome: Outcome, status: int) -> None:
    """A call that fails before it accepts has the status of a request (item 144)."""
    socket = Socket()
    finish(socket.ends.call, outcome)
    assert socket.exchange.status == status
    socket.ends.assert_idle()


@pytest.mark.parametrize(
    "event",
    [encode_accept("a\r\nb", []), encode_accept(None, [(b"x", b"a\r\nb: c")]), encode_message("early"), b"\xff"],
)
def test_a_wrong_event_ends_the_handshake(event: bytes) -> None:
    socket = Socket()
    item(socket.ends.call, event)
    assert (socket.exchange.status, socket.exchange.has_ended) == (500, True)
    socket.ends.assert_idle()


def test_a_client_that_leaves_before_it_is_accepted_cancels_the_call() -> None:
    """A client that leaves before it is accepted cancels the call (item 207)."""
    socket = Socket()
    socket.exchange.break_by(BrokenBy.CLIENT)
    assert socket.ends.router.cancel_reasons == [CancelReason.CLIENT]
    assert socket.ends.count("shop", "/shop", "WS", "499") == 1
    socket.ends.assert_idle()


def test_what_a_client_sends_before_it_is_accepted_counts_as_buffered() -> None:
    socket = Socket(share=BufferShare(BufferBudget(2_000)))
    socket.exchange.receiver.on_body(b"x" * 900)
    assert socket.exchange.share.used_bytes == 900
    socket.exchange.receiver.on_body(b"x" * 200)
    assert socket.exchange.is_aborted
    assert not socket.exchange.share.used_bytes
    socket.ends.assert_idle()


@pytest.mark.parametrize(
    "event", [encode_close(1000), encode_denial(web_pb2.WebResponse(status=401)), encode_message("too early"), None]
)
def test_what_a_client_has_sent_before_it_is_refused_does_not_stay_counted(event: bytes | None) -> None:
    """It would for the life of the gateway: over HTTP/2 anyone can send it for a path of a web application."""
    socket = Socket()
    socket.exchange.receiver.on_body(b"x" * 100)
    assert socket.exchange.share.used_bytes == 100
    if event is not None:
        item(socket.ends.call, event)
    if socket.ends.call not in socket.ends.router.cancelled:
        finish(socket.ends.call, Outcome())
    assert (socket.exchange.has_ended, socket.exchange.share.used_bytes) == (True, 0)
    socket.ends.assert_idle()
