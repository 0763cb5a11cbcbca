"""A whole gateway with both ports, its process a fake: how it becomes ready, what operators see, how it drains."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from gateway.node_gateway import NodeGateway
from mesh.exceptions import MeshException
from mesh.routing.snapshot import DeploymentKey
from mesh.v1 import control_pb2, reflection_pb2, serve_api_pb2
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.gateway.fakes import UNARY, FakeRouter, echo, failure_of, finish, on_io_loop, route_table, until


class FakeProcess:
    def __init__(self, router: FakeRouter) -> None:
        self.peers: tuple[control_pb2.Peer, ...] = ()
        self.has_controller = True
        self.publish: Callable[[control_pb2.RouteTable], None] = lambda table: None
        self.announce_replicas: Callable[[], None] = lambda: None
        self._router = router

    def use(self, key: DeploymentKey, user: object) -> FakeRouter:
        return self._router

    def on_routes(self, callback: Callable[[control_pb2.RouteTable], None]) -> None:
        self.publish = callback

    def on_replicas(self, callback: Callable[[], None]) -> None:
        self.announce_replicas = callback


class Node:
    """One running gateway and its clients."""

    def __init__(self, router: FakeRouter, **options: Any) -> None:
        self.router = router
        self.process = FakeProcess(router)
        asked = control_pb2.GatewayOptions(
            grpc_host="127.0.0.1",
            grpc_port=free_port(),
            http_host="127.0.0.1",
            http_port=free_port(),
            **options,
        )
        self.spec = control_pb2.GatewaySpec(gateway_id="g", node_id="n", options=asked)
        self.gateway = NodeGateway(self.spec, self.process, "127.0.0.1")
        self.ready: control_pb2.GatewayReady
        self.channel: grpc.aio.Channel

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        return await asyncio.to_thread(fetch, f"http://{self.ready.http_address}{path}", method)

    async def ask(self, address: str, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request, with what httpx takes."""
        async with httpx.AsyncClient(verify=False, timeout=10) as client:
            return await client.request(method, f"http://{address}{path}", **options)

    async def health(self) -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        return int(reply.status)


