"""Large and compressed messages of Connect: threads for JSON, limits, and encodings that the client reads."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from google.protobuf import json_format

from gateway.dialects.translation.turn_budget import ON_LOOP_MAX_BYTES
from gateway.requests.exchange import BrokenBy, ExchangeReceiver
from gateway.web_rpc.connect import ConnectDialect
from gateway.web_rpc.envelope_reader import envelope
from gateway.web_rpc.grpc_web import GrpcWebDialect
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.message_reader import compressed
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange, request, send_body
from tests.unit.fakes.shop_routes import HAGGLE, LIST, MESSAGE_MAX_BYTES, PRICE, TOTAL, shop_methods, shop_routes
from tests.unit.gateway.fakes import FakeRouter, allow, echo, finish, item, until
from tests.unit.gateway.web_rpc.connect_ends import VERSION, Answer, begin, call
from tests.unit.protos.shop_pb2 import Item

# ---- Large JSON ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_large_json_is_translated_while_the_loop_goes_on(encoding: str) -> None:
    """In a thread, both ways, also where few compressed bytes become large; what is wrong is INVALID_ARGUMENT."""
    large = Item(name="x" * (2 * ON_LOOP_MAX_BYTES), amount=1)
    text = json_format.MessageToJson(large).encode()

    async def ask(body: bytes) -> Answer:
        router = FakeRouter(echo)
        methods = shop_methods(router)
        methods.message_max_bytes = 10 * ON_LOOP_MAX_BYTES
        methods.set_routes(shop_routes("shop"))
        fields = ("content-type", "application/json"), ("content-encoding", encoding), VERSION
        exchange = FakeExchange(request(PRICE, *fields))
        receiver = ConnectDialect(methods).open(exchange)
        assert receiver is not None
        body = body if encoding == "identity" else compressed(body, encoding)
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


def test_a_large_response_counts_as_buffered_until_it_is_translated() -> None:
    """Those for which there is no room are not translated."""
    message = Item(name="x" * (2 * ON_LOOP_MAX_BYTES)).SerializeToString()

    async def ask(max_bytes: float) -> Answer:
        router = FakeRouter(lambda each: finish(each, Outcome(payload=raw(message))))
        exchange = FakeExchange(request(PRICE, ("content-type", "application/json"), VERSION), max_bytes)
        receiver = ConnectDialect(shop_methods(router)).open(exchange)
        assert receiver is not None
        send_body(exchange, receiver, b"{}")
        await asyncio.sleep(0)
        assert exchange.has_ended or exchange.share.used_bytes == len(message)
        await until(lambda: exchange.has_ended, "the answer")
        assert exchange.share.used_bytes == 0
        return Answer(exchange)

    assert asyncio.run(ask(2 * len(message))).code == "ok"
    assert asyncio.run(ask(2 * len(message) - 1)).code == "resource_exhausted"


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


def json_stream(router: FakeRouter, path: str, *fields: tuple[str, str]) -> tuple[FakeExchange, ExchangeReceiver]:
    methods = shop_methods(router)
    methods.message_max_bytes = 10 * ON_LOOP_MAX_BYTES
    methods.set_routes(shop_routes("shop"))
    exchange = FakeExchange(request(path, ("content-type", "application/connect+json"), *fields))
    receiver = ConnectDialect(methods).open(exchange)
    assert receiver is not None
    return exchange, receiver


SIZES = [10, 2 * ON_LOOP_MAX_BYTES, 10, 5_000, 3 * ON_LOOP_MAX_BYTES, 10]


def items(sizes: list[int] = SIZES) -> list[Item]:
    return [Item(name="x" * size, amount=number) for number, size in enumerate(sizes)]


def test_large_json_of_a_stream_is_translated_while_the_loop_goes_on() -> None:
    """In a thread, both ways and in order; the small messages around it too."""

    async def scenario() -> None:
        router = FakeRouter(lambda each: allow(each, 100))
        router.link.on_item = item
        router.link.on_half_close = lambda each: finish(each, Outcome())
        exchange, receiver = json_stream(router, HAGGLE)
        bodies = [envelope(json_format.MessageToJson(each).encode()) for each in items()]
        send_body(exchange, receiver, b"".join(bodies))
        assert router.link.items == [items()[0].SerializeToString()]
        assert exchange.given_room == 0
        await until(lambda: exchange.has_ended, "the end of the stream")
        assert router.link.items == [each.SerializeToString() for each in items()]
        answer = Answer(exchange)
        assert answer.error is None
        assert [json_format.Parse(each, Item()) for each in answer.messages] == items()
        assert exchange.given_room == sum(map(len, bodies))
        assert exchange.share.used_bytes == 0

    asyncio.run(scenario())


def test_the_large_response_of_a_client_stream_is_translated_while_the_loop_goes_on() -> None:
    async def scenario() -> None:
        router = FakeRouter(lambda each: finish(each, Outcome(payload=raw(items()[1].SerializeToString()))))
        exchange, _ = json_stream(router, TOTAL)
        assert not exchange.has_ended
        await until(lambda: exchange.has_ended, "the answer")
        assert [json_format.Parse(each, Item()) for each in Answer(exchange).messages] == [items()[1]]

    asyncio.run(scenario())


def test_much_json_in_one_turn_of_the_loop_waits_for_others() -> None:
    async def scenario() -> None:
        router = FakeRouter(lambda each: allow(each, 100))
        exchange, receiver = json_stream(router, TOTAL)
        body = envelope(b'{"name": "%b"}' % (b"x" * 10_000))
        send_body(exchange, receiver, body * 20)
        assert 0 < len(router.link.items) < 10
        await until(lambda: bool(router.link.half_closed), "the end of the request")
        assert len(router.link.items) == 20
        finish(router.calls[0], Outcome(payload=raw(b"")))
        assert (Answer(exchange).code, exchange.share.used_bytes) == ("ok", 0)

    asyncio.run(scenario())


def test_a_message_keeps_its_compression_behind_one_that_waits() -> None:
    """A method may leave single messages as they are, for example since they hold a secret."""

    async def scenario() -> None:
        router = FakeRouter()
        accepted = ("connect-accept-encoding", "gzip")
        exchange, receiver = json_stream(router, LIST, accepted)
        send_body(exchange, receiver, envelope(b"{}"))
        sink = router.calls[0].sink
        sink.on_compression("gzip", skips_next=False)
        for number, each in enumerate(items([2 * ON_LOOP_MAX_BYTES, 500, 500])):
            if number == 1:
                sink.on_compression("", skips_next=True)
            item(router.calls[0], each.SerializeToString())
        finish(router.calls[0], Outcome())
        await until(lambda: exchange.has_ended, "the end of the stream")
        assert [piece[0] for piece in exchange.pieces] == [1, 0, 1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("by", ["client", "mesh"])
def test_a_stream_may_end_while_its_large_json_is_translated(by: str) -> None:
    async def scenario() -> None:
        router = FakeRouter(lambda each: allow(each, 100))
        exchange, receiver = json_stream(router, TOTAL)
        receiver.on_body(envelope(json_format.MessageToJson(items()[1]).encode()))
        if by == "client":
            exchange.break_off()
            receiver.on_broken(BrokenBy.CLIENT)
        else:
            finish(router.calls[0], Outcome(code=14, message="gone"))
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [task.cancelled() for task in tasks] == [True]
        assert (router.link.items, exchange.share.used_bytes) == ([], 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("text", [b'{"name": 1}', b"fault"])
def test_what_is_wrong_with_large_json_ends_its_stream(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("a fault of ours")

    if text == b"fault":
        monkeypatch.setattr("gateway.web_rpc.message_codec.JsonCodec.decode", fail)

    async def scenario() -> str:
        router = FakeRouter(lambda each: allow(each, 100))
        exchange, receiver = json_stream(router, TOTAL)
        send_body(exchange, receiver, envelope(text + b" " * 2 * ON_LOOP_MAX_BYTES))
        await until(lambda: exchange.has_ended, "the end of the stream")
        assert (router.link.items, exchange.share.used_bytes) == ([], 0)
        return Answer(exchange).code

    assert asyncio.run(scenario()) == ("internal" if text == b"fault" else "invalid_argument")


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


@pytest.mark.usefixtures("on_a_loop")
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


@pytest.mark.usefixtures("on_a_loop")
@pytest.mark.parametrize(
    ("fields", "encoding"),
    [
        ([("accept-encoding", "br, gzip")], "gzip"),
        ([("accept-encoding", "gzip;q=0, deflate")], None),
        ([("accept-encoding", "gzip"), ("accept-encoding", "br")], "gzip"),
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


@pytest.mark.usefixtures("on_a_loop")
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


STREAM = "application/connect+proto"


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
