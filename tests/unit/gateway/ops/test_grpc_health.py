"""grpc.health.v1, called with the generated stub."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.unit.gateway.fakes import FakeRouter, Gateway, on_io_loop, serving

Reply = health_pb2.HealthCheckResponse


def stub_of(gateway: Gateway) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(gateway.channel)


async def check(gateway: Gateway, name: str) -> int:
    reply = await stub_of(gateway).Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
    return reply.status


def test_not_serving_before_routes_arrive():
    """A gateway without routes is not healthy (L20)."""

    async def scenario() -> None:
        async with serving(FakeRouter()) as gateway:
            assert await check(gateway, "") == Reply.NOT_SERVING

    on_io_loop(scenario())


@pytest.mark.parametrize("name", ["", "shop", "shop.Store"])
def test_the_server_every_application_and_every_service_have_a_status(name: str):
    async def scenario() -> None:
        async with serving(FakeRouter(), "shop") as gateway:
            gateway.health.set_serving(["shop", "shop.Store"])
            assert await check(gateway, name) == Reply.SERVING
            gateway.health.set_not_serving()
            assert await check(gateway, name) == Reply.NOT_SERVING

    on_io_loop(scenario())


def test_an_unknown_name_is_not_found():
    async def scenario() -> None:
        async with serving(FakeRouter(), "shop") as gateway:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await check(gateway, "nope")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert "nope" in (caught.value.details() or "")

    on_io_loop(scenario())


def test_watchers_get_every_change_even_after_another_one_has_left():
    async def scenario() -> None:
        async with serving(FakeRouter()) as gateway:
            request = health_pb2.HealthCheckRequest(service="shop")
            leaver, stayer = (stub_of(gateway).Watch(request, timeout=10) for _ in range(2))
            for watcher in (leaver, stayer):
                assert (await watcher.read()).status == Reply.SERVICE_UNKNOWN
            leaver.cancel()
            await asyncio.gather(leaver.code())
            gateway.health.set_serving(["shop"])
            assert (await stayer.read()).status == Reply.SERVING
            gateway.health.set_serving(["shop", "other"])  # nothing new for this watcher
            gateway.health.set_not_serving()
            assert (await stayer.read()).status == Reply.NOT_SERVING

    on_io_loop(scenario())


def test_watches_end_when_the_server_stops():
    async def scenario() -> None:
        async with serving(FakeRouter(), "shop") as gateway:
            watcher = stub_of(gateway).Watch(health_pb2.HealthCheckRequest(), timeout=10)
            assert (await watcher.read()).status == Reply.SERVING
            gateway.health.close()
            assert await watcher.read() is grpc.aio.EOF

    on_io_loop(scenario())
