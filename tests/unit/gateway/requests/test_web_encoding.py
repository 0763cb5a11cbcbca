"""Requests and answers on their way between clients and links."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.end_to_end_fields import checked, end_to_end
from gateway.requests.web_encoding import WebAnswer, address_of, encode_request, read_answer, read_response
from mesh.v1 import web_pb2
from mesh.wire.web_messages import decode_request, encode_response, header_pairs
from tests.unit.gateway.web_ends import web_request

ANY_BYTES = st.binary(max_size=12)


def test_a_request_arrives_as_it_was_sent() -> None:
    head = web_request("POST", "/shop/a%20b", query=b"q=%41", accept="*/*")
    message = decode_request(encode_request(head, head.path, "/shop", b"r1", b"body"))
    assert message == web_pb2.WebRequest(
        method="POST",
        raw_path=b"/shop/a%20b",
        query_string=b"q=%41",
        scheme="http",
        http_version="1.1",
        headers=[b"host", b"shop.example", b"accept", b"*/*", b"x-request-id", b"r1"],
        client_host="10.0.0.1",
        client_port=4711,
        root_path="/shop",
        body=b"body",
        head_bytes=message.head_bytes,
    )


def test_fields_of_the_connection_stay_out_of_requests() -> None:
    fields = [
        (b"host", b"h"),
        (b"connection", b"close, X-Secret"),
        (b"x-secret", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"transfer-encoding", b"chunked"),
        (b"x-kept", b"2"),
    ]
    head = replace(web_request(), fields=fields)
    message = decode_request(encode_request(head, "/", ""))
    assert header_pairs(message.headers) == [(b"host", b"h"), (b"x-kept", b"2")]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:80", ("10.0.0.1", 80)),
        ("ipv6:[::1]:443", ("::1", 443)),
        ("unix:/run/x", ("", 0)),
        ("", ("", 0)),
    ],
)
def test_peers_are_read_as_host_and_port(peer: str, address: tuple[str, int]) -> None:
    assert address_of(peer) == address


def test_fields_of_the_connection_stay_out_of_answers() -> None:
    flat = [b"Connection", b"X-Hop", b"X-Hop", b"1", b"Transfer-Encoding", b"chunked", b"X-Kept", b" 2 "]
    assert read_answer(200, flat, "r").fields == [(b"x-kept", b"2"), (b"x-request-id", b"r")]


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\0b"),
        (b"x: y", b"a"),
        (b"x\r\ny", b"a"),
        (b"", b"a"),
        ("naïve".encode(), b"a"),
    ],
)
def test_a_header_cannot_begin_another_one(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="does not allow"):
        checked([field])


def test_requests_with_the_same_head_differ_in_id_and_body() -> None:
    head = web_request("POST", "/shop/a", accept="*/*")
    for request_id, body in ((b"r1", b"one"), (b"r2", b""), (b"", b"three")):
        message = decode_request(encode_request(head, head.path, "/shop", request_id, body))
        assert message.body == body
        assert dict(header_pairs(message.headers)).get(b"x-request-id", b"") == request_id
    assert decode_request(encode_request(head, head.path, "", b"r4")).root_path == ""


HEADERS = st.lists(
    st.tuples(st.sampled_from([b"a", b"Content-Length", b"content-length"]), st.sampled_from([b"1", b"2"]))
)


@given(HEADERS, st.binary(max_size=3))
def test_a_response_is_read_like_its_head(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Heads are read once for all answers that have them; the result is that of reading each of them."""

    def outcome(read: Callable[[], WebAnswer]) -> tuple[list[tuple[bytes, bytes]], int | None] | None:
        try:
            answer = read()
        except ValueError:
            return None
        return sorted(answer.fields), answer.content_length

    flat = [part for field in headers for part in field]
    for _ in range(2):
        seen = outcome(lambda: read_response(encode_response(200, headers, body, "/items"), "r")[0])
        assert seen == outcome(lambda: read_answer(200, flat, "r"))


def test_a_response_has_its_body_and_route() -> None:
    for body in (b"one", b"three"):
        headers = [(b"content-length", b"%d" % len(body)), (b"x", b"y")]
        answer, read = read_response(encode_response(200, headers, body, "/items"), f"id of {body!r}")
        assert (read, answer.content_length, answer.route) == (body, len(body), "/items")
        assert answer.fields == [(b"x", b"y"), (b"x-request-id", f"id of {body!r}".encode())]


@given(st.lists(st.tuples(ANY_BYTES, ANY_BYTES), max_size=5))
def test_what_passes_is_always_one_line_for_each_field(fields: list[tuple[bytes, bytes]]) -> None:
    try:
        passed = checked(fields)
    except ValueError:
        return
    text = b"".join(b"%b: %b\r\n" % field for field in passed)
    assert text.count(b"\r\n") == text.count(b"\n") == text.count(b"\r") == len(passed)
    assert end_to_end(passed) == passed


@pytest.mark.parametrize("status", [0, 100, 101, 199, 1000])
def test_a_status_ends_the_exchange(status: int) -> None:
    with pytest.raises(ValueError, match="does not end an exchange"):
        read_answer(status, [], "r")


@pytest.mark.parametrize("values", [[b"1", b"2"], [b"x"], [b"-1"], [b"1, 1"], [b"1" * 19]])
def test_a_content_length_is_one_number(values: list[bytes]) -> None:
    flat = [part for value in values for part in (b"content-length", value)]
    with pytest.raises(ValueError, match="content-length"):
        read_answer(200, flat, "r")


def test_the_id_of_the_request_is_returned_once() -> None:
    """The id of the request is returned once (item 204)."""
    assert read_answer(200, [b"X-Request-Id", b"another"], "mine").fields == [(b"x-request-id", b"mine")]


def test_lengths_are_kept_where_there_is_no_body() -> None:
    answer = read_answer(304, [b"content-length", b"7"], "r")
    assert not answer.has_body
    assert (b"content-length", b"7") in answer.fields_without_body(answer.content_length)
    assert read_answer(204, [b"content-length", b"0"], "r").fields_without_body(0) == [(b"x-request-id", b"r")]
