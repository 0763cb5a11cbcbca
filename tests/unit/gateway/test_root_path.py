"""A gateway that a proxy has mounted at a path: every dialect is served with that path and without it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from websockets.asyncio.client import connect

from gateway.web_rpc.envelope_reader import envelope
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.gateway.dialects.json_ends import library_table
from tests.unit.gateway.fakes import FakeRouter, finish, on_io_loop
from tests.unit.gateway.gateway_node import Node, running
from tests.unit.protos import kinds_pb2

ROOT = "/api"
GET_BOOK = "/kinds.Library/GetBook"
BOOK = kinds_pb2.Book(title="Emma").SerializeToString()


def answer_book(call: OutgoingCall) -> None:
    finish(call, Outcome(payload=raw(BOOK)))


@asynccontextmanager
async def mounted() -> AsyncIterator[Node]:
    async with running(FakeRouter(answer_book), http_root_path=ROOT) as node:
        node.process.publish(library_table(books="/books"))
        yield node


@pytest.mark.parametrize("root", ["", ROOT])
@pytest.mark.parametrize("is_http2", [False, True])
@pytest.mark.parametrize("port", ["grpc", "http"])
def test_typed_methods_and_pages_are_served_below_the_root_path(root: str, is_http2: bool, port: str) -> None:
    """Over both versions of HTTP, at both ports (item 54)."""

    async def scenario() -> None:
        async with mounted() as node:
            base = f"http://{getattr(node.ready, f'{port}_address')}{root}"
            async with httpx.AsyncClient(http1=not is_http2, http2=is_http2, timeout=10) as client:
                posts = {
                    "application/json": b"{}",
                    "application/proto": b"",
                    "application/grpc-web+proto": envelope(b""),
                }
                for kind, body in posts.items():
                    answer = await client.post(f"{base}{GET_BOOK}", content=body, headers={"content-type": kind})
                    assert (answer.status_code, b"Emma" in answer.content) == (200, True), kind
                for path in ("/v1/books/7", "/books/v1/books/7", f"/books{GET_BOOK}?connect=v1&encoding=json"):
                    answer = await client.get(f"{base}{path}")
                    assert (path, answer.status_code == 404) == (path, False)
                for path in ("/-/healthz", "/-/routes", "/-/docs", "/-/openapi.json"):
                    assert (await client.get(f"{base}{path}")).status_code == 200, path
                health = await client.post(f"{base}/grpc.health.v1.Health/Check", json={})
                assert health.json() == {"status": "SERVING"}

    on_io_loop(scenario())


@pytest.mark.parametrize("root", ["", ROOT])
def test_grpc_and_websockets_are_served_below_the_root_path(root: str) -> None:
    async def scenario() -> None:
        async with mounted() as node:
            assert await node.channel.unary_unary(f"{root}{GET_BOOK}")(b"", timeout=10) == BOOK
            async with connect(f"ws://{node.ready.http_address}{root}{GET_BOOK}") as socket:
                await socket.send("{}")
                assert "Emma" in str(await socket.recv())

    on_io_loop(scenario())


def test_a_path_that_only_begins_alike_is_not_below_the_root_path() -> None:
    async def scenario() -> None:
        async with mounted() as node:
            for path in (f"{ROOT}x{GET_BOOK}", f"{ROOT}{ROOT}{GET_BOOK}"):
                answer = await node.ask(node.ready.http_address, "POST", path, json={})
                assert answer.status_code == 404, path

    on_io_loop(scenario())
