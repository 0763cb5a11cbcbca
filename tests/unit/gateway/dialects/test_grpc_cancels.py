"""Clients that leave at any moment leave nothing behind (L8, L9)."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import grpc.aio
import pytest

from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import CallState, OutgoingCall
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.gateway.fakes import (
    BIDI,
    CLIENT_STREAM,
    SERVER_STREAM,
    UNARY,
    FakeRouter,
    allow,
    finish,
    item,
    on_io_loop,
    serving,
    until,
)

CALLS = 600
CONCURRENT = 40
LONGEST_S = 0.02


class SlowMesh(FakeRouter):
    """Answers in pieces over up to LONGEST_S, unless the call is cancelled."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(self._begin)
        self._dice = dice
        self.ended = 0

    def cancel(self, call: OutgoingCall, reason: CancelReason) -> None:
        if call.state is not CallState.DONE:
            self.ended += 1
            super().cancel(call, reason)

    def _begin(self, call: OutgoingCall) -> None:
        self._later(self._give_credit, call)
        self._later(self._send_items, call)
        asyncio.get_running_loop().call_later(LONGEST_S, self._end, call)

    def _later(self, step: Any, call: OutgoingCall) -> None:
        asyncio.get_running_loop().call_later(self._dice.random() * LONGEST_S, step, call)

    def _give_credit(self, call: OutgoingCall) -> None:
        if call.state is not CallState.DONE and call.request.streams_request:
            allow(call, 3)

    def _send_items(self, call: OutgoingCall) -> None:
        if call.state is not CallState.DONE and call.request.streams_response:
            for _ in range(20):
                item(call, b"x" * 10_000)

    def _end(self, call: OutgoingCall) -> None:
        if call.state is not CallState.DONE:
            self.ended += 1
            finish(call, Outcome(payload=None if call.request.streams_response else raw(b"done")))


async def call_and_leave(channel: grpc.aio.Channel, dice: random.Random, longest_s: float) -> None:
    method = dice.choice([UNARY, SERVER_STREAM, CLIENT_STREAM, BIDI])
    call: Any
    match method:
        case "/shop.Store/Get":
            call = channel.unary_unary(method)(b"x")
        case "/shop.Store/List":
            call = channel.unary_stream(method)(b"x")
        case "/shop.Store/Put":
            call = channel.stream_unary(method)()
        case _:
            call = channel.stream_stream(method)()
    # Do not wait for the call itself: grpc.aio's client never ends a stream that was cancelled before its start.
    has_left = asyncio.Event()

    def leave() -> None:
        call.cancel()
        has_left.set()

    asyncio.get_running_loop().call_later(dice.random() * longest_s, leave)
    sending = asyncio.ensure_future(send(call, dice.randrange(5) if method in (CLIENT_STREAM, BIDI) else 0))
    await has_left.wait()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def send(call: Any, messages: int) -> None:
    for _ in range(messages):
        await call.write(b"x")
    if messages:
        await call.done_writing()


def test_calls_that_clients_leave_at_random_leave_no_trace(caplog: pytest.LogCaptureFixture):
    dice = random.Random(7)

    async def scenario() -> None:
        mesh = SlowMesh(dice)
        async with serving(mesh, "shop") as gateway:
            longest_s = LONGEST_S
            for _ in range(CALLS // CONCURRENT):
                before = len(mesh.calls)
                await asyncio.gather(*(call_and_leave(gateway.channel, dice, longest_s) for _ in range(CONCURRENT)))
                if len(mesh.calls) - before < CONCURRENT / 2:
                    longest_s *= 2  # a busy machine: most clients left before their call reached the mesh
            await gateway.idle()
            await until(lambda: mesh.ended == len(mesh.calls), "the end of every call on the mesh")
            await until(lambda: not reading_tasks(), "the end of every reader")
            assert len(mesh.calls) > CALLS / 4

    with caplog.at_level(logging.INFO):
        on_io_loop(scenario())
    assert not unexpected(caplog)


def test_a_deadline_that_passes_during_a_write_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def flood(call: OutgoingCall) -> None:
        for _ in range(100):
            item(call, b"x" * 1_000_000)

    async def scenario() -> None:
        router = FakeRouter(flood)
        async with serving(router, "shop") as gateway:
            timeout_s = 0.2
            while not await has_begun(gateway.channel.unary_stream(SERVER_STREAM)(b"", timeout=timeout_s)):
                timeout_s *= 2  # a busy machine: the deadline passed before the writes
            await until(lambda: len(router.cancelled) == len(router.calls), "the cancel")
            await gateway.idle()

    with caplog.at_level(logging.INFO):
        on_io_loop(scenario())
    assert not unexpected(caplog)


def unexpected(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """All log lines but the one that says that the listener serves now."""
    return [each for each in caplog.records if "WAITING -> SERVING" not in each.getMessage()]


async def has_begun(stream: grpc.aio.UnaryStreamCall[bytes, bytes]) -> bool:
    try:
        return isinstance(await stream.read(), bytes)
    except grpc.aio.AioRpcError:
        return False


def reading_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("requests of")]
