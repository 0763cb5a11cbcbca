"""gRPC-Web: frames, trailers in the body, text, compression, refusals and timeouts."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.method_lookup import ServedMethods
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.exchange import BrokenBy
from gateway.web_rpc.base64_pieces import Base64Pieces
from gateway.web_rpc.envelope_reader import envelope
from gateway.web_rpc.grpc_web import GrpcWebDialect
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.message_reader import compressed, decompressed
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange, request, send_body
from tests.unit.gateway.fakes import (
    BIDI,
    CLIENT_STREAM,
    SERVER_STREAM,
    UNARY,
    FakeRouter,
    echo,
    finish,
    item,
    routes_of,
)

PROTO = "application/grpc-web+proto"
TEXT = "application/grpc-web-text"


class Answer:
    """What a client reads out of an exchange."""

    def __init__(self, exchange: FakeExchange) -> None:
        assert exchange.has_ended
        self.http_status = exchange.status
        self.headers = {name.decode(): value.decode() for name, value in exchange.fields}
        body = exchange.body
        if self.headers.get("content-type", "").startswith(TEXT):
            pieces = Base64Pieces()
            body = pieces.feed(body)
            pieces.end()
        self.messages: list[bytes] = []
        self.trailers: dict[str, str] = {}
        while body:
            flags, end = body[0], 5 + int.from_bytes(body[1:5], "big")
            data, body = body[5:end], body[end:]
            if flags & 0x80:
                assert not body, "something follows the trailers"
                self.trailers = dict(line.split(":", 1) for line in data.decode().split("\r\n") if line)
            else:
                self.messages.append(decompressed(data, self.headers["grpc-encoding"], 1000) if flags else data)

    @property
    def code(self) -> int:
        return int(self.trailers["grpc-status"])


def call(
    router: FakeRouter,
    path: str = UNARY,
    body: bytes = envelope(b"hello"),
    *fields: tuple[str, str],
    content_type: str = PROTO,
    **options: Any,
) -> FakeExchange:
    methods = ServedMethods(lambda *_: router, GrpcMetrics())
    methods.message_max_bytes = 1000
    methods.set_routes(routes_of("shop"))
    dialect = GrpcWebDialect(methods)
    step = options.pop("step", 0)
    exchange = FakeExchange(request(path, ("content-type", content_type), *fields, **options))
    assert dialect.claims(exchange.head)
    receiver = dialect.open(exchange)
    if receiver is not None:
        send_body(exchange, receiver, b64encode(body) if "text" in content_type else body, step=step)
    assert methods.metrics.in_flight.count == (0 if exchange.has_ended else 1)
    return exchange


def ends_with(outcome: Outcome) -> FakeRouter:
    return FakeRouter(lambda each: finish(each, outcome))


@pytest.mark.parametrize("content_type", [PROTO, "application/grpc-web", TEXT, TEXT + "+proto"])
@pytest.mark.parametrize("step", [0, 1])
def test_a_unary_call(content_type: str, step: int) -> None:
    answer = Answer(call(FakeRouter(echo), content_type=content_type, step=step))
    assert (answer.http_status, answer.headers["content-type"]) == (200, content_type)
    assert (answer.messages, answer.code) == ([b"hello"], 0)
    assert answer.trailers["request_id"]


def test_a_server_stream_is_sent_message_by_message() -> None:
    router = FakeRouter()
    exchange = call(router, SERVER_STREAM)
    for number in (b"1", b"2"):
        item(router.calls[0], number)
    assert exchange.pieces == [envelope(b"1"), envelope(b"2")]
    finish(router.calls[0], Outcome(trailers=(("x-sum", b"3"),)))
    answer = Answer(exchange)
    assert (answer.messages, answer.code, answer.trailers["x-sum"]) == ([b"1", b"2"], 0, "3")


@given(st.lists(st.binary(max_size=30), max_size=5), st.booleans())
def test_streams_arrive_whatever_they_hold(items: list[bytes], is_text: bool) -> None:
    def answer(each: OutgoingCall) -> None:
        for data in items:
            item(each, data)
        finish(each, Outcome())

    exchange = call(FakeRouter(answer), SERVER_STREAM, content_type=TEXT if is_text else PROTO)
    assert Answer(exchange).messages == items


def test_metadata_goes_both_ways() -> None:
    def answer(each: OutgoingCall) -> None:
        each.sink.on_initial_metadata((("x-first", b"1"), ("x-raw-bin", b"\xfb\xff")))
        finish(each, Outcome(payload=raw(b""), trailers=(("x-last-bin", b"\0"),)))

    router = FakeRouter(answer)
    fields = [("x-tenant", "t"), ("x-key-bin", "AAE"), ("x-grpc-web", "1"), ("x-user-agent", "web"), ("accept", "*/*")]
    got = Answer(call(router, UNARY, envelope(b""), *fields, ("request_id", "r1")))
    assert set(router.calls[0].request.metadata) == {
        ("x-tenant", "t"),
        ("x-key-bin", b"\0\1"),
        ("x-user-agent", "web"),
        ("request_id", "r1"),
    }
    assert (got.headers["x-first"], got.headers["x-raw-bin"]) == ("1", "+/8")
    assert (got.trailers["x-last-bin"], got.trailers["request_id"]) == ("AA", "r1")
    assert got.messages == [b""]


def test_an_error_has_its_message_quoted_and_its_details() -> None:
    failure = Outcome(code=5, message="kein Käse\n", trailers=(("grpc-status-details-bin", b"\x08\x05"),))
    answer = Answer(call(ends_with(failure)))
    assert (answer.code, answer.messages) == (5, [])
    assert answer.trailers["grpc-message"] == "kein K%C3%A4se%0A"
    assert b64decode(answer.trailers["grpc-status-details-bin"] + "==") == b"\x08\x05"


def test_an_error_behind_messages_is_the_end_of_the_stream() -> None:
    router = FakeRouter()
    exchange = call(router, SERVER_STREAM)
    item(router.calls[0], b"1")
    finish(router.calls[0], Outcome(code=13, message="broken"))
    answer = Answer(exchange)
    assert (answer.messages, answer.code) == ([b"1"], 13)


@pytest.mark.usefixtures("on_a_loop")
def test_compressed_messages_are_read_and_sent_as_far_as_the_client_accepts_them() -> None:
    long = b"a" * 500

    def answer(each: OutgoingCall) -> None:
        each.sink.on_compression("gzip", skips_next=False)
        echo(each)

    body = envelope(compressed(long, "gzip"), 1)
    for accepted, encoding in (("identity,deflate, gzip", "gzip"), ("deflate", None), ("", None)):
        fields = [("grpc-encoding", "gzip"), ("grpc-accept-encoding", accepted)]
        got = Answer(call(FakeRouter(answer), UNARY, body, *fields))
        assert (got.messages, got.headers.get("grpc-encoding")) == ([long], encoding)


@pytest.mark.usefixtures("on_a_loop")
@pytest.mark.parametrize(
    ("path", "body", "fields", "code"),
    [
        ("/shop.Store/Absent", envelope(b""), [], 12),
        (UNARY, envelope(b""), [("application", "absent")], 5),
        (CLIENT_STREAM, envelope(b""), [], 12),
        (BIDI, envelope(b""), [], 12),
        (UNARY, b"", [], 12),
        (UNARY, envelope(b"") * 2, [], 12),
        (SERVER_STREAM, b"", [], 12),
        (SERVER_STREAM, envelope(b"") * 2, [], 12),
        (UNARY, envelope(b""), [("grpc-encoding", "foo")], 12),
        (UNARY, envelope(b"", 1) + b"", [("grpc-encoding", "identity")], 13),
        (UNARY, envelope(b"cut off")[:-1], [], 13),
        (UNARY, envelope(b"not gzip", 1), [("grpc-encoding", "gzip")], 13),
        (UNARY, envelope(b"x" * 1001), [], 8),
        (UNARY, envelope(b""), [("grpc-timeout", "soon")], 3),
        (UNARY, envelope(b""), [("x-bin", "?")], 3),
    ],
)
def test_wrong_requests_are_answered_in_the_body(
    path: str, body: bytes, fields: list[tuple[str, str]], code: int
) -> None:
    """The Connect conformance suites "gRPC-Web Unexpected Requests" and "Unexpected Requests" among them."""
    router = FakeRouter(echo)
    answer = Answer(call(router, path, body, *fields))
    assert (answer.http_status, answer.code, router.calls) == (200, code, [])
    assert answer.trailers["grpc-message"]
    assert answer.trailers["request_id"]
    if code == 12:
        assert "gzip" in answer.trailers["grpc-accept-encoding"]


def test_bad_base64_ends_the_call() -> None:
    router = FakeRouter(echo)
    methods = ServedMethods(lambda *_: router, GrpcMetrics())
    methods.message_max_bytes = 1000
    methods.set_routes(routes_of("shop"))
    exchange = FakeExchange(request(UNARY, ("content-type", TEXT)))
    receiver = GrpcWebDialect(methods).open(exchange)
    assert receiver is not None
    receiver.on_body(b"AAAA????")
    assert (Answer(exchange).code, router.calls) == (13, [])


def test_another_codec_than_protobuf_and_another_verb_are_refused() -> None:
    router = FakeRouter(echo)
    assert call(router, content_type="application/grpc-web+json").status == 415
    refused = call(router, method="DELETE")
    assert (refused.status, refused.by_name[b"allow"]) == (405, b"POST")
    assert router.calls == []


def test_the_clients_deadline_is_the_calls() -> None:
    router = FakeRouter()
    before_s = time.monotonic()
    call(router, UNARY, envelope(b""), ("grpc-timeout", "10S"))
    deadline_at_s = router.calls[0].request.deadline_at_s
    assert deadline_at_s is not None
    assert 10 <= deadline_at_s - before_s < 20


def test_a_client_that_leaves_cancels_its_call() -> None:
    router = FakeRouter()
    methods = ServedMethods(lambda *_: router, GrpcMetrics())
    methods.message_max_bytes = 1000
    methods.set_routes(routes_of("shop"))
    exchange = FakeExchange(request(SERVER_STREAM, ("content-type", PROTO)))
    receiver = GrpcWebDialect(methods).open(exchange)
    assert receiver is not None
    send_body(exchange, receiver, envelope(b""))
    exchange.break_off()
    receiver.on_broken(BrokenBy.CLIENT)
    assert router.cancel_reasons == [CancelReason.CLIENT]
    assert methods.metrics.in_flight.count == 0


@pytest.mark.parametrize("make", [lambda: FakeRouter(echo)])
@given(body=st.binary(max_size=100), is_text=st.booleans())
def test_hostile_bodies_end_with_a_status(make: Callable[[], FakeRouter], body: bytes, is_text: bool) -> None:
    methods = ServedMethods(lambda *_: make(), GrpcMetrics())
    methods.message_max_bytes = 50
    methods.set_routes(routes_of("shop"))
    exchange = FakeExchange(request(UNARY, ("content-type", TEXT if is_text else PROTO)))
    receiver = GrpcWebDialect(methods).open(exchange)
    assert receiver is not None
    send_body(exchange, receiver, body, step=7)
    assert Answer(exchange).code in (0, 3, 8, 12, 13)
    assert methods.metrics.in_flight.count == exchange.share.used_bytes == 0
