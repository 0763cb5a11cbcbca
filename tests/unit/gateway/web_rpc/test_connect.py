"""Unary calls of Connect: both codecs, GET, errors, and what is refused."""

from __future__ import annotations

import json
import math
import time
from base64 import b64encode, urlsafe_b64encode
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import any_pb2, struct_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from gateway.web_rpc.connect import ConnectDialect
from gateway.web_rpc.envelope_reader import envelope
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.message_reader import compressed
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange, request, send_body
from tests.unit.fakes.shop_routes import (
    LIST,
    MESSAGE_MAX_BYTES,
    PRICE,
    STOCK_COUNT,
    STOCK_PRICE,
    TOTAL,
    shop_methods,
    shop_routes,
)
from tests.unit.gateway.fakes import FakeRouter, allow, echo, finish
from tests.unit.gateway.web_rpc.connect_ends import PEAR, PROTO, Answer, begin, call, get
from tests.unit.protos.shop_pb2 import Item

JSON = b'{"name": "P\xc3\xa4r", "amount": "1099511627776"}'
CODES = [
    "canceled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
]


def ends_with(outcome: Outcome) -> FakeRouter:
    return FakeRouter(lambda each: finish(each, outcome))


# ---- Unary -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1])
def test_a_unary_call_of_protobuf(step: int) -> None:
    router = FakeRouter(echo)
    answer = Answer(call(router, step=step))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/proto")
    assert (answer.messages, answer.code) == ([PROTO], "ok")
    assert answer.trailers["request_id"] == answer.headers["x-request-id"]


def test_a_unary_call_of_json() -> None:
    router = FakeRouter(echo)
    answer = Answer(call(router, PRICE, JSON, content_type="application/json"))
    assert Item.FromString(bytes(router.calls[0].request.payload.data)) == PEAR  # type: ignore[union-attr]
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == {"name": "Pär", "amount": "1099511627776"}


def test_json_may_have_fields_of_a_newer_version() -> None:
    answer = Answer(call(FakeRouter(echo), PRICE, b'{"colour": "green"}', content_type="application/json"))
    assert json.loads(answer.body) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"amount": "many"}',
        b'{"amount": 1e400}',
        b"[" * 900,
        b'{"a":' * 150,
        b'{"name": 1}',
    ],
)
def test_what_is_no_json_of_the_message_is_invalid_argument(body: bytes) -> None:
    router = FakeRouter(echo)
    answer = Answer(call(router, PRICE, body, content_type="application/json"))
    assert (answer.status, answer.code, router.calls) == (400, "invalid_argument", [])


def test_a_response_that_is_no_message_cannot_be_json() -> None:
    answer = Answer(call(ends_with(Outcome(payload=raw(b"\xff"))), PRICE, b"{}", content_type="application/json"))
    assert (answer.status, answer.code) == (500, "internal")


def test_json_needs_descriptors() -> None:
    answer = Answer(call(FakeRouter(echo), PRICE, b"{}", content_type="application/json", has_descriptors=False))
    assert (answer.status, answer.code) == (501, "unimplemented")
    assert Answer(call(FakeRouter(echo), has_descriptors=False)).code == "ok"


def test_metadata_goes_both_ways() -> None:
    def answer(each: OutgoingCall) -> None:
        each.sink.on_initial_metadata(
            (("x-first", b"1"), ("x-raw-bin", b"\xfb\xff"), ("x-many", b"a"), ("x-many", b"b"), ("connect-own", b""))
        )
        finish(each, Outcome(payload=raw(b""), trailers=(("x-last", b"2"), ("x-last-bin", b"\0"))))

    router = FakeRouter(answer)
    exchange = call(router, PRICE, PROTO, ("x-tenant", "t"), ("x-key-bin", "AAE="), ("request_id", "r1"))
    assert set(router.calls[0].request.metadata) == {("x-tenant", "t"), ("x-key-bin", b"\0\1"), ("request_id", "r1")}
    assert [value for name, value in exchange.fields if name == b"x-many"] == [b"a", b"b"]
    got = Answer(exchange)
    assert (got.headers["x-first"], got.headers["x-raw-bin"]) == ("1", "+/8")
    assert got.trailers == {"x-last": "2", "x-last-bin": "AA", "request_id": "r1"}
    assert "connect-own" not in got.headers


