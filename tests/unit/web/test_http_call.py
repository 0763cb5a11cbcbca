"""mesh.web.http_call: whatever pieces an application sends, the client gets its body in as few messages as possible."""

import asyncio
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.web import http_call
from mesh.web.asgi_scope import asgi_scope
from mesh.web.http_call import HttpCall
from mesh.wire.web_messages import decode_response
from tests.unit.web.web_calls import web_request

PIECE_MAX_BYTES = 8


class Channel:
    """Keeps what a gateway would get."""

    is_streamed = False

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.whole: bytes | None = None
        self.is_finished = False

    async def read(self) -> bytes | None:
        raise AssertionError("the request is complete")

    async def write(self, data: bytes) -> None:
        assert not self.is_finished
        self.items.append(data)

    def finish(self, data: bytes | None) -> None:
        assert not self.is_finished
        assert data is None or not self.items
        self.is_finished = True
        self.whole = data

    async def ended(self) -> None:
        assert self.is_finished


def sent(*messages: dict[str, Any], method: str = "GET") -> Channel:
    async def send() -> None:
        for message in messages:
            await call.send(message)

    channel = Channel()
    request = web_request(method=method)
    call = HttpCall(b"", channel, asgi_scope(request))
    asyncio.run(send())
    return channel


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


START = {"type": "http.response.start", "status": HTTPStatus.CREATED, "headers": [(b"a", b"1")]}


@given(st.lists(st.binary(max_size=3 * PIECE_MAX_BYTES), max_size=6), st.binary(max_size=3 * PIECE_MAX_BYTES))
def test_a_body_arrives_as_it_was_sent(pieces: list[bytes], last: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_call, "PIECE_MAX_BYTES", PIECE_MAX_BYTES)
        channel = sent(START, *(body(piece, more=True) for piece in pieces), body(last))
    assert channel.is_finished
    head = decode_response(channel.items[0] if channel.whole is None else channel.whole)
    assert (head.status, list(head.headers)) == (201, [b"a", b"1"])
    arrived = [head.body, *channel.items[1:]]
    assert b"".join(arrived) == b"".join(pieces) + last
    assert max(map(len, arrived)) <= PIECE_MAX_BYTES
    assert all(arrived[1:]), "only the first piece may be empty, which carries the head"
    is_one_message = not pieces and len(last) <= PIECE_MAX_BYTES
    assert (channel.whole is not None) == is_one_message


@given(st.lists(st.sampled_from(["start", "piece", "last"]), max_size=6))
def test_messages_out_of_order_are_refused(kinds: list[str]) -> None:
    messages = {"start": START, "piece": body(b"x", more=True), "last": body(b"y")}
    in_order = kinds == [] or (
        kinds[0] == "start" and all(kind == "piece" for kind in kinds[1:-1]) and "start" not in kinds[1:]
    )
    if in_order:
        sent(*(messages[kind] for kind in kinds))
    else:
        with pytest.raises(RuntimeError, match="out of order"):
            sent(*(messages[kind] for kind in kinds))


def test_memory_views_are_bodies() -> None:
    channel = sent(START, body(memoryview(b"view")))  # type: ignore[arg-type]
    assert channel.whole is not None
    assert decode_response(channel.whole).body == b"view"


@pytest.mark.parametrize(
    ("raw_path", "path"),
    [("/a%20b", "/a b"), ("/%C3%BC", "/ü"), ("/a%2Fb", "/a/b"), ("/100%", "/100%"), ("/%ff", "/�")],
)
def test_paths_are_decoded_once(raw_path: str, path: str) -> None:
    scope = asgi_scope(web_request(raw_path))
    assert (scope["path"], scope["raw_path"]) == (path, raw_path.encode())


def test_a_call_shows_how_far_its_response_is() -> None:
    async def main() -> None:
        assert repr(call) == "<HttpCall of /, IDLE>"
        await call.send({"type": "http.response.start", "status": 200})
        assert repr(call) == "<HttpCall of /, STARTED>"
        await call.send(body(b"all"))
        assert repr(call) == "<HttpCall of /, COMPLETE>"

    call = HttpCall(b"", Channel(), asgi_scope(web_request()))
    asyncio.run(main())
