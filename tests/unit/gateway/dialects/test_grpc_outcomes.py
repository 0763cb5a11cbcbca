"""How gRPC calls through the gateway end, read by a stock client: deadlines, cancels, statuses and trailers."""

from __future__ import annotations

import time
from functools import partial

import grpc
import grpc.aio
import pytest

from mesh.exceptions import CancelReason, DeadlineExceededError
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.outcome import Outcome, failed, failed_in_user_code
from mesh.wire.payload import PICKLE, Payload, raw
from tests.unit.gateway.fakes import (
    BIDI,
    CLIENT_STREAM,
    SERVER_STREAM,
    UNARY,
    FakeRouter,
    allow,
    echo,
    failure_of,
    finish,
    on_io_loop,
    serving,
    until,
)

REQUESTS = "mesh_gateway_grpc_requests_total"
CLIENT_SHOWS_DETAILS_OF_OK = [int(part) for part in grpc.__version__.split(".")[:2]] <= [1, 80]
"""Clients of newer versions drop them."""


# ---- Deadlines and cancels -------------------------------------------------------------------------------------------


def test_the_clients_deadline_becomes_the_calls():
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop") as gateway:
            await gateway.channel.unary_unary(UNARY)(b"", timeout=10)
            await gateway.channel.unary_unary(UNARY)(b"")
        with_deadline, without = router.calls
        assert with_deadline.request.deadline_at_s is not None
        assert 8 < with_deadline.request.deadline_at_s - time.monotonic() < 11
        assert without.request.deadline_at_s is None

    on_io_loop(scenario())


def test_the_gateways_own_limit_shortens_the_clients_deadline():
    """The smaller one of both counts (item 220)."""

    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop", timeout_s=5) as gateway:
            await gateway.channel.unary_unary(UNARY)(b"", timeout=100)
            await gateway.channel.unary_unary(UNARY)(b"")
            await gateway.channel.unary_unary(UNARY)(b"", timeout=2)
        left = [(call.request.deadline_at_s or 0) - time.monotonic() for call in router.calls]
        assert all(3 < each < 6 for each in left[:2])
        assert left[2] < 3

    on_io_loop(scenario())


@pytest.mark.parametrize(("client_s", "says_timeout"), [(None, True), (100, True), (2, False)])
def test_the_gateways_own_limit_is_named_and_a_clients_deadline_keeps_its_text(
    client_s: float | None, says_timeout: bool
):
    """Whose limit has passed is in the details (D10)."""

    async def scenario() -> None:
        router = FakeRouter(lambda call: finish(call, failed(DeadlineExceededError())))
        async with serving(router, "shop", timeout_s=5) as gateway:
            metadata = (("request_id", "r1"),)
            call = gateway.channel.unary_unary(UNARY)(b"", timeout=client_s, metadata=metadata)
            error = await failure_of(call)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (error.details() == "Request r1 timed out after 5s.") is says_timeout

    on_io_loop(scenario())


@pytest.mark.parametrize(
    ("client_s", "early_s", "says_timeout"),
    [(None, 0.005, True), (None, 0.025, True), (None, 60, False), (2, 0.005, False)],
    ids=["running", "queued", "a deadline of its own", "the client's deadline"],
)
def test_a_nested_call_that_fails_at_the_very_end_of_the_time_is_the_timeout(
    client_s: float | None, early_s: float, says_timeout: bool, monkeypatch: pytest.MonkeyPatch
):
    """It has the deadline of its request, and fails a moment before it, earlier if it is queued (D10)."""
    ahead_s = 0.0
    monkeypatch.setattr("gateway.dialects.served_method.monotonic", lambda: time.monotonic() + ahead_s)

    def fail_late(call: OutgoingCall) -> None:
        nonlocal ahead_s
        ahead_s = 3600 - early_s
        with pytest.raises(DeadlineExceededError) as nested:
            raise DeadlineExceededError("it waited for a free place of shop/Stock")
        finish(call, failed_in_user_code(nested.value))

    async def scenario() -> None:
        async with serving(FakeRouter(fail_late), "shop", timeout_s=3600) as gateway:
            call = gateway.channel.unary_unary(UNARY)(b"", timeout=client_s, metadata=(("request_id", "r1"),))
            error = await failure_of(call)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (error.details() == "Request r1 timed out after 3600s.") is says_timeout
        assert ("free place" in str(error.details())) is not says_timeout

    on_io_loop(scenario())