@pytest.mark.parametrize(("number", "name"), list(enumerate(CODES, start=1)))
def test_every_code_has_its_name_and_status(number: int, name: str) -> None:
    statuses = [499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]
    text = "\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\n"
    failure = Outcome(code=number, message=text, trailers=(("x-a", b"1"),))
    answer = Answer(call(ends_with(failure)))
    assert (answer.status, answer.error) == (statuses[number - 1], {"code": name, "message": text})
    assert (answer.headers["content-type"], answer.trailers["x-a"]) == ("application/json", "1")
    stream = Answer(call(ends_with(failure), LIST, envelope(PROTO), content_type="application/connect+proto"))
    assert (stream.status, stream.error, stream.trailers["x-a"]) == (200, {"code": name, "message": text}, ["1"])


def test_details_are_part_of_the_error() -> None:
    status = status_pb2.Status(code=14, message="later")
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay={"seconds": 30}))
    status.details.add().Pack(PEAR)
    status.details.append(any_pb2.Any(type_url="type.googleapis.com/un.Known", value=b"\xff"))
    failure = Outcome(
        code=14, message="later", trailers=(("grpc-status-details-bin", status.SerializeToString()), ("x", b"y"))
    )
    for exchange in (
        call(ends_with(failure)),
        call(ends_with(failure), LIST, envelope(b"{}"), content_type="application/connect+json"),
    ):
        answer = Answer(exchange)
        assert answer.error is not None
        assert answer.error["details"] == [
            {"type": "google.rpc.RetryInfo", "value": "CgIIHg", "debug": {"retryDelay": "30s"}},
            {
                "type": "mesh.tests.Item",
                "value": b64encode(PROTO).decode().rstrip("="),
                "debug": {"name": "Pär", "amount": "1099511627776"},
            },
            {"type": "un.Known", "value": "/w"},
        ]
        assert "grpc-status-details-bin" not in answer.trailers
        assert "x" in answer.trailers


def test_a_detail_that_json_cannot_hold_keeps_its_bytes() -> None:
    status = status_pb2.Status(code=13, message="m")
    status.details.add().Pack(struct_pb2.Value(number_value=math.nan))
    failure = Outcome(code=13, message="m", trailers=(("grpc-status-details-bin", status.SerializeToString()),))
    (detail,) = (Answer(call(ends_with(failure))).error or {})["details"]
    assert detail == {"type": "google.protobuf.Value", "value": "EQAAAAAAAPh/"}


def test_details_that_are_none_are_left_out() -> None:
    failure = Outcome(code=13, message="m", trailers=(("grpc-status-details-bin", b"\xff"),))
    assert Answer(call(ends_with(failure))).error == {"code": "internal", "message": "m"}


# ---- GET -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_a_loop")
def test_a_get_of_a_method_without_side_effects() -> None:
    text = urlsafe_b64encode(PROTO).decode()
    small = urlsafe_b64encode(compressed(PROTO, "gzip")).decode()
    for query in (
        f"connect=v1&base64=1&encoding=proto&message={text.rstrip('=')}",
        f"message={quote(text)}&x=1&encoding=proto&base64=1&connect=v1",
        f"connect=v1&base64=1&compression=gzip&encoding=proto&message={small}",
    ):
        answer = Answer(get(FakeRouter(echo), query))
        assert (answer.status, answer.messages) == (200, [PROTO])
    answer = Answer(get(FakeRouter(echo), f"connect=v1&encoding=json&message={quote(JSON)}"))
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["name"] == "Pär"
    assert Answer(get(FakeRouter(echo), "connect=v1&encoding=proto&message=")).messages == [b""]


def test_a_get_with_a_body_is_refused() -> None:
    """Its bytes would add fields to the message of the query, by which caches know the answer."""
    router = FakeRouter(echo)
    query = f"connect=v1&base64=1&encoding=proto&message={urlsafe_b64encode(PROTO).decode()}"
    exchange, receiver = begin(router, STOCK_PRICE, method="GET", query=query.encode())
    send_body(exchange, receiver, PROTO)
    assert (Answer(exchange).status, Answer(exchange).code, router.calls) == (400, "invalid_argument", [])


