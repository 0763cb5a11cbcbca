"""Connect: unary calls, GET, streams, both codecs, compression, errors, and the conformance suites as a table."""

from __future__ import annotations

import asyncio
import json
import math
import time
from base64 import b64encode, urlsafe_b64encode
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import any_pb2, json_format, struct_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.exchange import BrokenBy
from gateway.web_rpc.connect import ConnectDialect
from gateway.web_rpc.envelope_reader import envelope
from gateway.web_rpc.grpc_web import GrpcWebDialect
from gateway.web_rpc.message_codec import ON_LOOP_MAX_BYTES
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.message_reader import compressed, decompressed
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange, request, send_body
from tests.unit.fakes.shop_routes import (
    HAGGLE,
    LIST,
    MESSAGE_MAX_BYTES,
    PRICE,
    STOCK_COUNT,
    STOCK_PRICE,
    TOTAL,
    shop_methods,
    shop_routes,
)
from tests.unit.gateway.fakes import FakeRouter, allow, echo, finish, item, until
from tests.unit.protos.shop_pb2 import Item

PEAR = Item(name="Pär", amount=2**40)
PROTO = PEAR.SerializeToString()
JSON = b'{"name": "P\xc3\xa4r", "amount": "1099511627776"}'
VERSION = ("connect-protocol-version", "1")
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


class Answer:
    """What a client reads out of an exchange."""

    def __init__(self, exchange: FakeExchange) -> None:
        assert exchange.has_ended
        self.status = exchange.status
        self.headers: dict[str, str] = {}
        for name, value in exchange.fields:
            self.headers.setdefault(name.decode(), value.decode())
        self.body = exchange.body
        self.messages: list[bytes] = []
        self.error: dict[str, Any] | None = None
        self.trailers: dict[str, Any] = {}
        content_type = self.headers.get("content-type", "")
        if content_type.startswith("application/connect+"):
            self._read_stream()
        else:
            self.trailers = {
                name.removeprefix("trailer-"): value
                for name, value in self.headers.items()
                if name.startswith("trailer-")
            }
            if self.status == 200:
                data = self.body
                encoding = self.headers.get("content-encoding")
                self.messages.append(decompressed(data, encoding, 10_000) if encoding else data)
            elif content_type == "application/json":
                self.error = json.loads(self.body)

    def _read_stream(self) -> None:
        body, end = self.body, None
        while body:
            assert end is None, "something follows the end of the stream"
            flags, stop = body[0], 5 + int.from_bytes(body[1:5], "big")
            data, body = body[5:stop], body[stop:]
            if flags & 2:
                end = json.loads(data)
            else:
                encoding = self.headers.get("connect-content-encoding", "")
                self.messages.append(decompressed(data, encoding, 10_000) if flags & 1 else data)
        assert end is not None, "the stream has no end"
        self.error = end.get("error")
        self.trailers = end.get("metadata", {})

    @property
    def code(self) -> str:
        return "ok" if self.error is None else self.error["code"]


def begin(
    router: FakeRouter, path: str, *fields: tuple[str, str], method: str = "POST", query: bytes = b"", **options: Any
) -> tuple[FakeExchange, Any]:
    dialect = ConnectDialect(shop_methods(router, **options))
    exchange = FakeExchange(request(path, *fields, method=method, query=query))
    assert dialect.claims(exchange.head)
    return exchange, dialect.open(exchange)


def call(
    router: FakeRouter,
    path: str = PRICE,
    body: bytes = PROTO,
    *fields: tuple[str, str],
    content_type: str = "application/proto",
    step: int = 0,
    **options: Any,
) -> FakeExchange:
    exchange, receiver = begin(router, path, ("content-type", content_type), VERSION, *fields, **options)
    if receiver is not None:
        send_body(exchange, receiver, body, step=step)
    return exchange


def get(router: FakeRouter, query: str, path: str = STOCK_PRICE, *fields: tuple[str, str]) -> FakeExchange:
    exchange, receiver = begin(router, path, *fields, method="GET", query=query.encode())
    if receiver is not None and not exchange.has_ended:
        receiver.on_end()
    return exchange


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


