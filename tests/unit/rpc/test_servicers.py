"""What servicers may do and what they get wrong, `async` and plain ones."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.rpc.method_handlers import MethodHandlers
from mesh.rpc.request_head import read_request_head
from mesh.rpc.rpc_channel import RpcChannel
from mesh.rpc.rpc_server import RpcServer
from tests.unit.fakes.rpc_ends import failure, scenario, until

PATH = "/test.Service/Method"
CODE = grpc.StatusCode.FAILED_PRECONDITION


@asynccontextmanager
async def serving(handler: Any) -> AsyncIterator[RpcChannel]:
    """A channel to a server with one method of bytes."""
    handlers = MethodHandlers()
    handlers.add_registered_method_handlers("test.Service", {"Method": handler})
    server = RpcServer(read_request_head, handlers.accept)
    port = await server.listen("127.0.0.1", 0)
    async with RpcChannel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(1)


def unary(function: Any, **codecs: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(function, **codecs)


def both(act: Callable[[Any], Any]) -> Any:
    """The act as an `async` servicer and as a plain one. What it returns is awaited where that is possible."""

    async def on_loop(request: bytes, context: Any) -> bytes:
        result = act(context)
        if asyncio.iscoroutine(result):
            await result
        return b"done"

    def in_thread(request: bytes, context: Any) -> bytes:
        act(context)
        return b"done"

    return pytest.mark.parametrize("function", [on_loop, in_thread], ids=["async", "plain"])


def status_of(function: Any) -> tuple[grpc.StatusCode, str]:
    async def talk() -> tuple[grpc.StatusCode, str]:
        async with serving(unary(function)) as channel:
            call = channel.call(PATH, [b""], timeout_s=10)
            return await call.code(), await call.details()

    return scenario(talk())


# ---- Statuses --------------------------------------------------------------------------------------------------------


@both(lambda context: context.abort(grpc.StatusCode.OK, "fine"))
def test_an_abort_with_ok_is_unknown(function: Any) -> None:
    assert status_of(function) == (grpc.StatusCode.UNKNOWN, "fine")


async def abort_and_catch(request: bytes, context: Any) -> bytes:
    try:
        await context.abort(CODE, "first")
    except Exception:
        await context.abort(grpc.StatusCode.INTERNAL, "second")
    return b""


async def abort_and_go_on(request: bytes, context: Any) -> bytes:
    try:
        await context.abort(CODE, "first")
    except Exception:
        return b"all is well"


async def abort_and_raise(request: bytes, context: Any) -> bytes:
    try:
        await context.abort(CODE, "first")
    finally:
        raise RuntimeError("in a finally block")


@pytest.mark.parametrize("function", [abort_and_catch, abort_and_go_on, abort_and_raise])
def test_the_first_abort_counts_whatever_the_servicer_does_then(function: Any) -> None:
    assert status_of(function) == (CODE, "first")


class Rich:
    """A grpc.Status, as grpc_status.rpc_status.to_status makes it."""

    code = CODE
    details = "rich"
    trailing_metadata = (("grpc-status-details-bin", b"\0\1"),)


@both(lambda context: context.abort_with_status(Rich()))
def test_rich_errors_arrive(function: Any) -> None:
    async def talk() -> None:
        async with serving(unary(function)) as channel:
            error = await failure(channel.call(PATH, [b""], timeout_s=10))
            assert (error.code(), error.details()) == (CODE, "rich")
            assert list(error.trailing_metadata()) == [("grpc-status-details-bin", b"\0\1")]

    scenario(talk())


def set_and_raise(context: Any) -> None:
    context.set_code(CODE)
    context.set_trailing_metadata((("why", "so"),))
    raise ValueError("a bug")


@both(set_and_raise)
def test_an_exception_keeps_the_code_that_was_set(function: Any, caplog: pytest.LogCaptureFixture) -> None:
    code, details = status_of(function)
    assert (code, "a bug" in details) == (CODE, True)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def time_out(request: bytes, context: Any) -> bytes:
    raise TimeoutError("of something else")


def test_a_timeout_of_the_servicers_own_is_no_deadline(caplog: pytest.LogCaptureFixture) -> None:
    code, details = status_of(time_out)
    assert (code, "of something else" in details) == (grpc.StatusCode.UNKNOWN, True)


@pytest.mark.parametrize(
    "act",
    [
        lambda context: context.set_trailing_metadata((("Upper", "x"),)),
        lambda context: context.set_trailing_metadata((("x", "é"),)),
        lambda context: context.set_trailing_metadata((("x", 5),)),
        lambda context: context.set_code(5),
        lambda context: context.set_details(b"bytes"),
    ],
    ids=["key", "value", "number", "code", "details"],
)
def test_what_grpc_cannot_send_is_internal(act: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def function(request: bytes, context: Any) -> bytes:
        act(context)
        return b""

    code, details = status_of(function)
    assert (code, "cannot send" in details) == (grpc.StatusCode.INTERNAL, True)
    assert len(caplog.records) == 1


@both(lambda context: context.send_initial_metadata((("Upper", "x"),)))
def test_wrong_initial_metadata_are_the_servicers_fault(function: Any, caplog: pytest.LogCaptureFixture) -> None:
    code, details = status_of(function)
    assert (code, "Upper" in details) == (grpc.StatusCode.UNKNOWN, True)


# ---- Codecs ----------------------------------------------------------------------------------------------------------


def broken(value: Any) -> Any:
    raise ValueError("a broken codec")


async def echo(request: Any, context: Any) -> Any:
    return request


@pytest.mark.parametrize(
    ("codec", "code"),
    [("request_deserializer", grpc.StatusCode.INTERNAL), ("response_serializer", grpc.StatusCode.UNKNOWN)],
)
def test_codecs_of_servers_that_raise(codec: str, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        async with serving(unary(echo, **{codec: broken})) as channel:
            error = await failure(channel.call(PATH, [b""], timeout_s=10))
            assert (error.code(), "a broken codec" in error.details()) == (code, True)

    scenario(talk())


@pytest.mark.parametrize("codec", ["serializer", "deserializer"])
def test_codecs_of_clients_that_raise(codec: str) -> None:
    async def talk() -> None:
        async with serving(unary(echo)) as channel:
            for _ in range(2):  # without and with a connection
                error = await failure(channel.call(PATH, [b""], timeout_s=10, **{codec: broken}))
                assert (error.code(), "a broken codec" in error.details()) == (grpc.StatusCode.INTERNAL, True)
            assert await channel.call(PATH, [b"x"], timeout_s=10) == b"x"
            assert not any(each.connection.streams for each in channel._transports)

    scenario(talk())


def test_requests_of_a_client_that_raise(caplog: pytest.LogCaptureFixture) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError("a bug of the caller")

    async def hang(requests: Any, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def talk() -> None:
        async with serving(grpc.stream_unary_rpc_method_handler(hang)) as channel:
            error = await failure(channel.call(PATH, requests(), timeout_s=10))
            assert (error.code(), "a bug of the caller" in error.details()) == (grpc.StatusCode.UNKNOWN, True)

    scenario(talk())
    assert len(caplog.records) == 1


# ---- Life ------------------------------------------------------------------------------------------------------------


def test_callbacks_run_once_the_call_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def on_loop(request: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda context: ended.append(f"async {context.done()} {context.cancelled()}"))
        context.add_done_callback(broken)
        return b""

    def in_thread(request: bytes, context: Any) -> bytes:
        assert context.add_callback(lambda: ended.append("plain"))
        assert context.is_active()
        return b""

    status_of(on_loop)
    status_of(in_thread)
    assert ended == ["async True True", "plain"]
    assert len(caplog.records) == 1


def test_generators_are_closed_when_the_client_leaves() -> None:
    closed: list[str] = []

    async def on_loop(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(10_000)
        finally:
            closed.append("async")

    def in_thread(request: bytes, context: Any) -> Any:
        try:
            while True:
                yield bytes(10_000)
        finally:
            closed.append("plain")

    async def talk(function: Any) -> None:
        async with serving(grpc.unary_stream_rpc_method_handler(function)) as channel:
            call = channel.call(PATH, [b""])
            await call.read()
            call.cancel()
            await until(lambda: closed, "the generator is closed")

    scenario(talk(on_loop))
    assert closed == ["async"]
    closed.clear()
    scenario(talk(in_thread))
    assert closed == ["plain"]


def test_a_slow_client_holds_its_servicer_back() -> None:
    made = 0

    async def many(request: bytes, context: Any) -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(1_000):
            made += 1
            yield bytes(10_000)

    async def talk() -> None:
        async with serving(grpc.unary_stream_rpc_method_handler(many)) as channel:
            call = channel.call(PATH, [b""])
            await call.read()
            before = -1
            while before != made:
                before = made
                await asyncio.sleep(0.02)
            assert made < 100
            assert [len(each) async for each in call] == [10_000] * 999

    scenario(talk())


def test_servicers_that_write_through_their_context() -> None:
    async def on_loop(request: bytes, context: Any) -> None:
        for number in range(3):
            await context.write(b"%d" % number)

    async def echo_reads(requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request)

    async def talk() -> None:
        async with serving(grpc.unary_stream_rpc_method_handler(on_loop)) as channel:
            assert [each async for each in channel.call(PATH, [b""], timeout_s=10)] == [b"0", b"1", b"2"]
        async with serving(grpc.stream_stream_rpc_method_handler(echo_reads)) as channel:
            assert [each async for each in channel.call(PATH, [b"a", b"b"], timeout_s=10)] == [b"a", b"b"]

    scenario(talk())


def test_threads_do_not_stop_the_loop() -> None:
    gate = threading.Event()

    def slow(request: bytes, context: Any) -> bytes:
        return b"%d" % gate.wait(30)

    async def talk() -> None:
        async with serving(unary(slow)) as channel:
            call = channel.call(PATH, [b""])
            for _ in range(10):
                await asyncio.sleep(0.005)
                assert not call.done()
            gate.set()
            assert await call == b"1"

    scenario(talk())
