"""What operators read from a whole gateway: health, routes, metrics, connections and its own services."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from mesh.v1 import control_pb2, reflection_pb2, serve_api_pb2
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.gateway.fakes import UNARY, FakeRouter, failure_of, finish, on_io_loop, route_table, until
from tests.unit.gateway.gateway_node import Node, running


def test_metrics_show_whether_the_controller_answers():
    async def scenario() -> None:
        async with running() as node:
            for is_there in (True, False):
                node.process.has_controller = is_there
                _, body = await node.get("/-/metrics")
                assert f"mesh_gateway_controller_connected {float(is_there)}" in body.splitlines()

    on_io_loop(scenario())


def test_routes_are_listed_by_prefix():
    """The answer is a JSON object (item 202)."""

    async def scenario() -> None:
        async with running() as node:
            node.process.publish(route_table("shop", "bank"))
            status, body = await node.get("/-/routes")
            assert (status, json.loads(body)) == (200, {"/shop": "shop", "/bank": "bank"})

    on_io_loop(scenario())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_paths_are_not_found_and_say_what_there_is(method: str):
    """Also those of applications that take no web requests (item 203)."""

    async def scenario() -> None:
        async with running() as node:
            assert (await node.get("/shop/x", method))[0] == 503
            node.process.publish(route_table("shop"))
            status, body = await node.get("/else/x", method)
            assert (status, body.partition(". ")) == (
                404,
                ("Path '/else/x' not found", ". ", "GET /-/routes lists the route prefixes of applications."),
            )
            status, body = await node.get("/shop/x", method)
            assert status == 404
            assert "Application 'shop' at '/shop' takes no web requests" in body

    on_io_loop(scenario())


def test_one_scrape_shows_the_gateways_counts():
    async def scenario() -> None:
        async with running() as node:
            node.process.publish(route_table("shop"))
            await node.channel.unary_unary(UNARY)(b"", timeout=10)
            status, body = await node.get("/-/metrics")
        assert status == 200
        samples = [s for family in text_string_to_metric_families(body) for s in family.samples]
        (total,) = [s.value for s in samples if s.name == "mesh_gateway_grpc_requests_total"]
        assert total == 1

    on_io_loop(scenario())


def test_health_of_an_application_follows_its_replicas():
    """The server itself serves (item 219)."""

    async def scenario() -> None:
        async with running() as node:
            node.router.can_serve = False
            node.process.publish(route_table("shop"))
            watch = health_pb2_grpc.HealthStub(node.channel).Watch(
                health_pb2.HealthCheckRequest(service="shop.Store"), timeout=10
            )
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await node.health() == health_pb2.HealthCheckResponse.SERVING
            node.router.can_serve = True
            node.process.announce_replicas()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()

    on_io_loop(scenario())


def test_the_service_of_ray_serve_names_applications_and_health():
    """It answers UNAVAILABLE with the reason before routes arrive and during a drain (item 219, D9)."""

    async def scenario() -> None:
        async with running() as node:
            service = "/ray.serve.RayServeAPIService"
            names = node.channel.unary_unary(
                f"{service}/ListApplications", None, serve_api_pb2.ListApplicationsResponse.FromString
            )
            health = node.channel.unary_unary(f"{service}/Healthz", None, serve_api_pb2.HealthzResponse.FromString)
            for call in (names, health):
                early = await failure_of(call(b"", timeout=10))
                assert (early.code(), early.details()) == (
                    grpc.StatusCode.UNAVAILABLE,
                    "Route table is not populated yet.",
                )
            node.process.publish(route_table("shop", "bank"))
            assert list((await names(b"", timeout=10)).application_names) == ["bank", "shop"]
            assert (await health(b"", timeout=10)).message == "success"
            node.gateway.listener.announce_drain()
            for call in (names, health):
                assert (await failure_of(call(b"", timeout=10))).details() == "This node is being drained."

    on_io_loop(scenario())


def test_the_service_of_ray_serve_is_the_gateway_s_whatever_applications_call_theirs():
    """An application cannot take it over (D9)."""

    async def scenario() -> None:
        async with running() as node:
            own = control_pb2.Route(
                app="own",
                ingress="Front",
                grpc_methods=[
                    control_pb2.GrpcMethod(full_name="/ray.serve.RayServeAPIService/Healthz"),
                    control_pb2.GrpcMethod(full_name="/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
                ],
            )
            node.process.publish(control_pb2.RouteTable(version=1, routes=[own]))
            health = node.channel.unary_unary(
                "/ray.serve.RayServeAPIService/Healthz", None, serve_api_pb2.HealthzResponse.FromString
            )
            assert (await health(b"", timeout=10)).message == "success"
            assert await has_reflection(node)
            assert not node.router.calls

    on_io_loop(scenario())


@pytest.mark.parametrize("is_on", [True, False])
def test_reflection_is_served_unless_it_is_turned_off(is_on: bool):
    """It is on by default (item 222)."""

    async def scenario() -> None:
        async with running(has_reflection=None if is_on else False) as node:
            node.process.publish(route_table("shop"))
            assert await has_reflection(node) == is_on

    on_io_loop(scenario())


async def has_reflection(node: Node) -> bool:
    # With one request, which leaves with the head: a streamed one that comes behind the refusal makes grpc.aio say
    # INTERNAL.
    call = node.channel.unary_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )(reflection_pb2.ServerReflectionRequest(list_services=""), timeout=10)
    try:
        answers = [answer async for answer in call]
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        return False
    assert "grpc.health.v1.Health" in [each.name for each in answers[0].list_services_response.service]
    return True


def test_operators_on_the_node_see_the_connections_of_clients():
    """Of every protocol, with what is in progress on them."""

    async def scenario() -> None:
        async with running(FakeRouter()) as node:
            node.process.publish(route_table("shop"))
            call = asyncio.ensure_future(node.channel.unary_unary(UNARY)(b"", timeout=10))
            await until(lambda: node.router.calls, "the call")
            port = int(node.ready.grpc_address.rpartition(":")[2])
            _, silent = await asyncio.open_connection("127.0.0.1", port)
            own_port = silent.get_extra_info("sockname")[1]
            status, body = await node.get("/-/connections")
            page = json.loads(body)
            assert (status, page["gateway"], page["connections"], page["streams"]) == (200, "g", 3, 2)
            by_protocol = {each["protocol"]: each for each in page["listed"]}
            assert set(by_protocol) == {"h2", "http/1.1", "unknown"}
            assert (by_protocol["h2"]["streams"], by_protocol["h2"]["streams_opened"]) == (1, 1)
            assert by_protocol["unknown"]["peer"] == f"ipv4:127.0.0.1:{own_port}"
            assert by_protocol["http/1.1"]["age_s"] <= by_protocol["h2"]["age_s"] < 10
            silent.close()
            finish(node.router.calls[0], Outcome(payload=raw(b"done")))
            assert await call == b"done"

    on_io_loop(scenario())


def test_connections_are_not_shown_to_clients_behind_a_proxy():
    async def scenario() -> None:
        async with running() as node:
            url = f"http://{node.ready.http_address}/-/connections"
            request = urllib.request.Request(url, headers={"X-Forwarded-For": "10.0.0.1"})
            with pytest.raises(urllib.error.HTTPError) as caught:
                await asyncio.to_thread(urllib.request.urlopen, request, timeout=10)
            with caught.value as refused:
                assert (refused.code, b"127.0.0.1" in refused.read()) == (403, True)

    on_io_loop(scenario())
