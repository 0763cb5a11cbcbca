"""Whatever a stranger sends as JSON gets one answer, is counted once, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.requests.exchange import BrokenBy
from gateway.transcoding.field_error import FieldError
from gateway.transcoding.json_parser import parse_json
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange, request
from tests.unit.fakes.standing_loop import standing_loop
from tests.unit.gateway.dialects.json_ends import SERVICE, JsonGateway
from tests.unit.gateway.fakes import allow, finish, item
from tests.unit.protos import kinds_pb2

PATHS = st.one_of(
    st.sampled_from([f"{SERVICE}{name}" for name in ("GetBook", "ListBooks", "AddBooks", "Chat", "Copy", "No")]),
    st.sampled_from(["/v1/books", "/v1/books:add", "/v1/shelves/1/books/2", "/v1/places/a/1", "/v1/content/x"]),
    st.lists(st.sampled_from(["v1", "books", "shelves", "%2F", "%", "%ff", "", "..", "a:b", ":"]), max_size=6).map(
        lambda parts: "/" + "/".join(parts)
    ),
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "pages", "place", "row", "next", "book", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    TREES.map(lambda tree: json.dumps(tree).encode()),
    st.lists(TREES, max_size=4).map(lambda trees: b"\n".join(json.dumps(each).encode() for each in trees)),
    TREES.map(lambda tree: gzip.compress(json.dumps(tree).encode())),
    st.integers(1, 3000).map(lambda depth: b'{"next":' * depth),
)
FIELDS = st.lists(
    st.sampled_from(
        [
            ("content-type", "application/json"),
            ("content-type", "application/x-ndjson"),
            ("content-type", "text/plain"),
            ("content-encoding", "gzip"),
            ("accept", "application/x-ndjson"),
            ("accept", "text/event-stream;q=x,,;"),
            ("application", "books"),
            ("application", "\x7f"),
            ("grpc-timeout", "1x"),
            ("x-request-timeout-seconds", "nan"),
            ("x-request-id", "\x01"),
            ("grpc-metadata-x-bin", "!"),
            ("grpc-metadata-", "x"),
        ]
    ),
    max_size=4,
)


def serve(call: OutgoingCall) -> None:
    """Answers at once whatever the method is."""
    streams_request, streams_response = call.request.streams_request, call.request.streams_response
    if streams_request:
        allow(call, 3)
    if call.state is CallState.DONE:
        return
    if streams_response:
        item(call, kinds_pb2.Book(pages=1).SerializeToString())
        finish(call, Outcome(code=13, message="broken"))
    elif not streams_request:
        finish(call, Outcome(payload=raw(b"")))


@settings(max_examples=400, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PATCH", "PUT", "REPORT", "OPTIONS"]),
    path=PATHS,
    query=st.binary(max_size=20) | st.sampled_from([b"", b"pages=1", b"place.row=1&name=%zz"]),
    fields=FIELDS,
    body=BODIES,
    step=st.integers(1, 40),
    leaves_at=st.integers(0, 20),
)
def test_any_request_is_answered_once_and_counted_once(**sent: Any) -> None:
    with standing_loop():
        gateway = JsonGateway(serve)
        head = request(sent["path"], *sent["fields"], method=sent["method"], query=sent["query"])
        exchange = FakeExchange(head)
        if not gateway.dialect.claims(head):
            return
        receiver = gateway.dialect.open(exchange)
        if receiver is None:
            assert exchange.has_ended
            assert exchange.status >= 400
            return
        for number, start in enumerate(range(0, len(sent["body"]), sent["step"])):
            if exchange.has_ended or number == sent["leaves_at"]:
                break
            receiver.on_body(sent["body"][start : start + sent["step"]])
        else:
            if not exchange.has_ended:
                receiver.on_end()
        if not exchange.has_ended:
            exchange.break_off()
            receiver.on_broken(BrokenBy.CLIENT)
        gateway.assert_counted_once()
        assert exchange.share.used_bytes == 0


@pytest.mark.parametrize("body", [b"[" + b"{}," * 200_000 + b"{}]", b"[" + b"1," * 4_000_000 + b"1]"])
def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(body: bytes) -> None:
    """16 KB of gzip may be millions of objects: gigabytes of memory, and seconds in which no other call goes on."""
    with pytest.raises(FieldError, match="send several messages"):
        parse_json(body)


def test_long_arrays_of_numbers_and_long_strings_are_read() -> None:
    assert len(parse_json(b"[" + b"1," * 1_000_000 + b"1]")) == 1_000_001
    assert len(parse_json(b'"' + b"x" * 1_000_000 + b'"')) == 1_000_000
