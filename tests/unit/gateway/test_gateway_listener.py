"""A gRPC port as a whole: refusals, routes, limits, drain and counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.ops.grpc_metrics import OTHER
from mesh.http2.upkeep import UpkeepPolicy
from mesh.settings import settings
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.rpc_ends import raw_call
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
    routes_of,
    serving,
    until,
)

REQUESTS = "mesh_gateway_grpc_requests_total"


# ---- Refusals --------------------------------------------------------------------------------------------------------


async def refused(gateway: Gateway, method: str = UNARY, **metadata: str) -> grpc.aio.AioRpcError:
    call = gateway.channel.unary_unary(method)(b"", metadata=tuple(metadata.items()), timeout=10)
    error = await failure_of(call)
    assert "request_id" in dict(list(error.trailing_metadata()))
    return error


def test_unknown_applications_and_methods_are_refused_and_counted_as_other():
    """Names that clients invent create no metric series (items 144, 212, C16)."""

    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "a", "b") as gateway:
            error = await refused(gateway, application="c")
            assert (error.code(), "There are: a, b." in error.details()) == (grpc.StatusCode.NOT_FOUND, True)
            error = await refused(gateway, application="A")
            assert error.code() is grpc.StatusCode.NOT_FOUND
            error = await refused(gateway, "/shop.Store/Nope", application="a")
            assert (error.code(), UNARY in error.details()) == (grpc.StatusCode.UNIMPLEMENTED, True)
            await gateway.idle()
            assert gateway.sample(REQUESTS, OTHER, OTHER, "NOT_FOUND") == 2
            assert gateway.sample(REQUESTS, "a", OTHER, "UNIMPLEMENTED") == 1
        assert not router.calls

    on_io_loop(scenario())


def test_a_call_with_wrong_metadata_is_counted_and_gets_a_request_id_like_any_refused_call():
    async def scenario() -> None:
        async with serving(FakeRouter(echo), "a") as gateway:
            for field in ((b"x-bin", b"!"), (b"grpc-timeout", b"1_0S")):
                answer = await raw_call(f"localhost:{gateway.port}", field, path=UNARY.encode())
                assert answer.heads[-1][b"grpc-status"] == b"3"
                assert field[0] in answer.heads[-1][b"grpc-message"]
                assert answer.heads[-1][b"request_id"]
            await gateway.idle()
            assert gateway.sample(REQUESTS, OTHER, OTHER, "INVALID_ARGUMENT") == 2

    on_io_loop(scenario())


def test_clients_cannot_create_series():
    async def scenario() -> None:
        async with serving(FakeRouter(echo), "a") as gateway:
            for number in range(50):
                await refused(gateway, f"/x{number}.Y/Z", application=f"app{number}")
            assert sum(len(samples) for _, samples in gateway.metrics.collect()) < 10

    on_io_loop(scenario())


def test_before_routes_arrive_calls_are_unavailable():
    """The same call succeeds when the routes are there (L20)."""

    async def scenario() -> None:
        async with serving(FakeRouter(echo)) as gateway:
            error = await refused(gateway)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "routes" in error.details()
            gateway.listener.set_routes(routes_of("shop"))
            assert await gateway.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"

    on_io_loop(scenario())


def test_new_routes_replace_old_ones():
    async def scenario() -> None:
        async with serving(FakeRouter(echo), "old") as gateway:
            await gateway.channel.unary_unary(UNARY)(b"", timeout=10)
            gateway.listener.set_routes(routes_of("new"))
            assert (await refused(gateway, application="old")).code() is grpc.StatusCode.NOT_FOUND
            await gateway.channel.unary_unary(UNARY)(b"", metadata=(("application", "new"),), timeout=10)

    on_io_loop(scenario())


def test_requests_to_services_of_the_gateway_are_small():
    """Strangers may send them, and what they send is kept until it is complete."""

    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop") as gateway:
            stub = health_pb2_grpc.HealthStub(gateway.channel)
            for name, code in (("x" * 20_000, "RESOURCE_EXHAUSTED"), ("x" * 10_000, "NOT_FOUND")):
                error = await failure_of(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10))
                assert error.code().name == code

    on_io_loop(scenario())


def test_a_drain_answers_calls_on_their_way_and_finishes_those_in_progress():
    """Clients learn by GOAWAY that they have to go elsewhere, and lose no call."""

    async def scenario() -> None:
        router = FakeRouter()
        async with serving(router, "shop") as gateway:
            running = asyncio.ensure_future(gateway.channel.unary_unary(UNARY)(b"", timeout=10))
            await until(lambda: router.calls, "the call")
            gateway.listener.announce_drain()
            on_its_way = asyncio.ensure_future(gateway.channel.unary_unary(UNARY)(b"", timeout=10))
            await until(lambda: len(router.calls) == 2, "the second call")
            gateway.listener.drain()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", gateway.port)
            impatient, idle = (asyncio.ensure_future(gateway.metrics.in_flight.idle()) for _ in range(2))
            await asyncio.sleep(0)
            impatient.cancel()
            assert not idle.done()
            for call in router.calls:
                finish(call, Outcome(payload=raw(b"done")))
            assert await running == b"done"
            assert await on_its_way == b"done"
            await asyncio.wait_for(idle, 30)

    on_io_loop(scenario())


@pytest.mark.usefixtures("eager_upkeep")
def test_clients_lose_no_call_when_their_connections_are_old():
    """Calls that are open then end where they began (item 55)."""

    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop", policy=UpkeepPolicy(age_max_s=0.05)) as gateway:
            chat = gateway.channel.stream_stream(BIDI)()
            router.answer, peers = lambda call: None, set()
            await chat.write(b"")
            await until(lambda: router.calls, "the long call")
            router.answer = echo

            async def keep_calling() -> None:
                while len(peers) < 10:
                    assert await gateway.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
                    peers.update(call.request.peer for call in router.calls)
                    del router.calls[1:]

            await asyncio.gather(*[keep_calling() for _ in range(8)])
            item(router.calls[0], b"still here")
            assert await chat.read() == b"still here"
            chat.cancel()
        assert router.cancelled == router.calls[:1]

    on_io_loop(scenario())


@pytest.mark.usefixtures("eager_upkeep")
def test_calls_on_an_old_connection_end_after_the_grace():
    async def scenario() -> None:
        router = FakeRouter()
        policy = UpkeepPolicy(age_max_s=0.05, drain_timeout_s=0.05)
        async with serving(router, "shop", policy=policy) as gateway:
            error = await failure_of(gateway.channel.unary_unary(UNARY)(b"", timeout=10))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert router.cancelled == router.calls

    on_io_loop(scenario())


@pytest.mark.usefixtures("eager_upkeep")
def test_idle_connections_are_closed_and_the_next_call_opens_another():
    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop", policy=UpkeepPolicy(idle_timeout_s=0.05)) as gateway:
            for _ in range(3):
                assert await gateway.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
                await until(lambda: not gateway.listener.connections, "the idle connection is closed")

    on_io_loop(scenario())


def test_a_message_above_the_limit_is_resource_exhausted():
    async def scenario() -> None:
        router = FakeRouter(echo)
        async with serving(router, "shop", message_max_bytes=1000) as gateway:
            error = await failure_of(gateway.channel.unary_unary(UNARY)(b"x" * 1001, timeout=10))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "1000" in (error.details() or "")
            await gateway.idle()
        assert not router.calls

    on_io_loop(scenario())


def test_messages_that_links_cannot_carry_are_refused_at_the_port(monkeypatch: pytest.MonkeyPatch):
    small = replace(settings(), payload=replace(settings().payload, message_max_bytes=1000))
    monkeypatch.setattr("gateway.gateway_listener.settings", lambda: small)

    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop") as gateway:
            error = await failure_of(gateway.channel.unary_unary(UNARY)(b"x" * 1001, timeout=10))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    on_io_loop(scenario())


def test_a_streamed_message_above_the_limit_cancels_the_upload():
    router = FakeRouter(partial(allow, items=1000))

    async def scenario() -> None:
        async with serving(router, "shop", message_max_bytes=1000) as gateway:
            stream = gateway.channel.stream_unary(CLIENT_STREAM)(timeout=10)
            await stream.write(b"small")
            await until(lambda: router.link.items, "the small message")
            await stream.write(b"x" * 1001)
            assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await until(lambda: router.cancelled, "the cancel")
            assert router.link.half_closed == 0

    on_io_loop(scenario())


def test_a_taken_port_is_an_error_that_names_it():
    async def scenario() -> None:
        async with serving(FakeRouter(), "a") as first:
            second = Gateway(FakeRouter())
            with pytest.raises(OSError, match=str(first.port)):
                await second.listener.start("127.0.0.1", first.port)

    on_io_loop(scenario())


# ---- Metrics ---------------------------------------------------------------------------------------------------------


def test_calls_are_counted_under_both_naming_schemes():
    async def scenario() -> None:
        async with serving(FakeRouter(echo), "shop") as gateway:
            for _ in range(3):
                await gateway.channel.unary_unary(UNARY)(b"", timeout=10)
            await gateway.idle()
            assert gateway.sample(REQUESTS, "shop", UNARY, "OK") == 3
            assert gateway.sample("mesh_gateway_grpc_request_latency_seconds", "shop", UNARY) == 3
            labels = ("unary", "shop.Store", "Get")
            assert gateway.sample("grpc_server_started_total", *labels) == 3
            assert gateway.sample("grpc_server_handled_total", *labels, "OK") == 3
            assert gateway.sample("grpc_server_msg_received_total", *labels) == 3
            assert gateway.sample("grpc_server_msg_sent_total", *labels) == 3
            assert gateway.sample("grpc_server_handling_seconds", *labels) == 3

    on_io_loop(scenario())


def test_codes_are_spelled_as_dashboards_expect_them():
    async def scenario() -> None:
        outcome = Outcome(code=5)
        async with serving(FakeRouter(partial(finish, outcome=outcome)), "shop") as gateway:
            await failure_of(gateway.channel.unary_unary(UNARY)(b"", timeout=10))
            await gateway.idle()
            assert gateway.sample(REQUESTS, "shop", UNARY, "NOT_FOUND") == 1
            assert gateway.sample("grpc_server_handled_total", "unary", "shop.Store", "Get", "NotFound") == 1

    on_io_loop(scenario())
