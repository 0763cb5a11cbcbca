"""Web requests and WebSockets through a whole gateway on real sockets; only its replicas are fakes."""

from __future__ import annotations

import asyncio
import http.client
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.web_entry import web_options
from mesh.link.outgoing_call import OutgoingCall
from mesh.options.gateway.gateway_options import parse
from mesh.v1 import control_pb2
from mesh.wire.outcome import Outcome
from mesh.wire.web_messages import decode_websocket_event, encode_accept, encode_message
from tests.unit.gateway.fakes import FakeRouter, allow, finish, item, on_io_loop, until
from tests.unit.gateway.gateway_node import Node, running
from tests.unit.gateway.web_ends import begin_response, respond, sent_request, web_table

MIB = 1024 * 1024


async def ask(node: Node, method: str, path: str, **options: Any) -> tuple[int, dict[str, str], bytes]:
    def send() -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(node.ready.http_address, timeout=10)
        try:
            connection.request(method, path, **options)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    return await asyncio.to_thread(send)


def test_a_request_reaches_its_application_and_the_answer_its_client() -> None:
    """Over HTTP/1.1, on the port of HTTP and on that of gRPC (items 203, 204)."""

    async def scenario() -> None:
        router = FakeRouter(lambda call: respond(call, b"hello", headers=(b"content-type", b"text/html")))
        async with running(router) as node:
            node.process.publish(web_table(shop="/shop"))
            for address in (node.ready.http_address, node.ready.grpc_address):
                node.ready.http_address = address
                status, headers, body = await ask(node, "GET", "/shop/x?a=1", headers={"X-Request-Id": "r1"})
                assert (status, body) == (200, b"hello")
                assert (headers["content-type"], headers["content-length"]) == ("text/html", "5")
                assert headers["x-request-id"] == "r1"
            assert (await ask(node, "HEAD", "/shop/x"))[2] == b""
            sent = sent_request(router.calls[0])
            assert (sent.raw_path, sent.query_string, sent.client_host) == (b"/shop/x", b"a=1", "127.0.0.1")

    on_io_loop(scenario())


def test_a_large_upload_flows_to_the_replica() -> None:
    async def scenario() -> None:
        router = FakeRouter(lambda call: allow(call, 10_000))
        router.link.on_half_close = lambda call: respond(call, b"done")
        async with running(router) as node:
            node.process.publish(web_table(shop="/"))
            assert (await ask(node, "POST", "/", body=bytes(4 * MIB)))[2] == b"done"
        assert sum(map(len, router.link.items[1:])) == 4 * MIB

    on_io_loop(scenario())


def test_an_answer_that_breaks_is_seen_as_broken() -> None:
    """What has left does not look complete (item 112)."""

    def answer(call: OutgoingCall) -> None:
        begin_response(call, b"part")
        finish(call, Outcome(code=13, message="broken"))

    async def scenario() -> None:
        async with running(FakeRouter(answer)) as node:
            node.process.publish(web_table(shop="/"))
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                await ask(node, "GET", "/")

    on_io_loop(scenario())


def test_a_websocket_echoes_and_closes_with_1012_when_the_gateway_drains() -> None:
    """A real client, with and without compression (items 111, 209)."""

    def echo(call: OutgoingCall, data: bytes) -> None:
        if len(router.link.items) > 1 and decode_websocket_event(data).WhichOneof("kind") == "text":
            item(call, encode_message(decode_websocket_event(data).text))
        elif call.sink.connection.is_accepted is False:  # type: ignore[attr-defined]
            item(call, encode_accept("chat", []))

    router = FakeRouter(lambda call: allow(call, 1_000))
    router.link.on_item = echo

    async def scenario() -> None:
        async with running(router) as node:
            node.process.publish(web_table(shop="/"))
            url = f"ws://{node.ready.http_address}/chat"
            async with connect(url, subprotocols=["chat"], open_timeout=10) as socket:  # type: ignore[list-item]
                assert socket.subprotocol == "chat"
                for message in ("a", "x" * 5_000, ""):
                    await socket.send(message)
                    assert await asyncio.wait_for(socket.recv(), 30) == message
                draining = asyncio.create_task(node.gateway.drain())
                with pytest.raises(ConnectionClosed) as closed:
                    await asyncio.wait_for(socket.recv(), 30)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
                await until(lambda: router.link.half_closed, "the end of the requests")
                finish(router.calls[0], Outcome())
                await asyncio.wait_for(draining, 30)

    on_io_loop(scenario())


def test_the_options_of_web_requests_come_from_those_of_the_gateway() -> None:
    """Root path, timeout and access log (items 54, 210)."""
    asked = parse(None, {"root_path": "/api", "request_timeout_s": 2.5}, None, {"enable_access_log": True}).to_message()
    options = web_options(asked)
    assert (options.root_path, options.timeout_s, options.has_access_log) == ("/api", 2.5, True)
    usual = web_options(control_pb2.GatewayOptions())
    assert (usual.root_path, usual.timeout_s, usual.has_access_log) == ("", float("inf"), False)


def test_a_client_that_comes_while_the_gateway_is_about_to_drain_is_served_once() -> None:
    """Its connection would be closed under its next request (item 209)."""

    async def scenario() -> None:
        async with running(FakeRouter(lambda call: respond(call, b"hello"))) as node:
            node.process.publish(web_table(shop="/"))
            assert "connection" not in (await ask(node, "GET", "/"))[1]
            node.gateway.listener.announce_drain()
            status, headers, body = await ask(node, "GET", "/")
            assert (status, headers["connection"], body) == (200, "close", b"hello")

    on_io_loop(scenario())
