"""What a client makes of the frames of a server, byte by byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.http2 import frame_format as wire
from mesh.http2.client_connection import ClientConnection
from mesh.http2.frame_format import ErrorCode
from mesh.http2.limits import Limits
from mesh.rpc.client_call import ClientCall
from mesh.rpc.response_head import read_response_head
from tests.unit.fakes.http2_ends import data, failures, headers, read_frames, rst_stream, settings

HEAD = headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc")])
OK = headers(1, [(b"grpc-status", b"0")], ends=True)


def message(text: bytes) -> bytes:
    return b"\0" + len(text).to_bytes(4, "big") + text


class Conversation:
    """A call on stream 1 of a connection without a socket."""

    def __init__(self, timeout_s: float | None = None) -> None:
        self.finished = 0
        self.connection = ClientConnection(read_response_head, Limits(), time.monotonic, lambda: None)
        self.connection.receive(settings())
        self.call = ClientCall(None, None, 1_000, self._finish)
        if timeout_s is not None:
            self.call.expire_after(timeout_s)
        self.call.begin(self.connection.open(b"\x83", self.call))
        self.connection.outbox.end(self.call._stream)  # type: ignore[arg-type]
        self.written()

    def _finish(self) -> None:
        self.finished += 1

    def receive(self, *parts: bytes) -> None:
        self.connection.receive(b"".join(parts))

    def written(self) -> list[Any]:
        return read_frames(b"".join(self.connection.take_output()))

    async def status(self) -> tuple[grpc.StatusCode, str]:
        async with asyncio.timeout(30):
            return await self.call.code(), await self.call.details()


def on_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [
        (HEAD + data(1, message(b"x")[:3]) + OK, grpc.StatusCode.INTERNAL, "not complete"),
        (HEAD + data(1, message(b"x"), ends=True), grpc.StatusCode.INTERNAL, "without a status"),
        (HEAD + headers(1, [(b"x", b"1")], ends=True), grpc.StatusCode.INTERNAL, "No status"),
        (HEAD + headers(1, [(b"x", b"1")]), grpc.StatusCode.INTERNAL, "error code 1"),
        (HEAD + HEAD, grpc.StatusCode.INTERNAL, "error code 1"),
        (HEAD + data(1, b"\7 odd "), grpc.StatusCode.INTERNAL, "begins with 7"),
        (HEAD + data(1, message(bytes(1_001))), grpc.StatusCode.RESOURCE_EXHAUSTED, "larger"),
        (headers(1, [(b":status", b"200"), *[(b"x", b"y")] * 600]), grpc.StatusCode.RESOURCE_EXHAUSTED, "metadata"),
        (headers(1, [(b":status", b"502")], ends=True), grpc.StatusCode.UNAVAILABLE, "HTTP 502"),
        (rst_stream(1, ErrorCode.CANCEL), grpc.StatusCode.CANCELLED, "reset"),
        (wire.goaway_frame(0, ErrorCode.NO_ERROR), grpc.StatusCode.UNAVAILABLE, "retried"),
    ],
    ids=[
        "half",
        "no trailers",
        "no status",
        "more headers",
        "the same headers",
        "odd",
        "large",
        "metadata",
        "http",
        "reset",
        "goaway",
    ],
)
def test_endings(sent: bytes, code: grpc.StatusCode, text: str) -> None:
    async def scenario() -> None:
        talk = Conversation()
        talk.receive(sent)
        found, details = await talk.status()
        assert (found, text in details) == (code, True), details
        assert talk.finished == 1
        assert not talk.connection.streams

    on_loop(scenario)


def test_a_response() -> None:
    async def scenario() -> None:
        talk = Conversation()
        talk.receive(HEAD, data(1, message(b"answer")), OK)
        assert await talk.call == b"answer"
        assert await talk.call.code() is grpc.StatusCode.OK
        assert not failures(talk.written())

    on_loop(scenario)


def test_interim_responses_are_ignored() -> None:
    async def scenario() -> None:
        talk = Conversation()
        interim = headers(1, [(b":status", b"103"), (b"link", b"x")])
        talk.receive(
            interim, interim, headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"a", b"b")])
        )
        assert await talk.call.initial_metadata() == (("a", "b"),)
        talk.receive(data(1, message(b"answer")), OK)
        assert await talk.call == b"answer"

    on_loop(scenario)


@pytest.mark.parametrize("count", [0, 2])
def test_a_unary_call_has_exactly_one_response(count: int) -> None:
    async def scenario() -> None:
        talk = Conversation()
        talk.receive(HEAD, *[data(1, message(b"x"))] * count)
        if not count:
            talk.receive(OK)
        with pytest.raises(grpc.aio.AioRpcError, match="exactly one"):
            await talk.call
        assert await talk.call.code() is grpc.StatusCode.INTERNAL
        assert not talk.connection.streams

    on_loop(scenario)


def test_what_has_come_before_a_failure_is_read_first() -> None:
    async def scenario() -> None:
        talk = Conversation()
        talk.receive(HEAD, data(1, message(b"x")), rst_stream(1))
        assert await talk.call.read() == b"x"
        with pytest.raises(grpc.aio.AioRpcError):
            await talk.call.read()

    on_loop(scenario)


def test_a_reset_at_the_deadline_is_the_deadline() -> None:
    """Servers reset such calls, and may do so before the client's own timer is due."""

    async def scenario() -> None:
        talk = Conversation(timeout_s=0)
        talk.receive(rst_stream(1, ErrorCode.CANCEL))
        assert (await talk.status())[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        early = Conversation(timeout_s=100)
        early.receive(rst_stream(1, ErrorCode.CANCEL))
        assert (await early.status())[0] is grpc.StatusCode.CANCELLED

    on_loop(scenario)


@pytest.mark.parametrize("how", ["answered", "cancelled", "reset"])
def test_a_call_that_has_ended_leaves_no_timer(how: str) -> None:
    async def scenario() -> None:
        talk = Conversation(timeout_s=100)
        timer = talk.call._timer
        assert timer is not None
        match how:
            case "answered":
                talk.receive(HEAD, data(1, message(b"x")), OK)
            case "cancelled":
                talk.call.cancel()
                assert failures(talk.written()) == [(1, ErrorCode.CANCEL)]
            case "reset":
                talk.receive(rst_stream(1))
        assert timer.cancelled()
        assert talk.finished == 1

    on_loop(scenario)


def test_a_call_describes_itself() -> None:
    async def scenario() -> None:
        assert repr(ClientCall(None, None, 1, lambda: None)) == "<ClientCall waiting>"
        talk = Conversation()
        assert repr(talk.call) == "<ClientCall open>"
        talk.call.cancel()
        assert repr(talk.call) == "<ClientCall done>"

    on_loop(scenario)
