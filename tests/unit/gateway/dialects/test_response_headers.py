"""Initial metadata and compression of responses, as stock clients and the bytes on the wire show them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import partial

import grpc
import grpc.aio
import pytest

from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.rpc_ends import RawCall, raw_call
from tests.unit.gateway.fakes import (
    SERVER_STREAM,
    UNARY,
    FakeRouter,
    echo,
    failure_of,
    finish,
    item,
    on_io_loop,
    serving,
    until,
)

TEXT = b"text that repeats " * 5_000
EMPTY = bytes(5)
"""A request message."""
GZIP = (b"grpc-accept-encoding", b"identity, deflate,gzip")


def say(call: OutgoingCall, *entries: tuple[str, bytes]) -> None:
    call.sink.on_initial_metadata(entries)


def compress(call: OutgoingCall, encoding: str = "gzip") -> None:
    call.sink.on_compression(encoding, skips_next=False)


def skip_next(call: OutgoingCall) -> None:
    call.sink.on_compression("", skips_next=True)


def messages_of(call: RawCall) -> list[tuple[int, bytes]]:
    """The flag and the bytes of each message, as they came."""
    body, found = bytes(call.body), []
    while body:
        end = 5 + int.from_bytes(body[1:5], "big")
        found.append((body[0], body[5:end]))
        body = body[end:]
    return found


async def raw_answer(answer: Callable[[OutgoingCall], None], method: str = UNARY, accepted: bytes = GZIP[1]) -> RawCall:
    async with serving(FakeRouter(answer), "shop") as gateway:
        address, path = f"127.0.0.1:{gateway.port}", method.encode()
        return await raw_call(address, (GZIP[0], accepted), body=EMPTY, path=path)


# ---- Initial metadata ------------------------------------------------------------------------------------------------


def test_a_unary_client_gets_initial_metadata() -> None:
    def answer(call: OutgoingCall) -> None:
        say(call, ("first", b"1"), ("blob-bin", b"\0\xff"))
        echo(call)

    async def scenario() -> None:
        async with serving(FakeRouter(answer), "shop") as gateway:
            call = gateway.channel.unary_unary(UNARY)(TEXT, timeout=10)
            assert await call == TEXT
            assert list(await call.initial_metadata()) == [("first", "1"), ("blob-bin", b"\0\xff")]
            assert dict(list(await call.trailing_metadata())).keys() == {"request_id"}

    on_io_loop(scenario())


def test_headers_of_a_unary_call_do_not_wait_for_its_response() -> None:
    """The client is one for streams: grpc.aio's for unary calls reads everything at once."""

    async def scenario() -> None:
        router = FakeRouter(lambda call: say(call, ("first", b"1")))
        async with serving(router, "shop") as gateway:
            call = gateway.channel.unary_stream(UNARY)(TEXT, timeout=10)
            assert list(await call.initial_metadata()) == [("first", "1")]
            assert not call.done()
            echo(router.calls[0])
            assert [message async for message in call] == [TEXT]

    on_io_loop(scenario())


def test_a_streaming_client_gets_initial_metadata_before_the_first_message() -> None:
    async def scenario() -> None:
        router = FakeRouter(lambda call: say(call, ("first", b"1")))
        async with serving(router, "shop") as gateway:
            call = gateway.channel.unary_stream(SERVER_STREAM)(b"", timeout=10)
            assert list(await call.initial_metadata()) == [("first", "1")]
            for number in range(3):
                item(router.calls[0], b"%d" % number)
            finish(router.calls[0], Outcome(trailers=(("count", b"3"),)))
            assert [message async for message in call] == [b"0", b"1", b"2"]
            assert dict(list(await call.trailing_metadata()))["count"] == "3"

    on_io_loop(scenario())


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM])
def test_a_call_may_fail_after_its_headers(method: str) -> None:
    async def scenario() -> None:
        router = FakeRouter(lambda call: say(call, ("first", b"1")))
        async with serving(router, "shop") as gateway:
            call = gateway.channel.unary_stream(method)(b"", timeout=10)
            assert dict(list(await call.initial_metadata())) == {"first": "1"}
            finish(router.calls[0], Outcome(code=9, message="closed", trailers=(("opens", b"monday"),)))
            assert (await call.code(), await call.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "closed")
            assert dict(list(await call.trailing_metadata()))["opens"] == "monday"

    on_io_loop(scenario())


@pytest.mark.parametrize(
    ("key", "value"), [("Upper", b"1"), ("grpc-x", b"1"), ("content-type", b"text/html"), ("spaced", b"\xff")]
)
def test_initial_metadata_that_grpc_cannot_carry_are_named(key: str, value: bytes) -> None:
    def answer(call: OutgoingCall) -> None:
        say(call, (key, value))
        item(call, b"too late")
        say(call, ("ok", b"too late"))

    async def scenario() -> None:
        router = FakeRouter(answer)
        async with serving(router, "shop") as gateway:
            error = await failure_of(gateway.channel.unary_unary(UNARY)(b"", timeout=10))
            assert error.code() is grpc.StatusCode.INTERNAL
            assert f"User code set initial metadata '{key}'" in (error.details() or "")
            assert router.cancelled == router.calls
            await gateway.idle()

    on_io_loop(scenario())


