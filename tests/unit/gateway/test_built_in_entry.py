"""The gateway's own services in every dialect, as curl, a browser and clients of Connect ask them."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from websockets.asyncio.client import connect

from gateway.web_rpc.envelope_reader import envelope
from tests.unit.gateway.fakes import FakeRouter, on_io_loop, route_table, until
from tests.unit.gateway.gateway_node import Node, running
from tests.unit.gateway.open_ports import talk

CHECK, LIST, WATCH = (f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch"))
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
APPLICATIONS = "/ray.serve.RayServeAPIService/ListApplications"
SERVING = health_pb2.HealthCheckResponse(status=1).SerializeToString()
REQUEST = health_pb2.HealthCheckRequest(service="a").SerializeToString()


async def post(node: Node, path: str, body: Any, **headers: str) -> Any:
    """A POST to the HTTP port. `body`: bytes, or what is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in {"content_type": "application/json", **headers}.items()}
    return await node.ask(node.ready.http_address, "POST", path, content=content, headers=named)


def test_json_asks_health_and_applications() -> None:
    async def scenario() -> None:
        async with running(FakeRouter()) as node:
            node.process.publish(route_table("a", "b"))
            answer = await post(node, CHECK, {"service": "a"})
            assert (answer.status_code, answer.json()) == (200, {"status": "SERVING"})
            assert (await post(node, CHECK, b"")).json() == {"status": "SERVING"}
            absent = await post(node, CHECK, {"service": "absent"})
            assert (absent.status_code, absent.json()["code"]) == (404, 5)
            assert (await post(node, LIST, {})).json()["statuses"]["b"] == {"status": "SERVING"}
            assert (await post(node, APPLICATIONS, {})).json() == {"applicationNames": ["a", "b"]}
            named = await post(node, CHECK, {}, application="absent")
            assert named.status_code == 200, "no application has these services"
            wrong = await post(node, CHECK, {"colour": 1})
            assert (wrong.status_code, wrong.json()["code"]) == (400, 3)
            assert (await node.ask(node.ready.http_address, "GET", CHECK)).status_code == 405
            assert node.router.calls == []

    on_io_loop(scenario())


def test_connect_and_grpc_web_ask_health() -> None:
    async def scenario() -> None:
        async with running(FakeRouter()) as node:
            node.process.publish(route_table("a"))
            answer = await post(node, CHECK, REQUEST, content_type="application/proto")
            assert (answer.status_code, answer.content) == (200, SERVING)
            answer = await post(node, CHECK, {}, connect_protocol_version="1")
            assert (answer.headers["content-type"], answer.json()) == ("application/json", {"status": "SERVING"})
            answer = await post(node, CHECK, {"service": "absent"}, connect_protocol_version="1")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            answer = await post(node, CHECK, envelope(REQUEST), content_type="application/grpc-web+proto")
            assert answer.content.startswith(envelope(SERVING))
            assert b"grpc-status:0" in answer.content
            malformed = await post(node, CHECK, b"\xff", content_type="application/proto")
            assert (malformed.status_code, malformed.json()["code"]) == (500, "internal")

    on_io_loop(scenario())


def test_a_malformed_body_is_refused_in_the_form_of_its_dialect() -> None:
    async def scenario() -> None:
        async with running(FakeRouter()) as node:
            head = (
                f"POST {CHECK} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"
            )
            port = int(node.ready.http_address.rpartition(":")[2])
            answer = await talk(port, f"{head}\r\nzz\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == 3

    on_io_loop(scenario())


def test_reflection_by_lines_of_json_and_by_a_websocket() -> None:
    asked = [{"listServices": ""}, {"fileContainingSymbol": "grpc.health.v1.Health"}, {"fileByFilename": "absent"}]

    def check(services: Any, file: Any, absent: Any) -> None:
        names = [each["name"] for each in services["listServicesResponse"]["service"]]
        assert "grpc.health.v1.Health" in names
        first = b64decode(file["fileDescriptorResponse"]["fileDescriptorProto"][0])
        assert FileDescriptorProto.FromString(first).package == "grpc.health.v1"
        assert absent["errorResponse"]["errorCode"] == 5

    async def scenario() -> None:
        async with running(FakeRouter()) as node:
            node.process.publish(route_table("a"))
            lines = b"\n".join(json.dumps(each).encode() for each in asked * 10)
            ndjson = "application/x-ndjson"
            answer = await post(node, REFLECT, lines, content_type=ndjson, accept=ndjson)
            answers = [json.loads(line) for line in answer.text.splitlines()]
            assert len(answers) == 30
            check(*answers[:3])
            check(*answers[27:])
            async with connect(f"ws://{node.ready.http_address}{REFLECT}", proxy=None) as client:
                for each in asked:
                    await client.send(json.dumps(each))
                check(*[json.loads(await client.recv()) for _ in asked])
                await client.send("")
                await client.wait_closed()
                assert client.close_code == 1000

    on_io_loop(scenario())


async def watch(node: Node, *lines: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Server-sent events of a Watch."""
    host, _, port = node.ready.http_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = [f"POST {WATCH} HTTP/1.1", "host: a", "content-length: 2", "accept: text/event-stream", *lines, "", ""]
    writer.write("\r\n".join(head).encode() + b"{}")
    return reader, writer


def test_a_watch_by_server_sent_events_ends_with_the_gateway() -> None:
    """A drain does not wait for those that watch."""

    async def scenario() -> None:
        async with running(FakeRouter()) as node:
            node.process.publish(route_table("a"))
            reader, writer = await watch(node)
            async with asyncio.timeout(30):
                await reader.readuntil(b'"SERVING"')
                draining = asyncio.create_task(node.gateway.drain())
                rest = await reader.read()
                await draining
            writer.close()
            assert b'"NOT_SERVING"' in rest
            assert b"This gateway ends" in rest

    on_io_loop(scenario())


def test_a_watch_ends_with_its_client_and_at_its_deadline() -> None:
    async def scenario() -> None:
        async with running(FakeRouter()) as node:
            node.process.publish(route_table("a"))
            reader, writer = await watch(node)
            async with asyncio.timeout(30):
                await reader.readuntil(b'"SERVING"')
            assert node.gateway.health.watching == 1
            writer.transport.abort()
            await until(lambda: node.gateway.health.watching == 0, "the client has left")
            reader, writer = await watch(node, "grpc-timeout: 50m", "connection: close")
            async with asyncio.timeout(30):
                assert b"Deadline Exceeded" in await reader.read()
            writer.close()

    on_io_loop(scenario())


@pytest.mark.parametrize("content_type", ["application/json", "application/proto"])
def test_a_request_is_as_small_as_by_grpc(content_type: str) -> None:
    async def scenario() -> None:
        async with running(FakeRouter()) as node:
            node.process.publish(route_table("a"))
            answer = await post(node, CHECK, b" " * 20_000, content_type=content_type)
            assert answer.status_code in (413, 429)

    on_io_loop(scenario())


def test_reflection_that_is_off_is_unimplemented() -> None:
    async def scenario() -> None:
        async with running(FakeRouter(), has_reflection=False) as node:
            node.process.publish(route_table("a"))
            answer = await post(node, REFLECT, b"[]")
            assert (answer.status_code, answer.json()["code"]) == (501, 12)

    on_io_loop(scenario())
