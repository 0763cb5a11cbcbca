"""A whole gateway with both ports: how it becomes ready, what its options change, how it drains."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.node_gateway import NodeGateway
from mesh.exceptions import MeshException
from mesh.v1 import control_pb2
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.gateway.fakes import UNARY, FakeRouter, echo, finish, on_io_loop, route_table, until
from tests.unit.gateway.gateway_node import FakeProcess, Node, fetch, running


def test_ready_names_both_addresses():
    async def scenario() -> None:
        async with running() as node:
            assert node.ready.grpc_address == f"127.0.0.1:{node.spec.options.grpc_port}"
            assert node.ready.http_address == f"127.0.0.1:{node.spec.options.http_port}"
            assert (node.ready.gateway_id, node.ready.node_id) == ("g", "n")

    on_io_loop(scenario())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_that_call_the_gateways_own_services_are_as_documented() -> None:
    page = Path("docs/gateway.md").read_text()
    commands = re.findall(r"^curl .*", page, re.MULTILINE)

    async def scenario() -> list[str]:
        async with running() as node:
            node.process.publish(route_table("shop"))
            outputs = []
            for each in commands:
                words = shlex.split(each.replace("localhost:8000", node.ready.http_address), comments=True)
                ran = await asyncio.to_thread(
                    subprocess.run, [*words, "--silent", "--max-time", "10"], capture_output=True
                )
                outputs.append(ran.stdout.decode())
            return outputs

    health, applications = on_io_loop(scenario())
    assert health == '{"status":"SERVING"}'
    assert json.loads(applications) == {"applicationNames": ["shop"]}


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
    limits = NodeGateway(spec, FakeProcess(FakeRouter()), "127.0.0.1").listener.server.limits
    policy = limits.upkeep
    assert (policy.age_max_s, policy.drain_timeout_s, policy.idle_timeout_s) == (1, 2, 3)
    assert (policy.keepalive_after_s, policy.keepalive_timeout_s) == (4, 5)
    assert limits.http1.keep_alive_timeout_s == 6


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
            await asyncio.wait_for(draining, 30)
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
        node.process.publish(route_table("shop"))
        assert ready.grpc_address != ready.http_address
        for address in (ready.grpc_address, ready.http_address):
            assert await asyncio.to_thread(fetch, f"http://{address}/-/healthz", "GET") == (200, "success")
        await node.gateway.close()

    on_io_loop(scenario())


def test_a_gateway_whose_port_is_closed_is_unhealthy() -> None:
    async def scenario() -> None:
        async with running(FakeRouter(echo)) as node:
            await node.gateway.check_health()
            node.gateway.listener.server.sockets._listeners[1].close()
            with pytest.raises(MeshException, match="port of the gateway is closed"):
                await node.gateway.check_health()

    on_io_loop(scenario())
