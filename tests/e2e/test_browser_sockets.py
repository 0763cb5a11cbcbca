"""WebSockets over HTTP/2 (RFC 8441) from a stock client: Chromium opens them on the connection of its page."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import pytest

from gateway.requests.exchange import Exchange, HttpHead
from gateway.requests.routes import read_routes
from gateway.typed_entry import TypedEntry
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome
from tests.e2e import chromium
from tests.unit.fakes.certificates import Pki
from tests.unit.gateway.dialects.json_ends import library_table
from tests.unit.gateway.fakes import FakeRouter, allow, finish, item
from tests.unit.gateway.guarded import guarded

pytestmark = [
    pytest.mark.skipif(chromium.BINARY is None, reason="Chromium is not installed"),
    pytest.mark.timeout(120),
]

TALK = """new Promise((resolve, reject) => {
  const heard = [];
  const socket = new WebSocket(`wss://${location.host}/kinds.Library/Chat`);
  socket.onopen = () => { socket.send('{"title": "a"}'); socket.send('{"title": "b"}'); };
  socket.onmessage = (event) => { if (heard.push(JSON.parse(event.data).title) === 2) socket.send(""); };
  socket.onclose = (event) => resolve(JSON.stringify([heard, event.code]));
  setTimeout(() => reject(new Error("no answer")), 60000);
})"""
"""The empty message waits for the answers: directly behind others on an HTTP/2 connection, Chromium (156) may keep an
empty one until the page sends another."""


class Page:
    """A dialect that serves one page, and notes how all requests came."""

    def __init__(self) -> None:
        self.heads: list[HttpHead] = []

    def claims(self, head: HttpHead) -> bool:
        self.heads.append(head)
        return not head.is_websocket

    def open(self, exchange: Exchange) -> None:
        exchange.send_whole(200, [(b"content-type", b"text/html")], b"<title>page</title>")


def test_chromium_opens_websockets_on_its_http_2_connection(tmp_path: Path) -> None:
    """Of a method that streams both ways: its messages and its end come as over HTTP/1.1 (item 111)."""

    async def scenario() -> None:
        server = Pki(tmp_path).server()
        tls = {"ssl_certfile": str(server.certfile), "ssl_keyfile": str(server.keyfile)}
        router = FakeRouter(lambda call: allow(call, 10))
        router.link.on_item = item
        router.link.on_half_close = lambda call: finish(call, Outcome())
        async with guarded(router, None, **tls) as (gateway, _):
            page, entry, routes = (
                Page(),
                TypedEntry(gateway.listener.methods),
                read_routes(library_table(books="/books")),
            )
            gateway.listener.set_routes(routes)
            entry.set_routes(routes)
            gateway.listener.add_dialects(page, *entry.dialects)

            def visit() -> object:
                # Its Unix sockets need a short path.
                with (
                    tempfile.TemporaryDirectory(prefix="mesh-", ignore_cleanup_errors=True) as profile,
                    chromium.browser(Path(profile), "--ignore-certificate-errors") as tab,
                ):
                    tab.open(f"https://127.0.0.1:{gateway.port}/page")
                    return tab.value_of(TALK)

            assert json.loads(str(await asyncio.to_thread(visit))) == [["a", "b"], 1000]
            (socket,) = (head for head in page.heads if head.is_websocket)
            assert (socket.http_version, socket.scheme) == ("2", "wss")

    io_thread().run(scenario(), 100)
