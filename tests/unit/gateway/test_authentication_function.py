"""A user's function that decides who may call, at the gRPC port, with stock clients over real sockets."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.authentication import ClientRequest, Refused
from mesh.exceptions import GrpcStatusError
from mesh.wire.identity import Identity
from mesh.wire.outcome import Outcome
from tests.unit.gateway.fakes import (
    BIDI,
    CLIENT_STREAM,
    UNARY,
    FakeRouter,
    Gateway,
    allow,
    echo,
    failure_of,
    finish,
    item,
    on_io_loop,
    until,
)
from tests.unit.gateway.guarded import guarded

HERE = "tests.unit.gateway.test_authentication_function"


async def call(gateway: Gateway, method: str = UNARY, request: bytes = b"x", **metadata: str) -> grpc.StatusCode:
    try:
        answer = await gateway.channel.unary_unary(method)(request, metadata=tuple(metadata.items()), timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    assert answer == request
    return grpc.StatusCode.OK


class Door:
    """What the functions below see and wait for."""

    def __init__(self) -> None:
        self.requests: list[ClientRequest] = []
        self.threads: set[int] = set()
        self.is_open = threading.Event()


door = Door()


@pytest.fixture(autouse=True)
def new_door() -> Iterator[None]:
    global door
    door = Door()
    yield
    door.is_open.set()


async def by_header(request: ClientRequest) -> Identity | Refused:
    door.requests.append(request)
    door.threads.add(threading.get_ident())
    match request.metadata.get("who"):
        case "known":
            return Identity("known", {"by": "header"})
        case "banned":
            return Refused("You are banned.", grpc.StatusCode.PERMISSION_DENIED)
        case "raise":
            raise ValueError("a secret of the function")
        case "status":
            raise GrpcStatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many log-ins")
        case "exit":
            sys.exit("a secret of the function")
        case "exit-later":
            asyncio.get_running_loop().call_soon(sys.exit)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return Identity("known")
        case "nothing":
            return None  # type: ignore[return-value]
        case "ok-status":
            return Refused("hm", grpc.StatusCode.OK)
        case "wait":
            await asyncio.to_thread(door.is_open.wait, 20)
            return Identity("patient")
        case "block":
            door.is_open.wait(30)
            return Identity("late")
        case "hang":
            await asyncio.Event().wait()
    return Refused()


async def before_check(gateway: Gateway, count: int) -> None:
    await until(lambda: len(door.requests) == count, f"{count} checks")


def test_a_function_decides_and_every_failure_refuses(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with guarded(router, authentication=f"{HERE}:by_header") as (gateway, _):
            assert await call(gateway, who="known") is grpc.StatusCode.OK
            assert router.calls[0].request.context.identity == Identity("known", {"by": "header"})
            for who, code in {
                "": grpc.StatusCode.UNAUTHENTICATED,
                "banned": grpc.StatusCode.PERMISSION_DENIED,
                "raise": grpc.StatusCode.UNAUTHENTICATED,
                "status": grpc.StatusCode.RESOURCE_EXHAUSTED,
                "nothing": grpc.StatusCode.UNAUTHENTICATED,
                "ok-status": grpc.StatusCode.UNAUTHENTICATED,
            }.items():
                error = await failure_of(gateway.channel.unary_unary(UNARY)(b"", metadata=(("who", who),), timeout=10))
                assert error.code() is code, who
                assert "secret" not in (error.details() or "")
            assert len(router.calls) == 1
            seen = door.requests[0]
            assert (seen.path, seen.http_method, seen.certificate) == (UNARY, "POST", None)
            assert seen.peer.startswith("ipv4:127.0.0.1:")
            assert threading.get_ident() not in door.threads

    with caplog.at_level(logging.ERROR, "mesh.gateway"):
        on_io_loop(scenario())
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_a_function_that_ends_its_program_ends_no_other_check(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        options = {"function": f"{HERE}:by_header", "concurrent_max": 2}
        async with guarded(FakeRouter(echo), authentication=options) as (gateway, _):
            for _ in range(3):
                assert await call(gateway, who="exit") is grpc.StatusCode.UNAUTHENTICATED
                assert await call(gateway, who="exit-later") is grpc.StatusCode.OK
            assert await call(gateway, who="known") is grpc.StatusCode.OK

    on_io_loop(scenario())
    assert "tried to end the process" in caplog.text


def test_a_call_waits_with_its_request_until_the_function_has_decided() -> None:
    """Unary and streamed requests arrive whole."""

    def answer(call: Any) -> None:
        if not call.request.streams_request:
            return echo(call)
        router.link.on_half_close = lambda call: finish(call, Outcome(payload=None))
        router.link.on_item = lambda call, data: item(call, data)
        return allow(call, 100)

    router = FakeRouter(answer)

    async def scenario() -> None:
        async with guarded(router, authentication=f"{HERE}:by_header") as (gateway, _):
            who = (("who", "wait"),)
            unary = gateway.channel.unary_unary(UNARY)(b"u" * 100_000, metadata=who, timeout=20)
            stream = gateway.channel.stream_stream(BIDI)(metadata=who, timeout=20)
            await stream.write(b"first")
            await stream.write(b"second")
            await stream.done_writing()
            await before_check(gateway, 2)
            assert gateway.metrics.in_flight.count == 2
            assert not router.calls
            door.is_open.set()
            assert await unary == b"u" * 100_000
            assert [each async for each in stream] == [b"first", b"second"]
            await gateway.idle()
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())


def test_a_function_that_blocks_holds_up_no_other_call() -> None:
    """The I/O loop goes on, and open paths are answered."""

    async def scenario() -> None:
        async with guarded(FakeRouter(echo), authentication=f"{HERE}:by_header") as (gateway, _):
            blocked = asyncio.ensure_future(call(gateway, who="block"))
            await before_check(gateway, 1)
            health = health_pb2_grpc.HealthStub(gateway.channel)
            await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert not blocked.done()
            door.is_open.set()
            assert await blocked is grpc.StatusCode.OK

    on_io_loop(scenario())


@pytest.mark.parametrize("who", ["hang", "block"])
def test_a_function_that_takes_too_long_is_unavailable(who: str) -> None:
    async def scenario() -> None:
        options = {"function": f"{HERE}:by_header", "timeout_s": 0.05}
        async with guarded(FakeRouter(echo), authentication=options) as (gateway, _):
            assert await call(gateway, who=who) is grpc.StatusCode.UNAVAILABLE
            door.is_open.set()
            await gateway.idle()

    on_io_loop(scenario())


def test_too_many_checks_at_a_time_are_unavailable() -> None:
    async def scenario() -> None:
        options = {"function": f"{HERE}:by_header", "concurrent_max": 2}
        async with guarded(FakeRouter(echo), authentication=options) as (gateway, _):
            waiting = [asyncio.ensure_future(call(gateway, who="wait")) for _ in range(2)]
            await before_check(gateway, 2)
            assert await call(gateway, who="known") is grpc.StatusCode.UNAVAILABLE
            door.is_open.set()
            assert await asyncio.gather(*waiting) == [grpc.StatusCode.OK] * 2
            assert await call(gateway, who="known") is grpc.StatusCode.OK

    on_io_loop(scenario())


def test_a_client_that_leaves_while_it_is_checked_leaves_nothing() -> None:
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with guarded(router, authentication=f"{HERE}:by_header") as (gateway, _):
            stream = gateway.channel.stream_unary(CLIENT_STREAM)(metadata=(("who", "wait"),), timeout=20)
            await stream.write(b"x" * 1000)
            await until(lambda: gateway.listener.buffered_bytes >= 1000, "the request")
            stream.cancel()
            await gateway.idle()
            assert gateway.listener.buffered_bytes == 0
            door.is_open.set()
            assert await call(gateway, who="known") is grpc.StatusCode.OK
        assert len(router.calls) == 1

    on_io_loop(scenario())


def test_a_fault_of_the_gateway_behind_a_check_ends_only_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    async def scenario() -> None:
        async with guarded(FakeRouter(echo), authentication=f"{HERE}:by_header") as (gateway, _):
            monkeypatch.setattr(gateway.listener.methods, "find", fail)
            assert await call(gateway, who="known") is grpc.StatusCode.INTERNAL
            monkeypatch.undo()
            assert await call(gateway, who="known") is grpc.StatusCode.OK

    on_io_loop(scenario())


def test_the_end_of_a_gateway_refuses_what_is_being_checked() -> None:
    async def scenario() -> None:
        async with guarded(FakeRouter(echo), authentication=f"{HERE}:by_header") as (gateway, security):
            waiting = asyncio.ensure_future(call(gateway, who="hang"))
            await before_check(gateway, 1)
            await security.close()
            assert await waiting is grpc.StatusCode.UNAVAILABLE
            assert await call(gateway, who="known") is grpc.StatusCode.UNAVAILABLE

    on_io_loop(scenario())


def not_async(request: ClientRequest) -> Identity:
    return Identity("x")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("no.such.module:check", "cannot import no.such.module:check on this node"),
        (f"{HERE}:missing", "has no attribute 'missing'"),
        (f"{HERE}:not_async", "must be an `async def` function"),
    ],
)
def test_a_gateway_does_not_start_with_a_wrong_function(path: str, text: str) -> None:
    async def scenario() -> None:
        with pytest.raises((ImportError, TypeError), match=text) as caught:
            async with guarded(FakeRouter(echo), authentication=path):
                pass
        assert "grpc_options['authentication']['function']" in str(caught.value)

    on_io_loop(scenario())