def fetch(url: str, method: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def running(router: FakeRouter | None = None, **options: Any) -> AsyncIterator[Node]:
    """`options` are those of GatewayOptions in control.proto."""
    node = Node(router or FakeRouter(echo), **options)
    node.ready = await node.gateway.start()
    async with grpc.aio.insecure_channel(node.ready.grpc_address) as channel:
        node.channel = channel
        try:
            yield node
        finally:
            await node.gateway.close()


def test_ready_names_both_addresses():
    async def scenario() -> None:
        async with running() as node:
            assert node.ready.grpc_address == f"127.0.0.1:{node.spec.options.grpc_port}"
            assert node.ready.http_address == f"127.0.0.1:{node.spec.options.http_port}"
            assert (node.ready.gateway_id, node.ready.node_id) == ("g", "n")

    on_io_loop(scenario())


def test_healthy_only_with_routes_and_replicas():
    """HTTP and gRPC health agree, and HTTP says why (item 201, L20)."""

    async def scenario() -> None:
        async with running() as node:
            assert await node.get("/-/healthz") == (503, "Route table is not populated yet.")
            assert await node.health() == health_pb2.HealthCheckResponse.NOT_SERVING
            node.router.can_serve = False
            node.process.publish(route_table("shop"))
            assert await node.get("/-/healthz") == (503, "No replicas are available yet.")
            node.router.can_serve = True
            assert await node.get("/-/healthz") == (200, "success")
            assert await node.health() == health_pb2.HealthCheckResponse.SERVING
            assert await node.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"

    on_io_loop(scenario())


def test_limits_of_connections_come_from_the_options():
    options = control_pb2.GatewayOptions(
        max_connection_age_s=1,
        max_connection_age_grace_s=2,
        max_connection_idle_s=3,
        keepalive_s=4,
        keepalive_timeout_s=5,
        http_keep_alive_timeout_s=6,
    )
    spec = control_pb2.GatewaySpec(gateway_id="g", node_id="n", options=options)
    limits = NodeGateway(spec, FakeProcess(FakeRouter()), "127.0.0.1")._listener._server._limits
    policy = limits.upkeep
    assert (policy.age_max_s, policy.drain_timeout_s, policy.idle_timeout_s) == (1, 2, 3)
    assert (policy.keepalive_after_s, policy.keepalive_timeout_s) == (4, 5)
    assert limits.http1.keep_alive_timeout_s == 6


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
            node.gateway._listener.announce_drain()
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


def test_both_ports_serve_grpc_web_and_connect():
    async def scenario() -> None:
        async with running() as node:
            node.process.publish(route_table("shop"))
            for address in (node.ready.grpc_address, node.ready.http_address):
                connect = {"content-type": "application/proto"}
                answer = await node.ask(address, "POST", UNARY, headers=connect, content=b"hello")
                assert (answer.status_code, answer.content) == (200, b"hello")
                web = {"content-type": "application/grpc-web"}
                answer = await node.ask(address, "POST", UNARY, headers=web, content=b"\0\0\0\0\5hello")
                assert answer.content.startswith(b"\0\0\0\0\5hello\x80")

    on_io_loop(scenario())


def test_limits_hold_for_calls_of_every_dialect():
    async def scenario() -> None:
        limits = [control_pb2.CallLimit(key="*", rate_per_s=0.001, burst=3)]
        async with running(method_limits=limits) as node:
            node.process.publish(route_table("shop"))
            address = node.ready.http_address
            connect, web = {"content-type": "application/proto"}, {"content-type": "application/grpc-web"}
            first = await node.ask(address, "POST", UNARY, headers=connect, content=b"a")
            second = await node.ask(address, "POST", UNARY, headers=web, content=b"\0\0\0\0\0")
            assert (first.status_code, second.content[:5]) == (200, b"\0\0\0\0\0")
            assert await node.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            above = await node.ask(address, "POST", UNARY, headers=connect, content=b"a")
            assert (above.status_code, above.json()["code"]) == (429, "resource_exhausted")
            assert int(above.headers["retry-after"]) > 0
            above = await node.ask(address, "POST", UNARY, headers=web, content=b"\0\0\0\0\0")
            assert b"grpc-status:8" in above.content
            assert len(node.router.calls) == 3

    on_io_loop(scenario())


def test_pages_of_the_origins_in_the_options_may_call():
    async def scenario() -> None:
        cors = control_pb2.CorsOptions(origins=["https://app.example.com"], methods=["POST"], headers=["*"])
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        for options, status in (({"cors": cors}, 204), ({}, 403)):
            async with running(**options) as node:
                node.process.publish(route_table("shop"))
                headers = {"origin": "https://app.example.com"}
                answer = await node.ask(node.ready.http_address, "OPTIONS", UNARY, headers=headers | asked)
                assert answer.status_code == status
                headers["content-type"] = "application/proto"
                answer = await node.ask(node.ready.http_address, "POST", UNARY, headers=headers, content=b"x")
                assert answer.content == b"x"
                assert ("access-control-allow-origin" in answer.headers) is bool(options)

    on_io_loop(scenario())


def test_a_drain_changes_health_finishes_calls_and_closes_both_ports():
    """Health changes first, and until clients have left their calls are served (item 209)."""

    async def scenario() -> None:
        async with running(FakeRouter()) as node:
            node.process.publish(route_table("shop"))
            watch = health_pb2_grpc.HealthStub(node.channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
            await watch.read()
            call = asyncio.ensure_future(node.channel.unary_unary(UNARY)(b"", timeout=10))
            await until(lambda: node.router.calls, "the call")
            draining = asyncio.ensure_future(node.gateway.drain())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await node.get("/-/healthz") == (503, "This node is being drained.")
            late = asyncio.ensure_future(node.channel.unary_unary(UNARY)(b"", timeout=10))
            await until(lambda: len(node.router.calls) == 2, "a call during the drain")
            node.process.publish(route_table("shop"))  # has no effect during a drain
            assert await node.health() == health_pb2.HealthCheckResponse.NOT_SERVING
            assert not draining.done()
            for each in node.router.calls:
                finish(each, Outcome(payload=raw(b"done")))
            assert await call == b"done"
            assert await late == b"done"
            await asyncio.wait_for(draining, 10)
            for address in (node.ready.grpc_address, node.ready.http_address):
                host, _, port = address.partition(":")
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection(host, int(port))

    on_io_loop(scenario())


def test_a_taken_http_port_is_an_error_that_names_it_and_opens_nothing():
    async def scenario() -> None:
        async with running() as first:
            second = Node(FakeRouter())
            second.spec.options.http_port = first.spec.options.http_port
            with pytest.raises(OSError, match=str(first.spec.options.http_port)):
                await second.gateway.start()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", second.spec.options.grpc_port)

    on_io_loop(scenario())


def test_a_missing_port_turns_a_listener_off():
    """Each port can be turned off separately (C15); the other one serves both gRPC and HTTP."""

    async def scenario() -> None:
        for gone in ("grpc", "http"):
            node = Node(FakeRouter(echo))
            node.spec.options.ClearField(f"{gone}_port")
            ready = await node.gateway.start()
            node.process.publish(route_table("shop"))
            assert [bool(ready.grpc_address), bool(ready.http_address)] == [gone == "http", gone == "grpc"]
            address = ready.grpc_address or ready.http_address
            assert await asyncio.to_thread(fetch, f"http://{address}/-/healthz", "GET") == (200, "success")
            async with grpc.aio.insecure_channel(address) as channel:
                assert await channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            await node.gateway.close()

    on_io_loop(scenario())


def test_port_0_is_any_free_port():
    """The addresses name the ports that were opened (C15)."""

    async def scenario() -> None:
        node = Node(FakeRouter())
        node.spec.options.grpc_port = node.spec.options.http_port = 0
        ready = await node.gateway.start()
        for address in (ready.grpc_address, ready.http_address):
            host, _, port = address.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
        await node.gateway.close()

    on_io_loop(scenario())


def test_a_gateway_whose_port_is_closed_is_unhealthy() -> None:
    async def scenario() -> None:
        async with running(FakeRouter(echo)) as node:
            await node.gateway.check_health()
            node.gateway._listener._server._sockets._listeners[1].close()
            with pytest.raises(MeshException, match="port of the gateway is closed"):
                await node.gateway.check_health()

    on_io_loop(scenario())
