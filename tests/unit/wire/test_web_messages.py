"""The messages of web calls survive the way between gateway and replica."""

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
