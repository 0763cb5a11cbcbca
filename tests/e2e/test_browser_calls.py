"""What a page of another origin reads of limits and errors, and what its aborts do: Chromium and a gateway alone."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2

from gateway.requests.cors import CorsPolicy
from gateway.requests.exchange import Exchange, HttpHead
from gateway.requests.routes import read_routes
from gateway.typed_entry import TypedEntry
from mesh.link.outgoing_call import OutgoingCall
from mesh.rpc.status_codes import INVALID_ARGUMENT
from mesh.rpc.status_details import DETAILS_KEY
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.e2e import chromium
from tests.unit.gateway.dialects.json_ends import library_table
from tests.unit.gateway.fakes import FakeRouter, finish, item, until
from tests.unit.gateway.guarded import guarded
from tests.unit.protos import kinds_pb2

pytestmark = [
    pytest.mark.skipif(chromium.BINARY is None, reason="Chromium is not installed"),
    pytest.mark.timeout(120),
]

BOOK = kinds_pb2.Book(title="a").SerializeToString()
CALLS = """(async () => {
  const library = "API/kinds.Library/";
  const post = (method, more = {}, options = {}) => fetch(library + method, {
    method: "POST", body: "{}", headers: {"content-type": "application/json", ...more}, ...options
  });
  await post("CreateBook");
  const limited = await post("CreateBook");
  const failed = await post("GetBook");
  const connect = await post("GetBook", {"connect-protocol-version": "1"});
  const closed = await new Promise((resolve) => {
    const socket = new WebSocket(library.replace("http", "ws") + "GetBook");
    socket.onopen = () => socket.send("{}");
    socket.onclose = ({code, reason}) => resolve([code, reason]);
  });
  const leaving = new AbortController();
  const stream = await post("ListBooks", {accept: "application/x-ndjson"}, {signal: leaving.signal});
  const first = await stream.body.pipeThrough(new TextDecoderStream()).getReader().read();
  leaving.abort();
  return {
    limited: [limited.status, /^[0-9]+$/.test(limited.headers.get("retry-after")), (await limited.json()).code],
    failed: [failed.status, (await failed.json()).details[0].reason],
    connect: [connect.status, (await connect.json()).details[0].debug.reason],
    closed,
    first: JSON.parse(first.value),
  };
})()"""


class Page:
    """A dialect that serves an empty page at one path."""

    def claims(self, head: HttpHead) -> bool:
        return head.path == "/page"

    def open(self, exchange: Exchange) -> None:
        exchange.send_whole(200, [(b"content-type", b"text/html")], b"<title>page</title>")


def answer(call: OutgoingCall) -> None:
    """As a replica: one method fails with a detail, one streams without end, all others return a book."""
    method = call.request.method.rpartition("/")[2]
    if method == "ListBooks":
        item(call, BOOK)
    elif method == "GetBook":
        status = status_pb2.Status(code=INVALID_ARGUMENT, message="which one?")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="NO_TITLE"))
        trailers = ((DETAILS_KEY, status.SerializeToString()),)
        finish(call, Outcome(INVALID_ARGUMENT, "which one?", trailers=trailers))
    else:
        finish(call, Outcome(payload=raw(BOOK)))


def test_a_page_reads_limits_and_details_and_cancels_by_an_abort() -> None:
    async def scenario() -> Any:
        router = FakeRouter(answer)
        limits = {"/kinds.Library/CreateBook": {"rate_per_s": 0.001, "burst": 1}}
        async with guarded(router, None, limits_per_method=limits) as (gateway, _):
            entry, routes = TypedEntry(gateway.listener.methods), read_routes(library_table(books="/books"))
            gateway.listener.set_routes(routes)
            entry.set_routes(routes)
            gateway.listener.add_dialects(Page(), *entry.dialects)
            origin = f"http://127.0.0.1:{gateway.port}"
            gateway.listener.cors.policy = CorsPolicy(origins=[origin])
            gateway.listener.cors.calls_method = entry.calls_method
            api = f"http://127.0.0.1:{await gateway.listener.start('127.0.0.1', 0)}"

            def visit() -> object:
                # Its Unix sockets need a short path.
                with (
                    tempfile.TemporaryDirectory(prefix="mesh-", ignore_cleanup_errors=True) as profile,
                    chromium.browser(Path(profile)) as tab,
                ):
                    tab.open(f"{origin}/page")
                    seen = tab.value_of(CALLS.replace("API", api))
                    # While the page is still there: it is its abort that cancels.
                    asyncio.run_coroutine_threadsafe(
                        until(lambda: router.cancelled, "the call of the stream is cancelled"), loop
                    ).result(60)
                    return seen

            loop = asyncio.get_running_loop()
            seen = await asyncio.to_thread(visit)
            assert [call.request.method for call in router.cancelled] == ["/kinds.Library/ListBooks"]
            await gateway.idle()
            return seen

    assert io_thread().run(scenario(), 100) == {
        "limited": [429, True, 8],
        "failed": [400, "NO_TITLE"],
        "connect": [400, "NO_TITLE"],
        "closed": [4003, "which one?"],
        "first": {"title": "a"},
    }
