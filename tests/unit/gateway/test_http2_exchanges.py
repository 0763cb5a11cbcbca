"""Requests of HTTP/2 that are not gRPC, over real sockets: bodies, trailers, pauses, resets and WebSockets."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from gateway.requests.exchange import BrokenBy, Exchange
from mesh.http2.upkeep import UpkeepPolicy
from tests.unit.fakes.http1_ends import Keeper
from tests.unit.gateway.fakes import BIDI, UNARY, FakeRouter, Gateway, on_io_loop, until
from tests.unit.gateway.open_ports import Http2Client, Pages, fields, hello, http2, open_gateway


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


def test_a_client_of_http_2_is_asked_for_the_body_that_it_holds_back() -> None:
    """As on HTTP/1.1 (RFC 9110 §10.1.1)."""

    async def scenario() -> None:
        pages = Pages()
        expecting = fields("POST", expect="100-continue")
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            held = client.request(expecting, ended=False)
            await client.until(lambda: client.interim)
            assert client.interim == {held: "100"}
            client.h2.send_data(held, b"abc", end_stream=True)
            client.flush()
            await until(lambda: pages.keepers[0].ends, "the request")
            assert pages.keepers[0].body == b"abc"
            pages.keepers[0].exchange.send_whole(200, [], b"done")
            await client.until(lambda: held in client.ended)
            assert (client.headers[held][":status"], client.bodies[held]) == ("200", b"done")
            client.request(expecting)  # without a body
            client.request(fields("POST"), ended=False)
            await client.round_trip()
            assert client.interim == {held: "100"}

    on_io_loop(scenario())


def test_a_client_of_http_2_that_is_refused_keeps_its_body() -> None:
    async def scenario() -> None:
        pages = Pages(lambda exchange: exchange.send_whole(404, [], b"") and None)
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            stream = client.request(fields("POST", expect="100-continue"), ended=False)
            await client.until(lambda: stream in client.ended)
            assert (client.headers[stream][":status"], client.interim) == ("404", {})

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
    for connection in gateway.listener.server.client_connections():
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


@pytest.mark.parametrize("method", [UNARY, BIDI, "/grpc.health.v1.Health/Check"])
def test_a_grpc_message_that_stops_half_way_ends_its_call(method: str) -> None:

    async def scenario() -> None:
        grpc_fields = fields("POST", method, te="trailers", content_type="application/grpc")
        async with open_gateway(Pages(), FakeRouter(lambda call: None)) as gateway, http2(gateway.port) as client:
            stream = client.request(grpc_fields, b"\0\0\0\0\x09half", ended=False)
            await pause_for(gateway, client, 61.0)
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


def test_cookies_that_a_browser_has_split_are_one_field_for_applications() -> None:
    """RFC 9113 §8.2.3."""

    async def scenario() -> None:
        pages = Pages()
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            split = [*fields(path="/").items(), ("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2"), ("cookie", "d=3")]
            client.h2.send_headers(1, split, end_stream=True)
            client.flush()
            await until(lambda: pages.keepers, "the request")
            (keeper,) = pages.keepers
            assert keeper.exchange.head.fields == [(b"host", b"shop"), (b"x-a", b"b"), (b"cookie", b"a=1; c=2; d=3")]

    on_io_loop(scenario())


@pytest.mark.parametrize("authority", ["user@shop", "shop/x", "a b", "shop:port"])
def test_a_wrong_host_is_refused_on_http_2_too(authority: str) -> None:
    async def scenario() -> None:
        pages = Pages()
        async with open_gateway(pages) as gateway, http2(gateway.port) as client:
            answer, _ = await client.answer({**fields(), ":authority": authority})
            assert (answer[":status"], pages.keepers) == ("400", [])
            client.request({**fields(), ":authority": "[::1]:80"})
            await until(lambda: pages.keepers, "a request with a valid host")

    on_io_loop(scenario())