def test_a_get_has_its_timeout_in_a_field() -> None:
    router = FakeRouter()
    before_s = time.monotonic()
    get(router, "connect=v1&encoding=proto&message=", STOCK_PRICE, ("connect-timeout-ms", "10000"))
    assert 10 <= (router.calls[0].request.deadline_at_s or 0) - before_s < 20


@pytest.mark.usefixtures("on_a_loop")
@pytest.mark.parametrize(
    ("query", "path", "status"),
    [
        ("connect=v1&encoding=proto&message=", PRICE, 405),
        ("connect=v1&encoding=proto&message=", STOCK_COUNT, 405),
        ("connect=v1&encoding=proto&message=", LIST, 415),
        ("connect=v1&encoding=proto&message=", "/mesh.tests.Stock/Absent", 404),
        ("connect=v1&encoding=xml&message=", STOCK_PRICE, 415),
        ("connect=v1&encoding=proto", STOCK_PRICE, 400),
        ("connect=v1&message=", STOCK_PRICE, 400),
        ("connect=v1&base64=1&encoding=proto&message=%2F%2F%2F%2F", STOCK_PRICE, 400),
        ("connect=v1&base64=1&encoding=proto&message=A", STOCK_PRICE, 400),
        ("connect=v1&encoding=proto&message=&message=x", STOCK_PRICE, 400),
        ("connect=v1&encoding=proto&message=&%65ncoding=json", STOCK_PRICE, 400),
        ("connect=v1&compression=br&encoding=proto&message=", STOCK_PRICE, 501),
        ("connect=v1&compression=gzip&encoding=proto&message=x", STOCK_PRICE, 400),
        (f"connect=v1&encoding=proto&message={'x' * (MESSAGE_MAX_BYTES + 1)}", STOCK_PRICE, 429),
    ],
)
def test_wrong_gets_are_refused(query: str, path: str, status: int) -> None:
    router = FakeRouter(echo)
    assert (get(router, query, path).status, router.calls) == (status, [])


# ---- The conformance suites of Connect, as far as a gateway decides --------------------------------------------------

STREAM = "application/connect+proto"