def test_a_call_that_was_sent_again_keeps_its_first_headers() -> None:
    def answer(call: OutgoingCall) -> None:
        say(call, ("attempt", b"1"))
        say(call, ("attempt", b"2"))
        compress(call)
        finish(call, Outcome(payload=raw(TEXT)))

    answered = on_io_loop(raw_answer(answer))
    assert (answered.heads[0][b"attempt"], b"grpc-encoding" in answered.heads[0]) == (b"1", False)
    assert messages_of(answered) == [(0, TEXT)]


def test_headers_of_a_client_that_has_left_go_nowhere() -> None:
    async def scenario() -> None:
        router = FakeRouter()
        async with serving(router, "shop") as gateway:
            call = gateway.channel.unary_unary(UNARY)(b"", timeout=10)
            await until(lambda: router.calls, "the call")
            call.cancel()
            await until(lambda: router.cancelled, "the cancel")
            say(router.calls[0], ("first", b"1"))
            compress(router.calls[0])
            assert await gateway.channel.unary_unary(UNARY)(b"", timeout=0.05).code() is not grpc.StatusCode.OK

    on_io_loop(scenario())


# ---- Compression -----------------------------------------------------------------------------------------------------


def stream_of_text(call: OutgoingCall, encoding: str) -> None:
    compress(call, encoding)
    for _ in range(20):
        item(call, TEXT)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_stock_clients_read_compressed_responses(encoding: str) -> None:
    def unary(call: OutgoingCall) -> None:
        compress(call, encoding)
        finish(call, Outcome(payload=raw(TEXT), trailers=(("hint", b"1"),)))

    async def scenario() -> None:
        router = FakeRouter(unary)
        async with serving(router, "shop") as gateway:
            call = gateway.channel.unary_unary(UNARY)(b"", timeout=10)
            assert await call == TEXT
            assert ("hint", "1") in list(await call.trailing_metadata())
            router.answer = partial(stream_of_text, encoding=encoding)
            stream = gateway.channel.unary_stream(SERVER_STREAM)(b"", timeout=10)
            assert [await stream.read() for _ in range(20)] == [TEXT] * 20
            credits = 20 * raw(TEXT).credits
            await until(lambda: sum(router.link.granted) == credits, "credit for what has left")
            finish(router.calls[-1], Outcome())
            assert await stream.read() is grpc.aio.EOF
            await gateway.idle()

    on_io_loop(scenario())


def test_a_unary_response_is_compressed() -> None:
    def answer(call: OutgoingCall) -> None:
        compress(call)
        finish(call, Outcome(payload=raw(TEXT)))

    packed = on_io_loop(raw_answer(answer))
    assert packed.heads[0][b"grpc-encoding"] == b"gzip"
    ((flag, data),) = messages_of(packed)
    assert (flag, gzip.decompress(data)) == (1, TEXT)
    assert packed.heads[-1][b"grpc-status"] == b"0"


def test_the_method_may_leave_single_messages_uncompressed() -> None:
    def answer(call: OutgoingCall) -> None:
        skip_next(call)
        compress(call, "deflate")
        say(call, ("first", b"1"))
        item(call, TEXT)
        item(call, TEXT)
        skip_next(call)
        item(call, TEXT)
        item(call, TEXT)
        finish(call, Outcome())

    packed = on_io_loop(raw_answer(answer, SERVER_STREAM))
    assert (packed.heads[0][b"grpc-encoding"], packed.heads[0][b"first"]) == (b"deflate", b"1")
    messages = messages_of(packed)
    assert [flag for flag, _ in messages] == [0, 1, 0, 1]
    assert {zlib.decompress(data) if flag else data for flag, data in messages} == {TEXT}


@pytest.mark.parametrize(
    ("encoding", "accepted"), [("gzip", b"identity,deflate"), ("gzip", b""), ("br", b"br,gzip"), ("", b"gzip")]
)
def test_responses_are_not_compressed_with_what_was_not_agreed_on(encoding: str, accepted: bytes) -> None:
    def answer(call: OutgoingCall) -> None:
        compress(call, encoding)
        finish(call, Outcome(payload=raw(TEXT)))

    plain = on_io_loop(raw_answer(answer, accepted=accepted))
    assert b"grpc-encoding" not in plain.heads[0]
    assert messages_of(plain) == [(0, TEXT)]


@pytest.mark.parametrize("message", [b"short", b"x" * 1_100_000], ids=["short", "long"])
def test_messages_that_are_not_worth_it_are_sent_as_they_are(message: bytes) -> None:
    def answer(call: OutgoingCall) -> None:
        compress(call)
        finish(call, Outcome(payload=raw(message)))

    async def scenario() -> None:
        async with serving(FakeRouter(answer), "shop") as gateway:
            assert await gateway.channel.unary_unary(UNARY)(b"", timeout=10) == message

    on_io_loop(scenario())
    if len(message) < 1000:
        assert messages_of(on_io_loop(raw_answer(answer))) == [(0, message)]
