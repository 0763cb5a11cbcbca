"""Streams of Connect: all arities, and how they end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.requests.exchange import BrokenBy
from gateway.web_rpc.connect import ConnectDialect
from gateway.web_rpc.envelope_reader import envelope
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange, request
from tests.unit.fakes.shop_routes import HAGGLE, LIST, PRICE, TOTAL, shop_methods
from tests.unit.gateway.fakes import FakeRouter, allow, echo, finish, item
from tests.unit.gateway.web_rpc.connect_ends import PEAR, PROTO, VERSION, Answer, begin, call
from tests.unit.protos.shop_pb2 import Item

JSON = b'{"name": "P\xc3\xa4r", "amount": "1099511627776"}'


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


def test_an_answer_for_which_there_is_no_room_breaks_the_exchange() -> None:
    for fields in ((("content-type", "application/foo"), VERSION), (("content-type", "application/proto"),)):
        router = FakeRouter(echo)
        exchange = FakeExchange(request("/mesh.tests.Shop/Absent", *fields))
        exchange.has_room = False
        assert ConnectDialect(shop_methods(router)).open(exchange) is None
        assert exchange.is_aborted


@pytest.mark.parametrize("path", [PRICE, TOTAL])
def test_a_fault_of_ours_in_a_request_ends_its_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Nothing else would: what a connection of HTTP/1.1 then answers ends no call."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("gateway.web_rpc.message_codec.JsonCodec.decode", fail)
    router = FakeRouter(lambda each: allow(each, 100))
    if path == PRICE:
        exchange = call(router, path, JSON, content_type="application/json")
    else:
        exchange = call(router, path, envelope(JSON), content_type="application/connect+json")
    assert Answer(exchange).code == "internal"
    assert router.cancelled == router.calls
    assert caplog.text.count("RuntimeError: a fault of ours") == 1
