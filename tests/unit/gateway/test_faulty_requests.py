"""Requests that end early by their client's fault are answered in the form of their dialect, over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.http1.http1_connection import Http1Connection
from gateway.http1.http1_limits import Http1Limits
from gateway.requests.cors import CorsPolicy
from mesh.http2.upkeep import UpkeepPolicy
from tests.unit.fakes.http1_ends import answers
from tests.unit.fakes.shop_routes import PRICE, TOTAL, EveryDialect, every_dialect
from tests.unit.gateway.fakes import FakeRouter, allow, on_io_loop, until
from tests.unit.gateway.open_ports import fields, http2
from tests.unit.gateway.raw_requests import CONNECT, CONNECT_STREAM, GRPC_WEB, JSON, LINES, answer_to

POLICY = UpkeepPolicy(body_timeout_s=60.0, keepalive_after_s=1e9)
SLOW = "The request took too long to arrive."
BROKEN = "A chunk is malformed."
GRPC_WEB_TEXT = "application/grpc-web-text"

Read = Callable[[bytes], Any]


def plain(body: bytes) -> Any:
    return body.decode().strip()


def status(body: bytes) -> Any:
    """Of google.rpc."""
    read = json.loads(body)
    assert read["details"] == []
    return read["code"], read["message"]


def connect(body: bytes) -> Any:
    read = json.loads(body)
    return read["code"], read["message"]


def connect_end(body: bytes) -> Any:
    assert body[0] == 2
    return connect(json.dumps(json.loads(body[5:])["error"]).encode())


def trailers(body: bytes) -> Any:
    assert body[0] == 0x80
    read = dict(line.split(":", 1) for line in body[5:].decode().splitlines())
    return int(read["grpc-status"]), read["grpc-message"].replace("%20", " ")


FORMS: dict[str, tuple[str, str, Read, int | None]] = {
    "web": ("/upload", "text/plain", plain, None),
    "JSON": (PRICE, JSON, status, None),
    "lines of JSON": (TOTAL, LINES, status, None),
    "Connect": (PRICE, CONNECT, connect, None),
    "a stream of Connect": (TOTAL, CONNECT_STREAM, connect_end, 200),
    "gRPC-Web": (PRICE, GRPC_WEB, trailers, 200),
}
"""Path, content type, how the body is read, and the HTTP status where it is always the same."""
CODES = {status: {400: 3, 408: 4}, trailers: {400: 3, 408: 4}}
WORDS = {400: "invalid_argument", 408: "deadline_exceeded"}


def expected(read: Read, http_status: int, text: str) -> Any:
    if read is plain:
        return text
    return CODES[read][http_status] if read in CODES else WORDS[http_status], text


def ready_router() -> FakeRouter:
    return FakeRouter(lambda call: allow(call, 1_000))


def begun(path: str, content_type: str, *lines: str) -> bytes:
    """A request with the first part of its body, in chunks."""
    head = [f"POST {path} HTTP/1.1", "host: a", f"content-type: {content_type}", "transfer-encoding: chunked", *lines]
    return "\r\n".join([*head, "", ""]).encode() + b"1\r\n\0\r\n"


async def late_answer(gateway: EveryDialect, data: bytes) -> bytes:
    """What a client gets that sends this and then nothing for too long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(data)

    def begun_requests() -> list[Http1Connection]:
        each = [each for each in gateway.listener.server.client_connections() if isinstance(each, Http1Connection)]
        return [connection for connection in each if connection.clock.requests]

    await until(begun_requests, "the request has begun")
    (connection,) = begun_requests()
    for later_s in (0.0, 100.0):
        connection.look_after(POLICY, time.monotonic() + later_s)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.transport.abort()
    return answer


@pytest.mark.parametrize("name", FORMS)
def test_a_malformed_body_on_http_1_is_refused_in_the_form_of_its_dialect(name: str) -> None:
    path, content_type, read, always = FORMS[name]

    async def scenario() -> None:
        router = ready_router()
        async with every_dialect(router) as gateway:
            code, body = await answer_to(gateway, begun(path, content_type) + b"zz\r\n")
            assert code == (always or 400)
            text = read(body)
            assert text == expected(read, 400, text if read is plain else text[1])
            await until(lambda: not gateway.listener.connections, "the connection is closed")

    on_io_loop(scenario())


@pytest.mark.parametrize("name", FORMS)
def test_a_slow_body_on_http_1_is_refused_in_the_form_of_its_dialect(name: str) -> None:
    path, content_type, read, always = FORMS[name]

    async def scenario() -> None:
        async with every_dialect(ready_router(), http1=Http1Limits(body_timeout_s=60.0)) as gateway:
            ((code, sent, body),) = answers(await late_answer(gateway, begun(path, content_type)))
            assert (code, sent["connection"], read(body)) == (always or 408, "close", expected(read, 408, SLOW))
            await until(lambda: not gateway.listener.connections, "the connection is closed")

    on_io_loop(scenario())


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form[2] is not plain])
def test_a_slow_body_on_http_2_is_refused_in_the_form_of_its_dialect(name: str) -> None:
    path, content_type, read, always = FORMS[name]

    async def scenario() -> None:
        async with every_dialect(ready_router()) as gateway, http2(gateway.port) as client:
            stream = client.request(fields("POST", path, content_type=content_type), b"\0", ended=False)
            await client.round_trip()
            for later_s in (0.0, 100.0):
                for connection in gateway.listener.server.client_connections():
                    connection.look_after(POLICY, time.monotonic() + later_s)
            await client.until(lambda: stream in client.ended)
            assert client.headers[stream][":status"] == str(always or 408)
            assert read(bytes(client.bodies[stream])) == expected(read, 408, SLOW)

    on_io_loop(scenario())


def test_a_page_of_another_origin_may_read_the_answer() -> None:
    async def scenario() -> None:
        async with every_dialect(ready_router()) as gateway:
            gateway.listener.cors.policy = CorsPolicy(
                origins=["https://a.test"], methods=[], headers=[], has_credentials=False, max_age_s=1
            )
            data = begun(PRICE, GRPC_WEB, "origin: https://a.test")
            ((_, sent, body),) = answers(await late_answer(gateway, data))
            assert sent["access-control-allow-origin"] == "https://a.test"
            assert trailers(body) == (4, SLOW)

    on_io_loop(scenario())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (f"POST {PRICE}?{'a' * 9_000} HTTP/1.1\r\nhost: a\r\n", 414),
        (f"POST {PRICE} HTTP/1.1\r\nhost: a\r\ncontent-type: {CONNECT}\r\nx: {'a' * 20_000}\r\n", 431),
        (f"POST {PRICE} HTTP/1.1\r\nhost: a\r\ncontent-type: {CONNECT}\r\n" + "x: a\r\n" * 200, 431),
        (f"POST {PRICE} HTTP/1.1\r\ncontent-type: {CONNECT}\r\n", 400),
    ],
)
def test_a_head_that_cannot_be_read_is_refused_in_plain_text(data: str, code: int) -> None:
    async def scenario() -> None:
        async with every_dialect(ready_router()) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(f"{data}\r\n".encode())
            async with asyncio.timeout(10):
                ((found, sent, _),) = answers(await reader.read())
            writer.transport.abort()
            assert (found, sent["content-type"]) == (code, "text/plain; charset=utf-8")

    on_io_loop(scenario())
