"""Responses, streams and statuses as JSON."""

from __future__ import annotations

import json

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from gateway.transcoding.field_error import FieldError
from gateway.transcoding.http_rules import method_rule, read_rules
from gateway.transcoding.json_lines import LineReader
from gateway.transcoding.json_writer import JsonWriters
from gateway.transcoding.response_json import ResponseForm
from gateway.transcoding.status_json import field_error_json, status_json
from gateway.transcoding.stream_forms import (
    JSON_ARRAY,
    JSON_LINES,
    SERVER_SENT_EVENTS,
    StreamForm,
    stream_form,
)
from tests.unit.gateway.transcoding.kinds_pool import POOL, message_class, method

WRITERS = JsonWriters(POOL)
STATUS = b'{"code":13}'


def test_a_response_is_its_message_or_one_field_of_it() -> None:
    request = message_class("kinds.BookRequest")(name="n", book={"title": "t"}).SerializeToString()
    whole = ResponseForm(method("UpdateBook"), method_rule("/kinds.Library/UpdateBook"), WRITERS)
    field = ResponseForm(method("UpdateBook"), read_rules(method("UpdateBook")).rules[0], WRITERS)
    assert json.loads(whole.json(request)) == {"name": "n", "book": {"title": "t"}}
    assert json.loads(field.json(memoryview(request))) == {"title": "t"}
    assert json.loads(field.json(b"")) == {}


def test_a_raw_response_is_its_body_and_content_type() -> None:
    form = ResponseForm(method("PutContent"), read_rules(method("PutContent")).rules[0], WRITERS)
    body = message_class("google.api.HttpBody")(content_type="text/csv", data=b"a,b").SerializeToString()
    assert form.is_raw
    assert form.raw(body) == ("text/csv", b"a,b")
    assert form.raw(b"") == ("application/octet-stream", b"")
    wrong = message_class("google.api.HttpBody")(content_type="text/csv\r\nx: y").SerializeToString()
    with pytest.raises(ValueError, match="content type"):
        form.raw(wrong)


def test_what_is_no_message_or_no_json_is_an_error() -> None:
    form = ResponseForm(method("Copy"), method_rule("/kinds.Library/Copy"), WRITERS)
    with pytest.raises(ValueError, match=r"no kinds\.Everything"):
        form.json(b"\xff")
    unknown = message_class("kinds.Everything")(any={"type_url": "x/y.Z", "value": b"1"})
    with pytest.raises(ValueError, match=r"y\.Z"):
        form.json(unknown.SerializeToString())
    infinite = message_class("kinds.Everything")(value={"number_value": float("inf")})
    with pytest.raises(ValueError, match="Infinity"):
        form.json(infinite.SerializeToString())


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", JSON_ARRAY),
        ("*/*", JSON_ARRAY),
        ("application/json", JSON_ARRAY),
        ("application/x-ndjson", JSON_LINES),
        ("application/jsonl; charset=utf-8", JSON_LINES),
        ("text/event-stream", SERVER_SENT_EVENTS),
        ("text/html, */*;q=0.8", JSON_ARRAY),
        ("application/json;q=0.5, text/event-stream", SERVER_SENT_EVENTS),
        ("text/event-stream;q=0, application/x-ndjson;q=0.1", JSON_LINES),
        ("text/event-stream;q=x", None),
        ("text/event-stream;q=nan", None),
        ("text/event-stream;q=inf, application/x-ndjson;q=0.1", JSON_LINES),
        ("text/event-stream;q=1_0, application/x-ndjson;q=0.1", JSON_LINES),
        ("text/event-stream;q=2, application/x-ndjson;q=0.1", JSON_LINES),
        ("text/event-stream;q=.1, application/x-ndjson;q=.2", JSON_LINES),
        ("text/event-stream;q=1., application/x-ndjson;q=0.9", SERVER_SENT_EVENTS),
        ("image/png", None),
        ("application/json;q=0, */*", JSON_LINES),
        ("*/*, application/json;q=0, application/x-ndjson;q=0", SERVER_SENT_EVENTS),
        ("application/json;q=0.1, */*;q=0.9", JSON_LINES),
        ("*/*, text/event-stream", SERVER_SENT_EVENTS),
        ("application/*;q=0.5, text/event-stream;q=0.4", JSON_ARRAY),
        ("application/x-ndjson;q=0.1, application/jsonl;q=0.7, application/json;q=0.5", JSON_LINES),
    ],
)
def test_the_accept_header_chooses_the_form_of_a_stream(accept: str, form: StreamForm | None) -> None:
    """RFC 9110 §12.5.1: the most specific range that fits says the weight of a form."""
    assert stream_form(accept) is form


