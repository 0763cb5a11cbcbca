"""Streams of typed methods as JSON: arrays, lines and events, both ways."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.json_http.json_bodies import LINE_MAX_BYTES
from mesh.link.outgoing_call import OutgoingCall
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.gateway.dialects.json_ends import SERVICE, JsonGateway, json_of
from tests.unit.gateway.fakes import allow, finish, item
from tests.unit.protos import kinds_pb2

BOOK = kinds_pb2.Book(name="shelves/1/books/2", title="Emma", pages=400)
BOOK_JSON = {"name": "shelves/1/books/2", "title": "Emma", "pages": "400"}


def stream_of(count: int, code: int = 0) -> Any:
    def answer(call: OutgoingCall) -> None:
        for number in range(count):
            item(call, kinds_pb2.Book(pages=number + 1).SerializeToString())
        finish(call, Outcome(code=code, message="broken" if code else ""))

    return answer


ITEMS = [{"pages": "1"}, {"pages": "2"}]
ERROR = {"error": {"code": 13, "message": "broken", "details": []}}


@pytest.mark.parametrize("code", [0, 13])
def test_a_stream_is_an_array_and_an_error_behind_its_start_the_last_item(code: int) -> None:
    answer = JsonGateway(stream_of(2, code)).ask("GET", "/v1/books")
    assert (answer.status, answer.by_name[b"content-type"]) == (200, b"application/json")
    assert json_of(answer) == [*ITEMS, *([ERROR] if code else [])]


@pytest.mark.parametrize("code", [0, 13])
def test_a_stream_is_lines_for_who_accepts_them(code: int) -> None:
    answer = JsonGateway(stream_of(2, code)).ask("GET", "/v1/books", b"", ("accept", "application/x-ndjson"))
    assert answer.by_name[b"content-type"] == b"application/x-ndjson"
    assert [json.loads(line) for line in answer.body.splitlines()] == [*ITEMS, *([ERROR] if code else [])]
    assert len(answer.pieces) == 2 + (code > 0)


def test_two_fields_of_what_a_client_accepts_are_one_list() -> None:
    fields = ("accept", "application/x-ndjson"), ("accept", "text/event-stream;q=0.1")
    answer = JsonGateway(stream_of(2)).ask("GET", "/v1/books", b"", *fields)
    assert answer.by_name[b"content-type"] == b"application/x-ndjson"


@pytest.mark.parametrize("code", [0, 13])
def test_a_stream_is_events_for_who_accepts_them(code: int) -> None:
    answer = JsonGateway(stream_of(2, code)).ask("GET", "/v1/books", b"", ("accept", "text/event-stream"))
    assert answer.by_name[b"content-type"] == b"text/event-stream"
    assert answer.by_name[b"cache-control"] == b"no-cache"
    *events, last = answer.body.decode().removesuffix("\n\n").split("\n\n")
    assert [json.loads(event.removeprefix("data: ")) for event in events] == ITEMS
    if code:
        assert json.loads(last.removeprefix("event: error\ndata: ")) == ERROR["error"]
    else:
        assert last == "event: end\ndata: {}"


def test_a_stream_that_fails_before_its_first_item_has_an_http_status() -> None:
    answer = JsonGateway(stream_of(0, 13)).ask("GET", "/v1/books")
    assert (answer.status, json_of(answer)["code"]) == (500, 13)


def test_an_empty_stream_is_an_empty_array() -> None:
    assert json_of(JsonGateway(stream_of(0)).ask("GET", "/v1/books")) == []


def test_a_stream_waits_for_a_slow_client() -> None:
    gateway = JsonGateway()
    exchange, receiver = gateway.open("GET", "/v1/books")
    assert receiver is not None
    receiver.on_end()
    exchange.is_blocked = True
    for _ in range(settings().payload.stream_credits):
        item(gateway.call, BOOK.SerializeToString())
    assert gateway.router.link.granted == []
    exchange.is_blocked = False
    receiver.on_writable()
    assert sum(gateway.router.link.granted) == settings().payload.stream_credits


def test_a_stream_without_room_ends_as_exhausted() -> None:
    gateway = JsonGateway()
    exchange, receiver = gateway.open("GET", "/v1/books")
    assert receiver is not None
    receiver.on_end()
    item(gateway.call, BOOK.SerializeToString())
    exchange.has_room = False
    item(gateway.call, BOOK.SerializeToString())
    assert exchange.is_aborted
    gateway.assert_counted_once(8)


def test_lines_are_messages_of_a_streamed_request_as_they_arrive() -> None:
    gateway = JsonGateway()
    exchange, receiver = gateway.open("POST", "/v1/books:add", ("content-type", "application/x-ndjson"))
    assert receiver is not None
    allow(gateway.call, 10)
    receiver.on_body(b'{"pages": 1}\n{"pag')
    assert [kinds_pb2.Book.FromString(each).pages for each in gateway.router.link.items] == [1]
    receiver.on_body(b'es": "2"}\n\n{"pages": 3}')
    receiver.on_end()
    assert [kinds_pb2.Book.FromString(each).pages for each in gateway.router.link.items] == [1, 2, 3]
    assert gateway.router.link.half_closed == 1
    finish(gateway.call, Outcome(payload=raw(BOOK.SerializeToString())))
    assert json_of(exchange) == BOOK_JSON
    gateway.assert_counted_once(0)


def test_lines_wait_for_the_replica() -> None:
    gateway = JsonGateway()
    exchange, receiver = gateway.open("POST", "/v1/books:add", ("content-type", "application/x-ndjson"))
    assert receiver is not None
    body = b'{"pages": 1}\n' * 4
    receiver.on_body(body)
    assert (exchange.given_room, gateway.router.link.items) == (0, [])
    allow(gateway.call, 3)
    assert (exchange.given_room, len(gateway.router.link.items)) == (0, 3)
    receiver.on_end()
    assert gateway.router.link.half_closed == 0
    allow(gateway.call, 2)
    assert len(gateway.router.link.items) == 4
    assert gateway.router.link.half_closed == 1


def test_a_wrong_line_is_named_and_cancels_the_call() -> None:
    gateway = JsonGateway(lambda call: allow(call, 10))
    answer = gateway.ask(
        "POST", "/v1/books:add", b'{"pages": 1}\n{"pages": "x"}\n', ("content-type", "application/x-ndjson")
    )
    assert answer.status == 400
    assert json_of(answer)["message"] == "line 2: pages: expected an integer, found 'x'"
    assert gateway.router.cancelled
    gateway.assert_counted_once(3)


def test_a_line_has_a_limit() -> None:
    gateway = JsonGateway(lambda call: allow(call, 10))
    body = b" " * (LINE_MAX_BYTES + 1)
    answer = gateway.ask("POST", "/v1/books:add", body, ("content-type", "application/x-ndjson"), step=65536)
    assert answer.status == 400
    assert "more than" in json_of(answer)["message"]
    assert answer.share.used_bytes == 0


@pytest.mark.parametrize(
    ("body", "pages"), [(b'[{"pages": 1}, {"pages": 2}]', [1, 2]), (b'{"pages": 1}', [1]), (b"", [])]
)
def test_an_array_is_a_streamed_request_too(body: bytes, pages: list[int]) -> None:
    gateway = JsonGateway(lambda call: allow(call, 10))
    gateway.ask("POST", "/v1/books:add", body, ("content-type", "application/json"))
    assert [kinds_pb2.Book.FromString(each).pages for each in gateway.router.link.items] == pages
    assert gateway.router.link.half_closed == 1


def uploads(gateway: JsonGateway) -> list[tuple[str, str, bytes]]:
    found = [kinds_pb2.Upload.FromString(each) for each in gateway.router.link.items]
    return [(each.name, each.content.content_type, each.content.data) for each in found]


def test_a_streamed_request_of_raw_bodies_has_a_message_for_each_piece_that_arrives() -> None:
    gateway = JsonGateway()
    exchange, receiver = gateway.open("POST", "/v1/content/a/b", ("content-type", "image/png"))
    assert receiver is not None
    allow(gateway.call, 2)
    receiver.on_body(b"one")
    assert (uploads(gateway), exchange.given_room) == ([("a/b", "image/png", b"one")], 3)
    receiver.on_body(b"two")
    receiver.on_body(b"three")
    receiver.on_end()
    assert (len(uploads(gateway)), exchange.given_room, gateway.router.link.half_closed) == (2, 3, 0)
    allow(gateway.call, 1)
    assert [data for _, _, data in uploads(gateway)] == [b"one", b"two", b"three"]
    assert gateway.router.link.half_closed == 1


@pytest.mark.parametrize("body", [b" \n ", b"[", b"[1,", b"{}]", b"[{}] {}", b'[{"pages": 1}, "\xff"]', b"[" * 5_000])
def test_a_body_that_is_no_array_is_refused_as_one(body: bytes) -> None:
    gateway = JsonGateway(lambda call: allow(call, 10))
    answer = gateway.ask("POST", "/v1/books:add", body)
    assert (answer.status, json_of(answer)["code"]) == (400, 3)
    gateway.assert_counted_once(3)


def test_an_empty_raw_body_is_one_message_of_a_streamed_request() -> None:
    gateway = JsonGateway()
    _, receiver = gateway.open("POST", "/v1/content/a")
    assert receiver is not None
    receiver.on_end()
    assert (uploads(gateway), gateway.router.link.half_closed) == ([], 0)
    allow(gateway.call, 1)
    assert (uploads(gateway), gateway.router.link.half_closed) == ([("a", "", b"")], 1)


def test_a_streamed_request_of_raw_bodies_cannot_be_compressed() -> None:
    fields = ("content-type", "image/png"), ("content-encoding", "gzip")
    answer = JsonGateway().ask("POST", "/v1/content/a", b"x", *fields)
    assert (answer.status, "send them as they are" in json_of(answer)["message"]) == (415, True)


def test_both_ways_stream_over_one_exchange() -> None:
    def echo_items(call: OutgoingCall) -> None:
        gateway.router.link.on_item = item
        gateway.router.link.on_half_close = lambda call: finish(call, Outcome())
        allow(call, 10)

    gateway = JsonGateway(echo_items)
    lines = ("content-type", "application/x-ndjson"), ("accept", "application/x-ndjson")
    answer = gateway.ask("POST", f"{SERVICE}Chat", b'{"pages":"1"}\n{"pages":"2"}\n', *lines)
    assert answer.body == b'{"pages":"1"}\n{"pages":"2"}\n'