def test_an_expired_deadline_cancels_the_call_and_counts_as_such():
    async def scenario() -> None:
        router = FakeRouter()
        async with serving(router, "shop") as gateway:
            error = await failure_of(gateway.channel.unary_unary(UNARY)(b"", timeout=0.05))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: router.cancelled == router.calls, "the cancel")
            assert router.cancel_reasons == [CancelReason.DEADLINE]
            assert gateway.sample(REQUESTS, "shop", UNARY, "DEADLINE_EXCEEDED") == 1
            await gateway.idle()

    on_io_loop(scenario())


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM, CLIENT_STREAM, BIDI])
def test_a_clients_cancel_reaches_the_router(method: str):
    async def scenario() -> None:
        router = FakeRouter()
        async with serving(router, "shop") as gateway:
            channel = gateway.channel
            calls = {
                UNARY: lambda: channel.unary_unary(UNARY)(b""),
                SERVER_STREAM: lambda: channel.unary_stream(SERVER_STREAM)(b""),
                CLIENT_STREAM: lambda: channel.stream_unary(CLIENT_STREAM)(),
                BIDI: lambda: channel.stream_stream(BIDI)(),
            }
            call = calls[method]()
            await until(lambda: router.calls, "the call")
            call.cancel()
            await until(lambda: router.cancelled, "the cancel")
            assert router.cancelled == router.calls
            assert router.cancel_reasons == [CancelReason.CLIENT]
            await until(lambda: gateway.sample(REQUESTS, "shop", method, "CANCELLED") == 1, "its count")
            await gateway.idle()

    on_io_loop(scenario())


@pytest.mark.parametrize("attempt", range(5))
def test_a_cancelled_upload_is_never_taken_for_a_complete_one(attempt: int):
    """grpc.aio reports the end of the stream before it reports the cancel."""
    router = FakeRouter(partial(allow, items=1000))

    async def scenario() -> None:
        async with serving(router, "shop") as gateway:
            stream = gateway.channel.stream_unary(CLIENT_STREAM)()
            await stream.write(b"half")
            await until(lambda: router.link.items, "the first half")
            stream.cancel()
            await until(lambda: router.cancelled, "the cancel")
            assert router.link.half_closed == 0

    on_io_loop(scenario())


# ---- Outcomes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM])
def test_code_details_and_trailers_of_user_code_pass_through(method: str):
    """The gateway does not change what user code has set (item 218)."""
    trailers = (("hint", b"try later"), ("grpc-status-details-bin", b"\x08\x09"))
    outcome = Outcome(code=9, message="closed on Sundays", trailers=trailers)

    async def scenario() -> None:
        async with serving(FakeRouter(partial(finish, outcome=outcome)), "shop") as gateway:
            call = gateway.channel.unary_unary(method)(b"", timeout=10)
            error = await failure_of(call)
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "closed on Sundays")
        returned = dict(list(error.trailing_metadata()))
        assert returned["hint"] == "try later"
        assert returned["grpc-status-details-bin"] == b"\x08\x09"
        assert "request_id" in returned

    on_io_loop(scenario())


def test_trailers_and_details_of_a_successful_call_pass_too():
    outcome = Outcome(message="fine", payload=raw(b"ok"), trailers=(("hint", b"1"),))

    async def scenario() -> None:
        async with serving(FakeRouter(partial(finish, outcome=outcome)), "shop") as gateway:
            call = gateway.channel.unary_unary(UNARY)(b"", timeout=10)
            assert await call == b"ok"
            assert ("hint", "1") in list(await call.trailing_metadata())
            assert await call.details() == ("fine" if CLIENT_SHOWS_DETAILS_OF_OK else "")

    on_io_loop(scenario())


@pytest.mark.parametrize(
    ("outcome", "code", "word"),
    [
        (Outcome(code=13, message="é\n" * 5000), grpc.StatusCode.INTERNAL, "é"),
        (Outcome(code=99, message="odd"), grpc.StatusCode.UNKNOWN, "odd"),
        (Outcome(payload=raw(b""), trailers=(("Bad Key", b""),)), grpc.StatusCode.INTERNAL, "Bad Key"),
        (Outcome(payload=Payload(PICKLE, b"never read")), grpc.StatusCode.INTERNAL, "response message"),
        (Outcome(), grpc.StatusCode.INTERNAL, "response message"),
    ],
)
def test_the_client_gets_a_status_for_every_outcome(outcome: Outcome, code: grpc.StatusCode, word: str):
    async def scenario() -> None:
        async with serving(FakeRouter(partial(finish, outcome=outcome)), "shop") as gateway:
            error = await failure_of(gateway.channel.unary_unary(UNARY)(b"", timeout=10))
        assert error.code() is code
        assert word in (error.details() or "")

    on_io_loop(scenario())


def test_a_failing_router_becomes_a_status_without_internals():
    def fail(call: OutgoingCall) -> None:
        raise RuntimeError("secret")

    async def scenario() -> None:
        async with serving(FakeRouter(fail), "shop") as gateway:
            error = await failure_of(gateway.channel.unary_unary(UNARY)(b"", timeout=10))
            await gateway.idle()
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in (error.details() or "")

    on_io_loop(scenario())


def test_a_stream_item_that_is_no_message_ends_the_call():
    def answer(call: OutgoingCall) -> None:
        call.sink.on_item(Payload(PICKLE, b"never read"))

    async def scenario() -> None:
        router = FakeRouter(answer)
        async with serving(router, "shop") as gateway:
            stream = gateway.channel.unary_stream(SERVER_STREAM)(b"", timeout=10)
            assert await stream.code() is grpc.StatusCode.INTERNAL
        assert router.cancelled

    on_io_loop(scenario())
