"""grpc.health.v1, called with the stub of grpcio-health-checking; List also without, as older versions lack it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import Descriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.ops import grpc_health
from gateway.ops.grpc_health import LISTED_MAX, Health, named_states
from gateway.requests.routes import read_routes
from mesh.v1 import control_pb2
from mesh.v1 import health_pb2 as own_pb2
from tests.unit.gateway.fakes import FakeRouter, Gateway, failure_of, on_io_loop, routes_of, serving, until

Reply = health_pb2.HealthCheckResponse
SHOP = {"shop": True, "shop.Store": True}


def stub_of(gateway: Gateway) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(gateway.channel)


async def check(gateway: Gateway, name: str) -> int:
    reply = await stub_of(gateway).Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
    return reply.status


async def statuses(gateway: Gateway) -> dict[str, int]:
    """What List answers."""
    call = gateway.channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=own_pb2.HealthListRequest.SerializeToString,
        response_deserializer=own_pb2.HealthListResponse.FromString,
    )
    reply = await call(own_pb2.HealthListRequest(), timeout=10)
    return {name: each.status for name, each in reply.statuses.items()}


def shape(message: Descriptor) -> list[object]:
    """All that the bytes of a message depend on."""
    fields = [
        (each.number, each.name, each.type, each.has_presence, each.message_type and shape(each.message_type))
        for each in message.fields
    ]
    return [message.name, fields, *({value.name: value.number for value in enum.values} for enum in message.enum_types)]


def test_messages_are_those_of_the_installed_package():
    for name, message in health_pb2.DESCRIPTOR.message_types_by_name.items():
        assert shape(own_pb2.DESCRIPTOR.message_types_by_name[name]) == shape(message)


def test_every_method_of_the_installed_package_is_served():
    """Version 1.85 added List: a gateway that lacks a method must fail here and not at its start."""

    handler = Health().handler()
    for method in health_pb2.DESCRIPTOR.services_by_name["Health"].methods:
        assert handler.service(SimpleNamespace(method=f"/grpc.health.v1.Health/{method.name}")) is not None


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
            gateway.health.set_serving(SHOP)
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


def test_a_list_has_the_status_of_every_name():
    async def scenario() -> None:
        async with serving(FakeRouter(), "shop") as gateway:
            gateway.health.set_serving(SHOP)
            assert await statuses(gateway) == dict.fromkeys(["", "shop", "shop.Store"], Reply.SERVING)
            gateway.health.set_not_serving()
            assert await statuses(gateway) == dict.fromkeys(["", "shop", "shop.Store"], Reply.NOT_SERVING)

    on_io_loop(scenario())


def test_an_application_without_replicas_is_not_serving_while_the_server_is():
    """A client's balancer leaves out what cannot answer, and nothing else."""

    async def scenario() -> None:
        async with serving(FakeRouter(), "shop") as gateway:
            gateway.health.set_serving({"shop": False, "bank": True})
            assert await statuses(gateway) == {"": Reply.SERVING, "bank": Reply.SERVING, "shop": Reply.NOT_SERVING}

    on_io_loop(scenario())


def test_a_service_is_what_the_application_is_that_its_calls_reach() -> None:
    """A client that asks about a service names no application when it calls it either."""
    assert named_states(routes_of("a", "b"), lambda application: application.name == "a") == {
        "a": True,
        "b": False,
        "shop.Store": True,
    }
    assert named_states(routes_of("a", "b"), lambda application: application.name == "b") == {
        "a": False,
        "b": True,
        "shop.Store": False,
    }


def test_a_service_that_is_divided_serves_as_long_as_one_of_its_applications_does() -> None:
    table = control_pb2.RouteTable()
    for app, method in (("a", "/shop.Store/Get"), ("b", "/shop.Store/List")):
        table.routes.add(app=app, ingress="Front").grpc_methods.add(full_name=method, serving_order=1)
    assert named_states(read_routes(table), lambda application: application.name == "b")["shop.Store"]
    assert not named_states(read_routes(table), lambda application: False)["shop.Store"]


def test_an_application_that_clients_do_not_call_has_a_name_only():
    table = control_pb2.RouteTable(routes=[control_pb2.Route(app="inner", ingress="Front")])
    assert named_states(read_routes(table), lambda application: False) == {"inner": True}


def test_a_list_that_is_too_long_is_refused():
    async def scenario() -> None:
        async with serving(FakeRouter()) as gateway:
            gateway.health.set_serving({f"app-{number}": True for number in range(LISTED_MAX - 1)})
            assert len(await statuses(gateway)) == LISTED_MAX
            gateway.health.set_serving({f"app-{number}": True for number in range(LISTED_MAX)})
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await statuses(gateway)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"{LISTED_MAX + 1} names" in (caught.value.details() or "")

    on_io_loop(scenario())


def test_watches_are_limited_and_one_that_ends_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """They last, and strangers may open them."""
    monkeypatch.setattr(grpc_health, "WATCHERS_MAX", 2)

    async def scenario() -> None:
        async with serving(FakeRouter()) as gateway:
            request = health_pb2.HealthCheckRequest()
            watches = [stub_of(gateway).Watch(request, timeout=10) for _ in range(2)]
            for watch in watches:
                await watch.read()
            error = await failure_of(stub_of(gateway).Watch(request, timeout=10).read())
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await check(gateway, "")
            watches[0].cancel()
            await until(lambda: gateway.health.watching == 1, "the end of the first")
            await stub_of(gateway).Watch(request, timeout=10).read()

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
            gateway.health.set_serving({"shop": True})
            assert (await stayer.read()).status == Reply.SERVING
            gateway.health.set_serving({"shop": True, "other": True})  # nothing new for this watcher
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