def test_large_json_is_translated_while_the_loop_goes_on() -> None:
    """In a thread, both ways; what is wrong with it is still INVALID_ARGUMENT."""
    large = Item(name="x" * (2 * ON_LOOP_MAX_BYTES), amount=1)
    text = json_format.MessageToJson(large).encode()

    async def ask(body: bytes) -> Answer:
        router = FakeRouter(echo)
        methods = shop_methods(router)
        methods.message_max_bytes = 10 * ON_LOOP_MAX_BYTES
        methods.set_routes(shop_routes("shop"))
        exchange = FakeExchange(request(PRICE, ("content-type", "application/json"), VERSION))
        receiver = ConnectDialect(methods).open(exchange)
        assert receiver is not None
        send_body(exchange, receiver, body, step=10_000)
        assert not exchange.has_ended
        await until(lambda: exchange.has_ended, "the answer")
        assert methods.metrics.in_flight.count == exchange.share.used_bytes == 0
        return Answer(exchange)

    answer = asyncio.run(ask(text))
    assert json.loads(answer.body) == {"name": large.name, "amount": "1"}
    wrong = asyncio.run(ask(text.replace(b"1", b"true")))
    assert (wrong.status, wrong.code) == (400, "invalid_argument")


def test_a_client_may_leave_while_its_large_json_is_translated() -> None:
    async def leave() -> None:
        router = FakeRouter(echo)
        methods = shop_methods(router)
        methods.message_max_bytes = 10 * ON_LOOP_MAX_BYTES
        methods.set_routes(shop_routes("shop"))
        exchange = FakeExchange(request(PRICE, ("content-type", "application/json"), VERSION))
        receiver = ConnectDialect(methods).open(exchange)
        assert receiver is not None
        send_body(exchange, receiver, b'{"name": "' + b"x" * (2 * ON_LOOP_MAX_BYTES) + b'"}')
        exchange.break_off()
        receiver.on_broken(BrokenBy.CLIENT)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        assert (router.calls, methods.metrics.in_flight.count) == ([], 0)

    asyncio.run(leave())


@pytest.mark.parametrize("step", ["decode", "encode"])
def test_a_fault_of_ours_in_the_thread_ends_the_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(f"gateway.web_rpc.message_codec.JsonCodec.{step}", fail)

    async def ask() -> Answer:
        methods = shop_methods(FakeRouter(echo))
        methods.message_max_bytes = 10 * ON_LOOP_MAX_BYTES
        methods.set_routes(shop_routes("shop"))
        exchange = FakeExchange(request(PRICE, ("content-type", "application/json"), VERSION))
        receiver = ConnectDialect(methods).open(exchange)
        assert receiver is not None
        send_body(exchange, receiver, b'{"name": "' + b"x" * (2 * ON_LOOP_MAX_BYTES) + b'"}')
        await until(lambda: exchange.has_ended, "the answer")
        assert methods.metrics.in_flight.count == exchange.share.used_bytes == 0
        return Answer(exchange)

    assert asyncio.run(ask()).error == {"code": "internal", "message": "The gateway failed; its log has the reason."}
    assert "a fault of ours" in caplog.text