@pytest.mark.usefixtures("on_a_loop")
@pytest.mark.parametrize(
    ("path", "body", "fields", "options", "status", "code"),
    [
        # Connect Unexpected Requests
        (LIST, b"", [], {"content_type": STREAM}, 200, "unimplemented"),
        (LIST, envelope(b"") * 2, [], {"content_type": STREAM}, 200, "unimplemented"),
        (PRICE, b"", [], {"method": "DELETE"}, 405, None),
        ("/mesh.tests.Absent/Price", b"", [], {}, 404, "unimplemented"),
        ("/mesh.tests.Absent/List", envelope(b""), [], {"content_type": STREAM}, 200, "unimplemented"),
        (PRICE, b"", [], {"content_type": "application/foo"}, 415, None),
        (PRICE, b"", [], {"content_type": "application/connect+foo"}, 415, None),
        (PRICE, PROTO, [("content-encoding", "foo")], {}, 501, "unimplemented"),
        (PRICE, PROTO, [("content-encoding", "gzip"), ("content-encoding", "gzip")], {}, 501, "unimplemented"),
        (LIST, envelope(b""), [("connect-content-encoding", "foo")], {"content_type": STREAM}, 200, "unimplemented"),
        (
            LIST,
            envelope(b"x", 1),
            [("connect-content-encoding", "identity")],
            {"content_type": STREAM},
            200,
            "internal",
        ),
        # Unexpected Requests
        (PRICE, b"12345678", [], {"content_type": "image/jpeg"}, 415, None),
        # Server Message Size
        (PRICE, b"x" * (MESSAGE_MAX_BYTES + 10), [], {}, 429, "resource_exhausted"),
        (LIST, envelope(b"x" * (MESSAGE_MAX_BYTES + 1)), [], {"content_type": STREAM}, 200, "resource_exhausted"),
        (TOTAL, envelope(b"x" * (MESSAGE_MAX_BYTES + 1)), [], {"content_type": STREAM}, 200, "resource_exhausted"),
        # Rules of the protocol that no suite has
        (PRICE, PROTO, [("connect-protocol-version", "2")], {}, 400, "invalid_argument"),
        (PRICE, PROTO, [("connect-timeout-ms", "soon")], {}, 400, "invalid_argument"),
        (PRICE, PROTO, [("connect-timeout-ms", "12345678901")], {}, 400, "invalid_argument"),
        (PRICE, PROTO, [("application", "absent")], {}, 404, "not_found"),
        (PRICE, PROTO, [("x-bin", "?")], {}, 400, "invalid_argument"),
        (LIST, PROTO, [], {}, 415, None),
        (PRICE, envelope(PROTO), [], {"content_type": STREAM}, 415, None),
        (TOTAL, envelope(b"{}", 2), [], {"content_type": STREAM}, 200, "internal"),
        (TOTAL, envelope(b"cut off")[:-1], [], {"content_type": STREAM}, 200, "invalid_argument"),
        (TOTAL, b"\0\0", [], {"content_type": STREAM}, 200, "invalid_argument"),
        (LIST, envelope(b"cut off")[:-1], [], {"content_type": STREAM}, 200, "invalid_argument"),
        (PRICE, compressed(b"x" * 10_000, "gzip"), [("content-encoding", "gzip")], {}, 429, "resource_exhausted"),
        (PRICE, PROTO, [("content-encoding", "gzip")], {}, 400, "invalid_argument"),
        (PRICE, compressed(PROTO, "gzip")[:-1], [("content-encoding", "gzip")], {}, 400, "invalid_argument"),
        (
            TOTAL,
            envelope(PROTO, 1),
            [("connect-content-encoding", "gzip")],
            {"content_type": STREAM},
            200,
            "invalid_argument",
        ),
    ],
)
def test_wrong_requests(
    path: str, body: bytes, fields: list[tuple[str, str]], options: dict[str, Any], status: int, code: str | None
) -> None:
    router = FakeRouter(lambda each: allow(each, 100))
    exchange = call(router, path, body, *fields, **options)
    answer = Answer(exchange)
    assert answer.status == status
    assert answer.headers.get("x-request-id") != "", "an id, or none"
    if code is None:
        assert not exchange.body
        assert exchange.by_name.keys() & {b"allow", b"accept-post"}
    else:
        assert (answer.code, bool(answer.error and answer.error["message"])) == (code, True)


def test_a_plain_post_of_json_is_not_of_this_dialect() -> None:
    dialect = ConnectDialect(shop_methods(FakeRouter()))
    head = request(PRICE, ("content-type", "application/json"))
    assert not dialect.claims(head)
    assert not dialect.claims(request(PRICE, method="GET", query=b"message=connect%3Dv1"))


def test_a_route_prefix_names_the_application() -> None:
    router = FakeRouter(echo)
    methods = shop_methods(router)
    methods.set_routes(shop_routes("shop", "other"))
    exchange = FakeExchange(request("/other" + PRICE, ("content-type", "application/proto")))
    send_body(exchange, ConnectDialect(methods).open(exchange), PROTO)  # type: ignore[arg-type]
    assert (exchange.status, router.calls[0].request.context.app) == (200, "other")
    assert router.calls[0].request.method == PRICE


@given(body=st.binary(max_size=100), codec=st.sampled_from(["proto", "json"]), streams=st.booleans())
def test_hostile_bodies_end_with_a_status(body: bytes, codec: str, streams: bool) -> None:
    kind = f"application/{'connect+' if streams else ''}{codec}"
    router = FakeRouter(lambda each: finish(each, Outcome(payload=raw(b""))))
    exchange = call(router, LIST if streams else PRICE, body, content_type=kind, step=7)
    assert Answer(exchange).code in ("ok", "invalid_argument", "internal", "unimplemented", "resource_exhausted")
    assert exchange.share.used_bytes == 0
