"""What the conformance suites of Connect demand of servers beside single requests, for every arity, codec and encoding.

The names of the tests are those of the suites. Codes of errors, malformed requests and GET are in `test_connect.py`.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import quote

import pytest

from gateway.requests.exchange import BrokenBy
from gateway.web_rpc.envelope_reader import envelope
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.message_reader import compressed, decompressed
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange
from tests.unit.fakes.shop_routes import HAGGLE, LIST, MESSAGE_MAX_BYTES, PRICE, STOCK_PRICE, TOTAL
from tests.unit.gateway.fakes import FakeRouter, allow, finish, item
from tests.unit.gateway.web_rpc.connect_ends import Answer, begin, call, get
from tests.unit.protos.shop_pb2 import Item

ARITIES = {"unary": PRICE, "server stream": LIST, "client stream": TOTAL, "bidirectional stream": HAGGLE}
STREAM = "application/connect+proto"
NAMES = ("x-custom", "x-custom", "x-custom")
HEADERS = tuple(zip(NAMES, (b"foo", b"bar", b"baz"), strict=True))
TRAILERS = tuple(zip(NAMES, (b"bing", b"quux", b"bing"), strict=True))
MESSAGE = Item(name="test response").SerializeToString()


def streams_response(path: str) -> bool:
    return path in (LIST, HAGGLE)


def allow_requests(each: OutgoingCall) -> None:
    """As a replica does for a call whose requests are streamed."""
    if each.request.payload is None:
        allow(each, 100)


class Method:
    """Behind the router: answers when the request is complete."""

    def __init__(self, path: str, responses: int = 1, error: str = "", *, has_metadata: bool = False) -> None:
        self._path = path
        self._responses = responses
        self._error = error
        self._has_metadata = has_metadata
        self.router = FakeRouter(self._begin)
        self.router.link.on_half_close = self._answer

    def _begin(self, each: OutgoingCall) -> None:
        if each.request.payload is None:
            allow(each, 100)
        else:
            self._answer(each)

    def _answer(self, each: OutgoingCall) -> None:
        if self._has_metadata:
            each.sink.on_initial_metadata(HEADERS)
        if streams_response(self._path):
            for _ in range(self._responses):
                item(each, MESSAGE)
        payload = None if streams_response(self._path) or self._error else raw(MESSAGE)
        trailers = TRAILERS if self._has_metadata else ()
        finish(each, Outcome(13 if self._error else 0, self._error, payload, trailers=trailers))

    def make(self, *requests: bytes, fields: tuple[tuple[str, str], ...] = (), codec: str = "proto") -> FakeExchange:
        """A call with these messages."""
        if self._path == PRICE:
            return call(self.router, PRICE, *requests, *fields, content_type=f"application/{codec}")
        body = b"".join(map(envelope, requests))
        return call(self.router, self._path, body, *fields, content_type=f"application/connect+{codec}")


def values(exchange: FakeExchange, name: bytes) -> list[bytes]:
    return [value for each, value in exchange.fields if each == name]


@pytest.mark.parametrize("error", ["", "call failed"])
@pytest.mark.parametrize("responses", [0, 2])
@pytest.mark.parametrize("arity", ARITIES)
def test_duplicate_metadata(arity: str, responses: int, error: str) -> None:
    """Several values of one name stay several, in their order, in both directions, whatever the call ends with."""
    path = ARITIES[arity]
    method = Method(path, responses, error, has_metadata=True)
    exchange = method.make(b"", fields=(("x-conformance-test", "Value1"), ("x-conformance-test", "Value2")))
    [made] = method.router.calls
    assert [value for name, value in made.request.metadata if name == "x-conformance-test"] == ["Value1", "Value2"]
    answer = Answer(exchange)
    assert values(exchange, b"x-custom") == [value for _, value in HEADERS]
    trailers = [value.decode() for _, value in TRAILERS]
    if path == PRICE:
        assert [value.decode() for value in values(exchange, b"trailer-x-custom")] == trailers
    else:
        assert answer.trailers["x-custom"] == trailers
    assert answer.error == ({"code": "internal", "message": error} if error else None)
    expected = responses if streams_response(path) else int(not error)
    assert answer.messages == [MESSAGE] * expected


@pytest.mark.parametrize("codec", ["proto", "json"])
@pytest.mark.parametrize("arity", ARITIES)
def test_empty_requests(arity: str, codec: str) -> None:
    """A message without fields has no bytes as Protobuf, and an empty object as JSON."""
    method = Method(ARITIES[arity])
    answer = Answer(method.make(b"" if codec == "proto" else b"{}", codec=codec))
    [message] = answer.messages
    assert message == MESSAGE if codec == "proto" else json.loads(message) == {"name": "test response"}
    [made] = method.router.calls
    sent = method.router.link.items or [bytes(made.request.payload.data)]  # type: ignore[union-attr]
    assert sent == [b""]


@pytest.mark.parametrize("path", [TOTAL, HAGGLE])
def test_streams_without_requests(path: str) -> None:
    method = Method(path)
    assert (Answer(method.make()).messages, method.router.link.items) == ([MESSAGE], [])


@pytest.mark.parametrize("path", [LIST, HAGGLE])
def test_streams_without_responses(path: str) -> None:
    answer = Answer(Method(path, responses=0).make(b""))
    assert (answer.status, answer.messages, answer.code) == (200, [], "ok")


@pytest.mark.parametrize("path", [TOTAL, HAGGLE])
@pytest.mark.parametrize("sizes", [(0, 0), (10, 0), (0, 10)], ids=["equal", "first", "subsequent"])
def test_server_message_size(path: str, sizes: tuple[int, int]) -> None:
    """`sizes`: of each message, how many bytes it is above the limit."""
    method = Method(path)
    answer = Answer(method.make(*(_item_of(MESSAGE_MAX_BYTES + more) for more in sizes)))
    if sizes == (0, 0):
        assert (answer.code, len(method.router.link.items)) == ("ok", 2)
    else:
        assert answer.code == "resource_exhausted"
        assert len(method.router.link.items) == sizes.index(10)
        assert method.router.cancel_reasons == [CancelReason.CLIENT]


def _item_of(size: int) -> bytes:
    data = Item(name="x" * (size - 3)).SerializeToString()
    assert len(data) == size
    return data


@pytest.mark.parametrize("arity", ARITIES)
def test_timeouts(arity: str) -> None:
    """The deadline reaches the method, and a call that it ends says so."""
    path = ARITIES[arity]
    router = FakeRouter(allow_requests)
    fields = [("connect-timeout-ms", "200")]
    if path == PRICE:
        exchange = call(router, PRICE, b"", *fields)
    else:
        exchange = call(router, path, envelope(b""), *fields, content_type=STREAM)
    [made] = router.calls
    assert made.request.deadline_at_s is not None
    finish(made, Outcome(4, "Deadline Exceeded"))
    answer = Answer(exchange)
    assert (answer.status, answer.code) == (504 if path == PRICE else 200, "deadline_exceeded")


@pytest.mark.parametrize("arity", ARITIES)
def test_client_cancellation(arity: str) -> None:
    path = ARITIES[arity]
    router = FakeRouter(allow_requests)
    exchange, receiver = begin(router, path, ("content-type", "application/proto" if path == PRICE else STREAM))
    receiver.on_body(b"" if path == PRICE else envelope(b""))
    receiver.on_end()
    if streams_response(path):
        item(router.calls[0], MESSAGE)
    exchange.break_off()
    receiver.on_broken(BrokenBy.CLIENT)
    assert router.cancel_reasons == [CancelReason.CLIENT]


@pytest.mark.usefixtures("on_a_loop")
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("codec", ["proto", "json"])
@pytest.mark.parametrize("arity", ARITIES)
def test_compression(arity: str, codec: str, encoding: str) -> None:
    """Each codec in each encoding, both ways; a message that is not compressed may stand among those that are."""
    path = ARITIES[arity]
    name = "y" * 500
    large = Item(name=name).SerializeToString()
    plain = large if codec == "proto" else json.dumps({"name": name}).encode()
    small = compressed(plain, encoding)

    def answer(each: OutgoingCall) -> None:
        each.sink.on_compression(encoding, skips_next=False)
        if streams_response(path):
            item(each, large)
        finish(each, Outcome(payload=None if streams_response(path) else raw(large)))

    router = FakeRouter(lambda each: allow(each, 100) if each.request.payload is None else answer(each))
    router.link.on_half_close = answer
    prefix = "" if path == PRICE else "connect-"
    fields = ((f"{prefix}content-encoding", encoding), (f"{prefix}accept-encoding", encoding))
    if path == PRICE:
        exchange = call(router, path, small, *fields, content_type=f"application/{codec}")
    else:
        body = envelope(small, 1) + (envelope(plain) if path in (TOTAL, HAGGLE) else b"")
        exchange = call(router, path, body, *fields, content_type=f"application/connect+{codec}")
    got = Answer(exchange)
    assert got.code == "ok"
    assert len(exchange.body) < len(plain), "the response was compressed"
    assert [_read(each, codec) for each in got.messages] == [Item(name=name)]
    [made] = router.calls
    sent = router.link.items or [bytes(made.request.payload.data)]  # type: ignore[union-attr]
    assert {Item.FromString(each).name for each in sent} == {name}


def _read(data: bytes, codec: str) -> Item:
    return Item.FromString(data) if codec == "proto" else Item(name=json.loads(data)["name"])


@pytest.mark.usefixtures("on_a_loop")
@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
@pytest.mark.parametrize("is_base64", [False, True])
@pytest.mark.parametrize("codec", ["proto", "json"])
def test_connect_with_get(codec: str, is_base64: bool, encoding: str) -> None:
    """Every codec as text or base64, in every encoding; bytes may be escaped as any text of a query."""
    plain = MESSAGE if codec == "proto" else b'{"name": "test response"}'
    data = compressed(plain, encoding) if encoding else plain
    text = urlsafe_b64encode(data).decode().rstrip("=") if is_base64 else quote(data, safe="")
    query = f"connect=v1&encoding={codec}&message={text}"
    query += "&base64=1" if is_base64 else ""
    query += f"&compression={encoding}" if encoding else ""

    def answer(each: OutgoingCall) -> None:
        assert bytes(each.request.payload.data) == MESSAGE  # type: ignore[union-attr]
        each.sink.on_compression("gzip", skips_next=False)
        each.sink.on_initial_metadata(HEADERS)
        finish(each, Outcome(payload=raw(Item(name="z" * 500).SerializeToString()), trailers=TRAILERS))

    exchange = get(FakeRouter(answer), query, STOCK_PRICE, ("accept-encoding", "gzip"), ("x-conformance-test", "a"))
    got = Answer(exchange)
    assert (got.status, got.headers["content-type"]) == (200, f"application/{codec}")
    assert got.headers["content-encoding"] == "gzip"
    assert values(exchange, b"trailer-x-custom") == [value for _, value in TRAILERS]
    assert _read(decompressed(exchange.body, "gzip", 10_000), codec).name == "z" * 500


@pytest.mark.parametrize("code", [404, 415])
def test_http_status_of_what_is_no_call(code: int) -> None:
    """Clients make UNIMPLEMENTED of 404, and UNKNOWN of 415; neither reaches a method."""
    router = FakeRouter()
    options: dict[str, Any] = {"content_type": "application/proto" if code == 404 else "application/foo"}
    path = "/mesh.tests.Absent/Price" if code == 404 else PRICE
    assert (Answer(call(router, path, b"", **options)).status, router.calls) == (code, [])