def test_json_is_no_longer_than_that_of_other_json_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf may be as long as gRPC allows; JSON is translated, which takes far more time and memory."""
    limits = settings()
    limited = replace(limits, gateway=replace(limits.gateway, json_max_bytes=100))
    monkeypatch.setattr("gateway.dialects.served_method.settings", lambda: limited)
    large = Item(name="x" * 200)
    seen = []
    for kind, body in (("json", json_format.MessageToJson(large).encode()), ("proto", large.SerializeToString())):
        exchange, receiver = begin(FakeRouter(echo), PRICE, ("content-type", f"application/{kind}"), VERSION)
        send_body(exchange, receiver, body)
        seen.append((exchange.status, Answer(exchange).code))
    assert seen == [(429, "resource_exhausted"), (200, "ok")]


@pytest.mark.parametrize("kind", ["application/proto", "application/connect+proto", "application/grpc-web+proto"])
def test_compressed_messages_have_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    limits = settings()
    limited = replace(limits, gateway=replace(limits.gateway, decompressed_max_bytes=100))
    monkeypatch.setattr("gateway.dialects.served_method.settings", lambda: limited)
    packed = compressed(Item(name="x" * 200).SerializeToString(), "gzip")
    path, encoding = (LIST, "connect-content-encoding") if "connect" in kind else (PRICE, "content-encoding")
    if "web" in kind:
        encoding = "grpc-encoding"
    dialect_type = GrpcWebDialect if "web" in kind else ConnectDialect
    exchange = FakeExchange(request(path, ("content-type", kind), (encoding, "gzip"), VERSION))
    receiver = dialect_type(shop_methods(FakeRouter(lambda call: allow(call, 9)))).open(exchange)
    assert receiver is not None
    send_body(exchange, receiver, packed if kind == "application/proto" else envelope(packed, 1))
    assert b"without compression" in exchange.body or b"without%20compression" in exchange.body


# ---- Compression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "encoding"),
    [
        ([("accept-encoding", "br, gzip")], "gzip"),
        ([("accept-encoding", "gzip;q=0, deflate")], None),
        ([("accept-encoding", "identity")], None),
        ([("content-encoding", "gzip")], "gzip"),
        ([], None),
    ],
)
def test_unary_messages_are_compressed_as_far_as_the_client_reads_it(
    fields: list[tuple[str, str]], encoding: str | None
) -> None:
    long = Item(name="a" * 500).SerializeToString()

    def answer(each: OutgoingCall) -> None:
        each.sink.on_compression("gzip", skips_next=False)
        echo(each)

    body = compressed(long, "gzip") if ("content-encoding", "gzip") in fields else long
    got = Answer(call(FakeRouter(answer), PRICE, body, *fields))
    assert (got.messages, got.headers.get("content-encoding")) == ([long], encoding)


def test_streamed_messages_are_compressed_as_far_as_the_client_reads_it() -> None:
    long = Item(name="a" * 500).SerializeToString()

    def answer(each: OutgoingCall) -> None:
        each.sink.on_compression("gzip", skips_next=False)
        each.sink.on_compression("", skips_next=True)
        item(each, long)
        item(each, long)
        finish(each, Outcome())

    got = call(
        FakeRouter(answer),
        LIST,
        envelope(compressed(long, "gzip"), 1),
        ("connect-content-encoding", "gzip"),
        content_type="application/connect+proto",
    )
    assert [piece[0] for piece in got.pieces] == [0, 1, 2]
    assert Answer(got).messages == [long, long]


# ---- GET -------------------------------------------------------------------------------------------------------------


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


def test_a_get_has_its_timeout_in_a_field() -> None:
    router = FakeRouter()
    before_s = time.monotonic()
    get(router, "connect=v1&encoding=proto&message=", STOCK_PRICE, ("connect-timeout-ms", "10000"))
    assert 10 <= (router.calls[0].request.deadline_at_s or 0) - before_s < 20


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
        ("connect=v1&compression=br&encoding=proto&message=", STOCK_PRICE, 501),
        ("connect=v1&compression=gzip&encoding=proto&message=x", STOCK_PRICE, 500),
        (f"connect=v1&encoding=proto&message={'x' * (MESSAGE_MAX_BYTES + 1)}", STOCK_PRICE, 429),
    ],
)
def test_wrong_gets_are_refused(query: str, path: str, status: int) -> None:
    router = FakeRouter(echo)
    assert (get(router, query, path).status, router.calls) == (status, [])


# ---- Streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["proto", "json"])
@pytest.mark.parametrize("step", [0, 1])
def test_streams_of_every_arity(codec: str, step: int) -> None:
    data = PROTO if codec == "proto" else JSON
    options: dict[str, Any] = {"content_type": f"application/connect+{codec}", "step": step}

    def seen(answer: Answer) -> list[Item]:
        if codec == "proto":
            return [Item.FromString(each) for each in answer.messages]
        return [Item(name=tree["name"], amount=int(tree["amount"])) for tree in map(json.loads, answer.messages)]

    def list_twice(each: OutgoingCall) -> None:
        item(each, PROTO)
        item(each, PROTO)
        finish(each, Outcome())

    assert seen(Answer(call(FakeRouter(list_twice), LIST, envelope(data), **options))) == [PEAR, PEAR]

    total = FakeRouter(lambda each: allow(each, 100))
    total.link.on_half_close = lambda each: finish(each, Outcome(payload=raw(total.link.items[-1])))
    assert seen(Answer(call(total, TOTAL, envelope(data) * 3, **options))) == [PEAR]
    assert total.link.items == [PROTO] * 3

    haggle = FakeRouter(lambda each: allow(each, 100))
    haggle.link.on_item = item
    haggle.link.on_half_close = lambda each: finish(each, Outcome())
    assert seen(Answer(call(haggle, HAGGLE, envelope(data) * 3, **options))) == [PEAR] * 3


def test_a_bidirectional_stream_answers_while_requests_arrive() -> None:
    router = FakeRouter(lambda each: allow(each, 100))
    router.link.on_item = item
    exchange, receiver = begin(router, HAGGLE, ("content-type", "application/connect+proto"))
    for count in (1, 2):
        receiver.on_body(envelope(PROTO))
        assert exchange.body == envelope(PROTO) * count
    receiver.on_end()
    finish(router.calls[0], Outcome(trailers=(("x-n", b"2"), ("x-n", b"3"), ("x-bin", b"\0"))))
    answer = Answer(exchange)
    assert {key: answer.trailers[key] for key in ("x-n", "x-bin")} == {"x-n": ["2", "3"], "x-bin": ["AA"]}


def test_initial_metadata_of_a_stream_are_sent_at_once() -> None:
    router = FakeRouter(lambda each: each.sink.on_initial_metadata((("x-first", b"1"),)))
    exchange = call(router, LIST, envelope(PROTO), content_type="application/connect+proto")
    assert (exchange.has_sent_head, exchange.by_name[b"x-first"], exchange.pieces) == (True, b"1", [])


def test_a_failure_behind_messages_is_the_end_of_the_stream() -> None:
    router = FakeRouter()
    exchange = call(router, LIST, envelope(PROTO), content_type="application/connect+proto")
    item(router.calls[0], PROTO)
    finish(router.calls[0], Outcome(code=13, message="server stream failed"))
    answer = Answer(exchange)
    assert (answer.messages, answer.error) == ([PROTO], {"code": "internal", "message": "server stream failed"})


def test_an_item_that_json_cannot_hold_ends_the_stream_on_both_sides() -> None:
    router = FakeRouter()
    exchange = call(router, LIST, envelope(b"{}"), content_type="application/connect+json")
    item(router.calls[0], b"\xff")
    assert (Answer(exchange).code, router.cancel_reasons) == ("internal", [CancelReason.CLIENT])


def test_a_client_that_leaves_cancels_its_call() -> None:
    router = FakeRouter()
    exchange, receiver = begin(router, HAGGLE, ("content-type", "application/connect+proto"))
    exchange.break_off()
    receiver.on_broken(BrokenBy.CLIENT)
    assert router.cancel_reasons == [CancelReason.CLIENT]


# ---- The conformance suites of Connect, as far as a gateway decides --------------------------------------------------

STREAM = "application/connect+proto"


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
        (PRICE, PROTO, [("x-bin", "?")], {}, 500, "internal"),
        (LIST, PROTO, [], {}, 415, None),
        (PRICE, envelope(PROTO), [], {"content_type": STREAM}, 415, None),
        (TOTAL, envelope(b"{}", 2), [], {"content_type": STREAM}, 200, "internal"),
        (TOTAL, envelope(b"cut off")[:-1], [], {"content_type": STREAM}, 200, "internal"),
        (PRICE, compressed(b"x" * 10_000, "gzip"), [("content-encoding", "gzip")], {}, 429, "resource_exhausted"),
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


@pytest.mark.parametrize("path", [PRICE, TOTAL])
def test_a_message_of_the_largest_size_passes(path: str) -> None:
    body = Item(name="x" * (MESSAGE_MAX_BYTES - 3)).SerializeToString()
    assert len(body) == MESSAGE_MAX_BYTES
    router = FakeRouter(lambda each: allow(each, 100))
    router.link.on_half_close = lambda each: finish(each, Outcome(payload=raw(b"")))
    if path == PRICE:
        router.answer = echo
        assert Answer(call(router, path, body)).messages == [body]
    else:
        assert Answer(call(router, path, envelope(body) * 2, content_type=STREAM)).code == "ok"


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


def test_an_answer_for_which_there_is_no_room_breaks_the_exchange() -> None:
    for fields in ((("content-type", "application/foo"), VERSION), (("content-type", "application/proto"),)):
        router = FakeRouter(echo)
        exchange = FakeExchange(request("/mesh.tests.Shop/Absent", *fields))
        exchange.has_room = False
        assert ConnectDialect(shop_methods(router)).open(exchange) is None
        assert exchange.is_aborted
