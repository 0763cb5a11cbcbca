"""All ports of a gateway over real sockets: both versions of HTTP and gRPC on each of them."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from gateway.requests.exchange import BrokenBy, Exchange, HttpHead
from mesh.http2.upkeep import UpkeepPolicy
from mesh.settings import settings
from tests.unit.fakes.http1_ends import Keeper, answers, request
from tests.unit.gateway.fakes import BIDI, UNARY, FakeRouter, Gateway, echo, on_io_loop, serving, until


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
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


class Http2Client:
    """h2 on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | Kept) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.reader, self.writer = reader, writer
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
        async with asyncio.timeout(10):
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


# ---- Every protocol on one port --------------------------------------------------------------------------------------


def test_one_port_speaks_grpc_http_1_and_http2() -> None:
    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway:
            assert await gateway.channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            closing = request("GET /a?b HTTP/1.1", "connection: close")
            ((_, _, body),) = answers(await talk(gateway.port, closing))
            assert body == b"GET /a b http a"
            async with http2(gateway.port) as client:
                headers, body = await client.answer(fields())
            assert (headers[":status"], body) == ("200", b"GET /a b http shop")
            assert headers["content-length"] == str(len(body))
            assert headers["date"].endswith("GMT")

    on_io_loop(scenario())


class Kept:
    """Keeps what is written, for later."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def test_a_preface_in_pieces_is_http2() -> None:
    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            kept = Kept()
            client = Http2Client(reader, kept)
            stream = client.request(fields())
            client.writer = writer
            for byte in kept.data:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            await client.until(lambda: stream in client.ended)
            writer.close()

    on_io_loop(scenario())


def test_what_speaks_neither_gets_400_back() -> None:
    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway:
            for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/9.0\r\n\r\n", b"\0" * 50, b"hello\n"):
                ((status, _, _),) = answers(await talk(gateway.port, nonsense))
                assert status in (400, 505)

    on_io_loop(scenario())


def test_without_a_dialect_the_answer_gets_404_back() -> None:
    """An unknown path is 404 (item 203)."""

    async def scenario() -> None:
        async with serving(FakeRouter(), "shop") as gateway:
            ((status, _, body),) = answers(await talk(gateway.port, request("GET /x?y HTTP/1.1", "connection: close")))
            assert (status, json.loads(body)) == (404, {"error": "Path '/x' not found."})

    on_io_loop(scenario())


# ---- Exchanges on HTTP/2 ---------------------------------------------------------------------------------------------


def test_bodies_and_trailers_on_http2() -> None:
    async def scenario() -> None:
        pages = Pages()
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            stream = client.request(fields("POST", content_type="text/plain"), b"hello", ended=False)
            await until(lambda: pages.keepers and pages.keepers[0].body == b"hello", "the body")
            (keeper,) = pages.keepers
            assert (keeper.exchange.head.has_body, keeper.ends) == (True, 0)
            client.h2.end_stream(stream)
            client.flush()
            await until(lambda: keeper.ends, "its end")
            exchange = keeper.exchange
            exchange.send_head(201, [(b"x-a", b"b")])
            exchange.send_body(b"one")
            exchange.send_body(memoryview(b"two"))
            exchange.end([(b"x-sum", b"6")])
            await client.until(lambda: stream in client.ended)
            assert (client.headers[stream][":status"], client.bodies[stream]) == ("201", b"onetwo")
            assert client.trailers[stream] == {"x-sum": "6"}
            assert gateway.listener.exchanges == 0

    on_io_loop(scenario())


async def upload(client: Http2Client, stream: int, size: int) -> int:
    """Send as much of a body as the server gives room for, until a reset; how much that was."""
    sent = 0
    while sent < size and stream not in client.resets:
        room = min(client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size, size - sent)
        if room:
            client.h2.send_data(stream, bytes(room), end_stream=sent + room == size)
            sent += room
            client.flush()
        else:
            updates = client.updates
            await client.until(lambda before=updates: client.updates > before or stream in client.resets)
    return sent


def test_an_early_answer_on_http_2_is_not_followed_by_a_reset() -> None:
    """Some versions of curl drop a whole answer that a reset follows: the client may go on with its request."""

    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway, http2(gateway.port) as client:
            stream = client.request(fields("POST", content_length="5000000"), b"", ended=False)
            await client.until(lambda: stream in client.ended)
            assert client.headers[stream][":status"] == "200"
            assert not gateway.listener.exchanges
            assert await upload(client, stream, 5_000_000) == 5_000_000
            await client.round_trip()
            assert not client.resets

    on_io_loop(scenario())


def test_what_is_sent_behind_an_early_answer_on_http_2_is_limited() -> None:
    """In bytes, in time and in streams; the reset then says that nothing was wrong."""

    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway, http2(gateway.port) as client:
            endless = client.request(fields("POST"), b"", ended=False)
            await client.until(lambda: endless in client.ended)
            assert 8_000_000 < await upload(client, endless, 20_000_000) < 9_000_000
            assert client.resets.pop(endless) == 0
            slow = client.request(fields("POST"), b"", ended=False)
            await client.until(lambda: slow in client.ended)
            await pause_for(gateway, client, 3.0)
            await client.until(lambda: slow in client.resets)
            assert client.resets.pop(slow) == 0
            many = [client.request(fields("POST"), b"", ended=False) for _ in range(101)]
            await client.until(lambda: client.resets)
            assert client.resets == {many[0]: 0}
            client.h2.reset_stream(many[1])
            client.flush()
            await client.answer(fields())

    on_io_loop(scenario())


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("size", [60_000, 5_000_000])
def test_an_early_answer_on_http_2_is_read_by_curl(size: int, tmp_path: Path) -> None:
    """To an upload that was refused while it was sent."""
    (tmp_path / "body").write_bytes(bytes(size))

    def refuse(exchange: Exchange) -> None:
        exchange.send_whole(413, [], b"too large")

    async def scenario() -> None:
        async with open_gateway(Pages(refuse)) as gateway:
            url, body = f"http://127.0.0.1:{gateway.port}/", f"@{tmp_path / 'body'}"
            options = ("-sS", "--http2-prior-knowledge", "--max-time", "20", "-H", "expect:", "--data-binary", body)
            curl = await asyncio.create_subprocess_exec("curl", *options, url, stdout=asyncio.subprocess.PIPE)
            output, _ = await curl.communicate()
            assert (curl.returncode, output) == (0, b"too large")

    on_io_loop(scenario())


async def pause_for(gateway: Gateway, client: Http2Client, seconds: float) -> None:
    """What the upkeep of the connection does when this time has passed without a byte."""
    await client.round_trip()
    policy, now_s = UpkeepPolicy(body_timeout_s=60.0, keepalive_after_s=1e9), time.monotonic()
    for connection in gateway.listener._server.client_connections():
        connection.look_after(policy, now_s)
        connection.look_after(policy, now_s + seconds)


def test_a_body_on_http_2_that_pauses_too_long_is_refused() -> None:
    """As on HTTP/1.1; a shorter pause, and one that we have caused ourselves, do no harm."""

    async def scenario() -> None:
        keepers: list[Keeper] = []

        def keep(exchange: Exchange) -> Keeper:
            keepers.append(Keeper(exchange, slow=True))
            return keepers[-1]

        async with open_gateway(Pages(keep)) as gateway, http2(gateway.port) as client:
            stream = client.request(fields("POST"), b"a", ended=False)
            await pause_for(gateway, client, 59.0)
            assert not client.ended
            await pause_for(gateway, client, 61.0)
            await client.until(lambda: stream in client.ended)
            assert client.headers[stream][":status"] == "408"
            assert keepers[0].broken == [BrokenBy.TIMEOUT]
            # It has used up its window, and waits for us.
            waiting = client.request(fields("POST"), b"", ended=False)
            while client.h2.local_flow_control_window(waiting) > 1_000:
                client.h2.send_data(waiting, bytes(1_000))
                client.flush()
            await pause_for(gateway, client, 61.0)
            assert waiting not in client.ended

    on_io_loop(scenario())


def test_a_body_that_pauses_behind_the_head_of_its_answer_is_reset() -> None:
    """So that the client does not take a part for the whole."""

    def begin(exchange: Exchange) -> Keeper:
        exchange.send_head(200, [])
        return Keeper(exchange)

    async def scenario() -> None:
        async with open_gateway(Pages(begin)) as gateway, http2(gateway.port) as client:
            stream = client.request(fields("POST"), b"a", ended=False)
            await pause_for(gateway, client, 61.0)
            await client.until(lambda: stream in client.resets)
            assert stream not in client.ended

    on_io_loop(scenario())


def test_conversations_may_pause() -> None:
    """A call whose request is streamed, and a WebSocket: a peer that is gone shows by PING."""

    def converse(exchange: Exchange) -> Keeper:
        exchange.let_pause()
        return Keeper(exchange)

    async def scenario() -> None:
        async with open_gateway(Pages(converse)) as gateway, http2(gateway.port) as client:
            client.request(fields("POST"), b"a", ended=False)
            await pause_for(gateway, client, 61.0)
            assert not client.ended
            assert not client.resets

    on_io_loop(scenario())


@pytest.mark.parametrize(("method", "is_ended"), [(UNARY, True), (BIDI, False), ("/grpc.health.v1.Health/Check", True)])
def test_a_grpc_message_that_stops_half_way_ends_its_call(method: str, is_ended: bool) -> None:
    """One that comes alone; those of a streamed request may take their time."""

    async def scenario() -> None:
        grpc_fields = fields("POST", method, te="trailers", content_type="application/grpc")
        async with open_gateway(Pages(), FakeRouter(lambda call: None)) as gateway, http2(gateway.port) as client:
            stream = client.request(grpc_fields, b"\0\0\0\0\x09half", ended=False)
            await pause_for(gateway, client, 61.0)
            if not is_ended:
                assert not client.ended
                return
            await client.until(lambda: stream in client.ended)
            assert {**client.headers[stream], **client.trailers.get(stream, {})}["grpc-status"] == "4"

    on_io_loop(scenario())


def test_a_large_answer_on_http2() -> None:
    async def scenario() -> None:
        body = bytes(range(256)) * 8_000
        async with open_gateway(Pages(lambda exchange: exchange.send_whole(200, [], body) and None)) as gateway:
            async with http2(gateway.port) as client:
                assert (await client.answer(fields()))[1] == body
                headers, nothing = await client.answer(fields("HEAD"))
                assert (headers["content-length"], nothing) == (str(len(body)), b"")
            assert gateway.listener.buffered_bytes == 0

    on_io_loop(scenario())


def test_a_stream_that_its_client_resets_breaks_the_exchange() -> None:
    async def scenario() -> None:
        pages = Pages()
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            stream = client.request(fields())
            await until(lambda: pages.keepers, "the request")
            client.h2.reset_stream(stream)
            client.flush()
            await until(lambda: pages.keepers[0].broken, "the end")
            assert gateway.listener.exchanges == 0

    on_io_loop(scenario())


def test_an_aborted_answer_on_http_2_is_reset() -> None:
    async def scenario() -> None:
        pages = Pages()
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            stream = client.request(fields())
            await until(lambda: pages.keepers, "the request")
            pages.keepers[0].exchange.send_head(200, [])
            pages.keepers[0].exchange.abort()
            await client.until(lambda: stream in client.resets)
            assert stream not in client.ended

    on_io_loop(scenario())


def test_a_websocket_on_http2() -> None:
    """RFC 8441: the server allows an extended CONNECT, which dialects see as GET."""

    async def scenario() -> None:
        pages = Pages()
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            await client.until(lambda: client.h2.remote_settings.enable_connect_protocol)
            opening = {**fields("CONNECT", "/chat"), ":protocol": "websocket", "sec-websocket-version": "13"}
            stream = client.request(opening, b"frame", ended=False)
            await until(lambda: pages.keepers and pages.keepers[0].body == b"frame", "the frame")
            exchange = pages.keepers[0].exchange
            assert (exchange.head.method, exchange.head.scheme, exchange.head.path) == ("GET", "ws", "/chat")
            exchange.open_tunnel([(b"sec-websocket-accept", b"x"), (b"sec-websocket-protocol", b"chat")])
            exchange.send_body(b"back")
            await client.until(lambda: client.bodies.get(stream) == b"back")
            assert client.headers[stream][":status"] == "200"
            assert "sec-websocket-accept" not in client.headers[stream]
            client.h2.end_stream(stream)
            client.flush()
            await until(lambda: pages.keepers[0].ends, "the client's end")
            exchange.end()
            await client.until(lambda: stream in client.ended)

    on_io_loop(scenario())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("CONNECT", "", "501"), ("get", "/", "501"), ("GET", "/a b", "400"), ("GET", "a", "400"), ("OPTIONS", "*", "204")],
)
def test_requests_on_http_2_that_no_dialect_can_take(method: str, path: str, status: str) -> None:
    async def scenario() -> None:
        pages = Pages()
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            client.h2.config.validate_outbound_headers = client.h2.config.normalize_outbound_headers = False
            wrong = {":method": "CONNECT", ":authority": "shop"} if method == "CONNECT" else fields(method, path)
            headers, _ = await client.answer(wrong)
            assert headers[":status"] == status
            assert not pages.keepers

    on_io_loop(scenario())


def test_too_many_fields_on_http_2_get_the_status_of_their_kind() -> None:
    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway, http2(gateway.port) as client:
            many = {f"x-{number}": "y" * 900 for number in range(20)}
            headers, _ = await client.answer({**fields(), **many})
            assert headers[":status"] == "431"
            headers, _ = await client.answer({**fields("POST", content_type="application/grpc"), **many})
            assert (headers[":status"], headers["grpc-status"]) == ("200", "8")

    on_io_loop(scenario())


def test_a_dialect_that_fails_gets_gets_500_back(caplog: pytest.LogCaptureFixture) -> None:
    def fail(exchange: Exchange) -> None:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        async with open_gateway(Pages(fail)) as gateway, http2(gateway.port) as client:
            assert (await client.answer(fields()))[0][":status"] == "500"
            assert gateway.listener.exchanges == 0

    with caplog.at_level("CRITICAL", "mesh.gateway"):
        on_io_loop(scenario())


# ---- Limits and ends -------------------------------------------------------------------------------------------------


def test_connections_above_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(settings(), gateway=replace(settings().gateway, connections_max=1))
    monkeypatch.setattr("gateway.gateway_listener.settings", lambda: small)

    async def scenario() -> None:
        async with open_gateway(Pages(hello)) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            await until(lambda: gateway.listener.connections == 1, "the connection")
            ((status, _, text),) = answers(await talk(gateway.port, request()))
            assert (status, b"1 connections, its limit" in text) == (503, True)
            async with http2(gateway.port) as client:
                with pytest.raises(AssertionError, match="closed the connection"):
                    await client.until(lambda: False)
            writer.write(request("GET / HTTP/1.1", "connection: close"))
            assert b"200 OK" in await reader.read()
            writer.close()

    on_io_loop(scenario())


def test_a_drain_ends_idle_connections_and_waits_for_exchanges() -> None:
    async def scenario() -> None:
        pages = Pages()
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            idle, _ = await asyncio.open_connection("127.0.0.1", gateway.port)
            busy, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(request())
            client.request(fields())
            await until(lambda: len(pages.keepers) == 2, "both requests")
            gateway.listener.announce_drain()
            gateway.listener.drain()
            ended = asyncio.ensure_future(gateway.listener.idle())
            async with asyncio.timeout(10):
                assert await idle.read() == b""
            assert not ended.done()
            for each in pages.keepers:
                each.exchange.send_whole(200, [], b"done")
            async with asyncio.timeout(10):
                ((_, answer, body),) = answers(await busy.read())
                await ended
            assert (answer["connection"], body) == ("close", b"done")
            # h2 ends itself at the first GOAWAY, so it cannot read the rest.
            assert b"done" in await client.reader.read()
            await until(lambda: not gateway.listener.connections, "all connections are closed")

    on_io_loop(scenario())
