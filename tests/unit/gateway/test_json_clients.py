"""JSON over real sockets: httpx and curl call typed methods through a listener, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.dialects.json_http.json_dialect import JsonDialect
from gateway.gateway_listener import GatewayListener
from gateway.ops.grpc_health import Health
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import read_routes
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.gateway.dialects.json_ends import library_table, sent_request
from tests.unit.gateway.fakes import FakeRouter, allow, finish, item, on_io_loop
from tests.unit.protos import kinds_pb2


class Library(FakeRouter):
    """Answers as a library would."""

    def __init__(self) -> None:
        super().__init__(self.serve)
        self.link.on_half_close = self.sum_up

    def serve(self, call: OutgoingCall) -> None:
        name = call.request.method.rpartition("/")[2]
        if name in ("AddBooks", "Chat"):
            self.link.on_item = item if name == "Chat" else lambda call, data: None
            allow(call, 100)
        elif name == "ListBooks":
            for pages in range(1, 4):
                item(call, kinds_pb2.Book(pages=pages).SerializeToString())
            fails = sent_request(call, kinds_pb2.BookRequest).validate_only
            finish(call, Outcome(code=15, message="torn") if fails else Outcome())
        elif name == "GetBook":
            title = sent_request(call, kinds_pb2.BookRequest).name
            book = kinds_pb2.Book(title=title).SerializeToString()
            finish(call, Outcome(payload=raw(book)) if title != "none" else Outcome(code=5, message="no such book"))
        else:
            assert call.request.payload is not None
            finish(call, Outcome(payload=call.request.payload))

    def sum_up(self, call: OutgoingCall) -> None:
        if call.request.method.endswith("Chat"):
            finish(call, Outcome())
        else:
            pages = sum(kinds_pb2.Book.FromString(each).pages for each in self.link.items)
            finish(call, Outcome(payload=raw(kinds_pb2.Book(pages=pages).SerializeToString())))


@asynccontextmanager
async def library() -> AsyncIterator[str]:
    """The URL of a listener in front of a library."""
    router, health = Library(), Health()
    listener = GatewayListener(lambda *_: router, GrpcMetrics(), health.handler())
    dialect = JsonDialect(listener.methods)
    listener.add_dialects(dialect)
    routes = read_routes(library_table(books="/"))
    listener.set_routes(routes)
    dialect.set_routes(routes)
    port = await listener.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        health.close()
        await listener.stop(0)


LINES = {"content-type": "application/x-ndjson"}


def test_httpx_calls_every_kind_of_method() -> None:
    async def calls() -> None:
        async with library() as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
            unary = await client.post("/kinds.Library/GetBook", json={"name": "Emma"})
            assert (unary.status_code, unary.json()) == (200, {"title": "Emma"})
            assert (await client.get("/v1/books/Emma")).json() == {"title": "Emma"}
            missing = await client.get("/v1/books/none")
            assert (missing.status_code, missing.json()["message"]) == (404, "no such book")
            assert (await client.get("/v1/books")).json() == [{"pages": "1"}, {"pages": "2"}, {"pages": "3"}]
            torn = (await client.get("/v1/books?validateOnly=true")).json()
            assert torn[-1] == {"error": {"code": 15, "message": "torn", "details": []}}
            body = b"".join(b'{"pages": %d}\n' % pages for pages in range(10))
            assert (await client.post("/v1/books:add", content=body, headers=LINES)).json() == {"pages": "45"}
            accept = LINES | {"accept": "application/x-ndjson"}
            chat = await client.post("/kinds.Library/Chat", content=body, headers=accept)
            assert [int(json.loads(line)["pages"]) for line in chat.text.splitlines()[1:]] == list(range(1, 10))

    on_io_loop(calls())


def test_a_stream_of_both_ways_is_answered_with_events() -> None:
    async def chat() -> None:
        async with library() as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
            headers = LINES | {"accept": "text/event-stream"}
            body = b'{"pages":"1"}\n{"pages":"2"}\n'
            answer = await client.post("/kinds.Library/Chat", content=body, headers=headers)
            assert answer.text == 'data: {"pages":"1"}\n\ndata: {"pages":"2"}\n\nevent: end\ndata: {}\n\n'

    on_io_loop(chat())


def test_a_large_body_passes_both_ways() -> None:
    async def call() -> None:
        async with library() as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
            book = {"title": "x" * 3_000_000}
            assert (await client.post("/v1/books", json=book)).json() == book
            too_large = await client.post("/v1/books", json={"title": "x" * 17_000_000})
            assert (too_large.status_code, too_large.json()["code"]) == (413, 8)

    on_io_loop(call())


CURL = shutil.which("curl")


async def curl(*arguments: str) -> tuple[int, str]:
    """The status and the body."""
    process = await asyncio.create_subprocess_exec(
        str(CURL), "-sS", "--max-time", "20", "-w", "\n%{http_code}", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    body, _, status = output.decode().rpartition("\n")
    return int(status), body


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_calls_by_both_versions_of_http(version: str) -> None:
    async def calls() -> None:
        async with library() as url:
            json_type = ("-H", "content-type: application/json")
            assert await curl(version, f"{url}/v1/books/Emma") == (200, '{"title":"Emma"}')
            posted = await curl(version, *json_type, "-d", '{"name":"Emma"}', f"{url}/kinds.Library/GetBook")
            assert posted == (200, '{"title":"Emma"}')
            status, form = await curl(version, "-d", '{"name":"Emma"}', f"{url}/kinds.Library/GetBook")
            assert (status, "application/json" in form) == (415, True)
            status, body = await curl(version, "-X", "DELETE", f"{url}/v1/books/Emma")
            assert (status, json.loads(body)["code"]) == (405, 12)
            events = await curl(version, "-N", "-H", "accept: text/event-stream", f"{url}/v1/books")
            assert events[1].count("data: ") == 4

    on_io_loop(calls())
