"""The messages of web calls survive the way between gateway and replica."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mesh.v1 import web_pb2
from mesh.wire import web_messages

HEADERS = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=10)


@given(HEADERS)
def test_headers_keep_their_order_and_repetitions(headers: list[tuple[bytes, bytes]]) -> None:
    assert web_messages.header_pairs(web_messages.flat_headers(headers)) == headers


def test_a_name_without_a_value_is_left_out() -> None:
    assert web_messages.header_pairs([b"a", b"1", b"b"]) == [(b"a", b"1")]


@given(st.integers(100, 999), HEADERS, st.binary(max_size=100))
def test_a_response_arrives_as_it_was(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    read = web_messages.decode_response(web_messages.encode_response(status, headers, body, "/items/{id}"))
    assert (read.status, web_messages.header_pairs(read.headers), read.body) == (status, headers, body)
    assert read.route == "/items/{id}"


@given(st.binary(max_size=100), st.integers(0, 100))
def test_the_length_of_a_body_is_the_last_header(body: bytes, length: int) -> None:
    headers = [(b"content-length", b"%d" % length), (b"content-type", b"text/plain")]
    read = web_messages.decode_response(web_messages.encode_response(200, headers, body))
    is_its_own = bool(body) and length == len(body)
    assert web_messages.header_pairs(read.headers) == (headers[::-1] if is_its_own else headers)
    assert read.body == body


FORMS = st.sampled_from(
    [
        (web_messages.REQUEST, web_pb2.WebRequest, "x-request-id"),
        (web_messages.RESPONSE, web_pb2.WebResponse, "content-length"),
    ]
)


@given(FORMS, HEADERS, st.binary(max_size=200), st.binary(max_size=20_000))
def test_what_is_written_without_protobuf_is_what_protobuf_reads(
    form: Any, headers: list[tuple[bytes, bytes]], value: bytes, body: bytes
) -> None:
    by_hand, kind, name = form
    head = kind(headers=web_messages.flat_headers(headers))
    data = by_hand.join(web_messages.head_part(head), value, body)
    own = [(name.encode(), value)] if value else []
    read = kind.FromString(data)
    assert web_messages.header_pairs(read.headers) == [*headers, *own]
    assert (read.body, read.head_bytes) == (body, len(head.SerializeToString()))
    assert by_hand.split(data) == (head.SerializeToString(), value, body)


@given(FORMS, HEADERS, st.binary(max_size=20), st.binary(max_size=20), st.data())
def test_a_message_of_another_form_is_left_to_protobuf(
    form: Any, headers: list[tuple[bytes, bytes]], value: bytes, body: bytes, data: st.DataObject
) -> None:
    """Whatever is cut off or changed, it is read as protobuf reads it, or by protobuf."""
    by_hand, kind, name = form
    whole = bytearray(
        by_hand.join(web_messages.head_part(kind(headers=web_messages.flat_headers(headers))), value, body)
    )
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    changed = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    parts = by_hand.split(changed)
    if parts is None:
        return
    head, own_value, own_body = parts
    try:
        expected = kind.FromString(head)
    except DecodeError:
        with pytest.raises(DecodeError):
            kind.FromString(changed)
        return
    if own_value:
        expected.headers.extend([name.encode(), own_value])
    if own_body:
        expected.body = own_body
    read = kind.FromString(changed)
    assert list(read.headers) == list(expected.headers)
    assert read.body == expected.body


def test_numbers_without_an_end_are_left_to_protobuf() -> None:
    for data in (b"", b"\x78", b"\x78" + b"\xff" * 100_000):
        assert web_messages.REQUEST.split(data) is None


def test_headers_may_be_of_any_type_of_bytes() -> None:
    data = web_messages.encode_response(200, [[bytearray(b"a"), memoryview(b"1")]], b"x")
    assert list(web_messages.decode_response(data).headers) == [b"a", b"1"]


def test_a_large_head_is_not_kept() -> None:
    for number in range(2):
        data = web_messages.encode_response(200, [(b"a", b"%d" % number * 10_000)], b"")
        assert web_messages.decode_response(data).headers[1] == b"%d" % number * 10_000


def test_a_request_arrives_as_it_was() -> None:
    request = web_pb2.WebRequest(method="GET", raw_path=b"/a%20b", root_path="/a", headers=[b"host", b"x"])
    assert web_messages.decode_request(request.SerializeToString()) == request


def test_events_of_a_websocket_arrive_as_they_were() -> None:
    def read(data: bytes) -> web_pb2.WebSocketEvent:
        return web_messages.decode_websocket_event(data)

    assert read(web_messages.encode_message("grüße")).text == "grüße"
    assert read(web_messages.encode_message(b"\x00")).binary == b"\x00"
    assert read(web_messages.encode_message("")).WhichOneof("kind") == "text"
    accept = read(web_messages.encode_accept("chat", [(b"a", b"1")])).accept
    assert (accept.subprotocol, list(accept.headers)) == ("chat", [b"a", b"1"])
    close = read(web_messages.encode_close(4000, "bye")).close
    assert (close.code, close.reason) == (4000, "bye")
