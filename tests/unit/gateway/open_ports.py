"""One port of a gateway on a real socket, dialects that answer on it, and a client of HTTP/2."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events

from gateway.requests.exchange import Exchange, HttpHead
from tests.unit.fakes.http1_ends import Keeper
from tests.unit.gateway.fakes import FakeRouter, Gateway, echo, serving


class Pages:
    """A dialect of a test: it claims everything and keeps the exchanges."""

    def __init__(self, opener: Callable[[Exchange], Any] | None = None) -> None:
        self.opener = opener or self._keep
        self.keepers: list[Keeper] = []

    def claims(self, head: HttpHead) -> bool:
        return True

    def open(self, exchange: Exchange) -> Any:
        return self.opener(exchange)

    def _keep(self, exchange: Exchange) -> Keeper:
        self.keepers.append(Keeper(exchange))
        return self.keepers[-1]


def hello(exchange: Exchange) -> None:
    head = exchange.head
    text = f"{head.method} {head.path} {head.query.decode()} {head.scheme} {head.by_name.get(b'host', b'').decode()}"
    exchange.send_whole(200, [(b"content-type", b"text/plain")], text.encode())


@asynccontextmanager
async def open_gateway(pages: Pages, router: FakeRouter | None = None) -> AsyncIterator[Gateway]:
    async with serving(router or FakeRouter(echo), "shop") as gateway:
        gateway.listener.add_dialects(pages)
        yield gateway


async def talk(port: int, data: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """What the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(data)
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


class Http2Client:
    """h2 on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | Kept) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.reader, self.writer = reader, writer
        self.interim: dict[int, str] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.ended: set[int] = set()
        self.acked = 0
        self.updates = 0
        self.resets: dict[int, int] = {}
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def request(self, fields: dict[str, str], body: bytes | None = None, *, ended: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, list(fields.items()), end_stream=ended and body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=ended)
        self.flush()
        return stream

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                data = await self.reader.read(2**16)
                assert data, "the server has closed the connection"
                for event in self.h2.receive_data(data):
                    self._on_event(event)
                self.flush()

    async def answer(self, fields: dict[str, str], body: bytes | None = None) -> tuple[dict[str, str], bytes]:
        stream = self.request(fields, body)
        await self.until(lambda: stream in self.ended)
        return self.headers[stream], self.bodies.get(stream, b"")

    async def round_trip(self) -> None:
        """Until the server has read all that was sent."""
        acked = self.acked
        self.h2.ping(b"received")
        self.flush()
        await self.until(lambda: self.acked > acked)

    def _on_event(self, event: Any) -> None:
        match event:
            case h2.events.ResponseReceived():
                self.headers[event.stream_id] = dict(event.headers)
            case h2.events.InformationalResponseReceived():
                self.interim[event.stream_id] = dict(event.headers)[":status"]
            case h2.events.TrailersReceived():
                self.trailers[event.stream_id] = dict(event.headers)
            case h2.events.DataReceived():
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.PingAckReceived():
                self.acked += 1
            case h2.events.WindowUpdated():
                self.updates += 1
            case h2.events.StreamEnded():
                self.ended.add(event.stream_id)
            case h2.events.StreamReset():
                self.resets[event.stream_id] = event.error_code


@asynccontextmanager
async def http2(port: int) -> AsyncIterator[Http2Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Http2Client(reader, writer)
    finally:
        writer.close()


def fields(method: str = "GET", path: str = "/a?b", **more: str) -> dict[str, str]:
    pseudo = {":method": method, ":scheme": "http", ":authority": "shop", ":path": path}
    return {**pseudo, **{name.replace("_", "-"): value for name, value in more.items()}}


class Kept:
    """Keeps what is written, for later."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data