def written(form: StreamForm, items: list[bytes], *, fails: bool) -> bytes:
    body = b"".join(form.item(each, is_first=not place) for place, each in enumerate(items))
    if fails:
        return body + form.error(STATUS)
    return body + (form.end if items else form.empty)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_stream_is_whole_json_and_its_last_item_says_how_it_failed(count: int, fails: bool) -> None:
    items = [b'{"n":%d}' % number for number in range(count)]
    expected = [*({"n": number} for number in range(count)), *([{"error": {"code": 13}}] if fails else [])]
    assert json.loads(written(JSON_ARRAY, items, fails=fails)) == expected
    lines = written(JSON_LINES, items, fails=fails)
    assert lines.endswith(b"\n")
    assert [json.loads(line) for line in lines.splitlines()] == expected
    *events, last = written(SERVER_SENT_EVENTS, items, fails=fails).decode().removesuffix("\n\n").split("\n\n")
    assert events == [f"data: {each.decode()}" for each in items]
    assert last == (f"event: error\ndata: {STATUS.decode()}" if fails else "event: end\ndata: {}")


def test_a_stream_without_items_is_whole_too() -> None:
    assert json.loads(JSON_ARRAY.empty) == []
    assert JSON_LINES.empty == b""
    assert b"event: end" in SERVER_SENT_EVENTS.empty


def status_with(*details: AnyMessage) -> bytes:
    return status_pb2.Status(code=5, message="m", details=details).SerializeToString()


def test_the_details_of_a_status_are_decoded() -> None:
    standard, own, unknown = AnyMessage(), AnyMessage(), AnyMessage(type_url="x/y.Z", value=b"\x01")
    standard.Pack(error_details_pb2.ErrorInfo(reason="R"))
    own.Pack(message_class("kinds.Place")(row=3))
    status = json.loads(status_json(5, "m", status_with(standard, own, unknown), POOL))
    assert status == {
        "code": 5,
        "message": "m",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R"},
            {"@type": "type.googleapis.com/kinds.Place", "row": 3},
            {"@type": "x/y.Z", "value": "AQ=="},
        ],
    }


def test_a_status_without_details_or_with_wrong_ones_has_none() -> None:
    assert json.loads(status_json(5, "m")) == {"code": 5, "message": "m", "details": []}
    assert json.loads(status_json(5, "m", b"\xff"))["details"] == []


def test_a_wrong_field_is_a_violation_in_the_details() -> None:
    assert json.loads(field_error_json(FieldError("is odd", "a.b"))) == {
        "code": 3,
        "message": "a.b: is odd",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "a.b", "description": "is odd"}],
            }
        ],
    }
    assert json.loads(field_error_json(FieldError("no JSON")))["details"] == []


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_lines_do_not_depend_on_how_the_bytes_arrive(body: bytes, cuts: list[int]) -> None:
    reader, lines, start = LineReader(100), [], 0
    for cut in [*sorted(cuts), len(body)]:
        lines += reader.feed(body[start:cut])
        start = max(start, min(cut, len(body)))
    lines += reader.end()
    expected = [(number, line) for number, line in enumerate(body.split(b"\n"), start=1) if line.strip()]
    assert lines == expected
    assert reader.begun_bytes == 0


def test_a_line_has_a_limit() -> None:
    reader = LineReader(4)
    assert reader.feed(b"1234\n1") == [(1, b"1234")]
    with pytest.raises(FieldError, match="more than 4 bytes"):
        reader.feed(b"2345")
    with pytest.raises(FieldError, match="more than 4 bytes"):
        LineReader(4).feed(b"12345\n")
