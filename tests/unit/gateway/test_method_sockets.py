"""Typed methods over WebSockets, as the client of `websockets` calls them through a listener."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.dialects.json_http.json_bodies import LINE_MAX_BYTES
from gateway.dialects.json_http.json_dialect import JsonDialect
from gateway.dialects.json_http.method_socket import MethodSocket, MethodSocketDialect
from gateway.dialects.translation.turn_budget import ON_LOOP_MAX_BYTES
from gateway.gateway_listener import GatewayListener
from gateway.ops.grpc_health import Health
from gateway.ops.grpc_metrics import GrpcMetrics
from gateway.requests.routes import Refusal, read_routes
from gateway.transcoding.request_binding import RequestBinding
from mesh.exceptions import CancelReason
from mesh.link.outgoing_call import OutgoingCall
from mesh.wire.io_thread import io_thread
from mesh.wire.outcome import Outcome
from mesh.wire.payload import raw
from tests.unit.fakes.fake_exchange import FakeExchange, request
from tests.unit.gateway.dialects.json_ends import JsonGateway, json_of, library_table
from tests.unit.gateway.fakes import FakeRouter, allow, finish, item, on_io_loop, until
from tests.unit.protos import kinds_pb2

CHAT, ADD, GET, LIST = (f"/kinds.Library/{name}" for name in ("Chat", "AddBooks", "GetBook", "ListBooks"))


class Scene:
    """A listener in front of a fake router."""

    def __init__(self) -> None:
        self.router = FakeRouter()
        self.metrics = GrpcMetrics()
        self.sockets: MethodSocketDialect
        self.port = 0

    @asynccontextmanager
    async def connect(self, path: str, **headers: str) -> AsyncIterator[ClientConnection]:
        url = f"ws://127.0.0.1:{self.port}{path}"
        async with connect(url, additional_headers=headers, open_timeout=20, proxy=None) as client:
            yield client


def run(play: Callable[[Scene], Awaitable[None]], answer: Callable[[OutgoingCall], None] | None = None) -> None:
    async def serve() -> None:
        scene, health = Scene(), Health()
        if answer is not None:
            scene.router.answer = answer
        listener = GatewayListener(lambda *_: scene.router, scene.metrics, health.handler())
        dialect = JsonDialect(listener.methods)
        scene.sockets = MethodSocketDialect(listener.methods, dialect.json_methods)
        listener.add_dialects(scene.sockets, dialect)
        routes = read_routes(library_table(books="/books"))
        listener.set_routes(routes)
        dialect.set_routes(routes)
        scene.port = await listener.start("127.0.0.1", 0)
        try:
            await asyncio.wait_for(play(scene), 30)
            await asyncio.wait_for(scene.metrics.in_flight.idle(), 30)
        finally:
            health.close()
            await listener.stop(0)

    on_io_loop(serve())


async def closed(client: ClientConnection) -> tuple[int, str]:
    """How the gateway has closed."""
    with pytest.raises(ConnectionClosed) as caught:
        await client.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def book(pages: int) -> bytes:
    return kinds_pb2.Book(pages=pages).SerializeToString()


@pytest.mark.parametrize("path", [CHAT, f"/books{CHAT}"])
def test_json_messages_pass_both_ways_until_an_empty_one(path: str) -> None:
    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 10)
        scene.router.link.on_item = item
        scene.router.link.on_half_close = lambda call: finish(call, Outcome())
        async with scene.connect(path) as client:
            assert client.response is not None
            assert client.response.headers["x-request-id"]
            for pages in ("1", "2"):
                await client.send(json.dumps({"pages": pages}))
                assert json.loads(await client.recv()) == {"pages": pages}
            await client.send("")
            assert await closed(client) == (1000, "")

    run(play)


def test_large_messages_are_translated_in_a_thread_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [2 * ON_LOOP_MAX_BYTES, 10, 3 * ON_LOOP_MAX_BYTES, 10]
    on_loop: list[int] = []
    bind = RequestBinding.bind

    def noted(binding: RequestBinding, variables: Any, query: bytes, body: Any) -> bytes:
        if threading.current_thread() is io_thread().thread:
            on_loop.append(len(body))
        return bind(binding, variables, query, body)

    monkeypatch.setattr(RequestBinding, "bind", noted)

    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 10)
        scene.router.link.on_half_close = lambda call: finish(call, Outcome(payload=raw(book(1))))
        async with scene.connect(ADD) as client:
            for number, size in enumerate(sizes):
                await client.send(json.dumps({"pages": str(number), "title": "x" * size}))
            await client.send("")
            assert json.loads(await client.recv()) == {"pages": "1"}
            assert await closed(client) == (1000, "")
        sent = [kinds_pb2.Book.FromString(each) for each in scene.router.link.items]
        assert [(each.pages, len(each.title)) for each in sent] == list(enumerate(sizes))

    run(play)
    assert max(on_loop) < ON_LOOP_MAX_BYTES


@pytest.mark.parametrize(("text", "code"), [('{"tytle": "%s"}', 4003), ('{"title": "%s"', 4003)])
def test_a_large_message_that_is_wrong_closes_the_socket(text: str, code: int) -> None:
    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 10)
        async with scene.connect(ADD) as client:
            await client.send(text % ("x" * 2 * ON_LOOP_MAX_BYTES))
            assert json.loads(await client.recv())["error"]["code"] == 3
            assert (await closed(client))[0] == code
        assert not scene.router.link.items

    run(play)


def test_a_socket_that_closes_while_its_message_is_translated_ends_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    has_begun, may_go_on = threading.Event(), threading.Event()
    bind = RequestBinding.bind

    def slow(binding: RequestBinding, variables: Any, query: bytes, body: Any) -> bytes:
        has_begun.set()
        may_go_on.wait(30)
        return bind(binding, variables, query, body)

    monkeypatch.setattr(RequestBinding, "bind", slow)

    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 10)
        async with scene.connect(ADD) as client:
            await client.send(json.dumps({"title": "x" * 2 * ON_LOOP_MAX_BYTES}))
            await until(has_begun.is_set, "the translation")
        await until(lambda: not scene.metrics.in_flight.count, "the end of the call")
        may_go_on.set()
        assert not scene.router.link.items

    run(play)


@pytest.mark.parametrize("size", [10, 2 * ON_LOOP_MAX_BYTES])
def test_responses_of_any_size_are_json(size: int) -> None:
    """A large one is translated in a thread, and the socket closes behind it."""
    title = "x" * size

    def answer(call: OutgoingCall) -> None:
        if call.request.streams_response:
            for _ in range(3):
                item(call, kinds_pb2.Book(title=title).SerializeToString())
            finish(call, Outcome())
        else:
            finish(call, Outcome(payload=raw(kinds_pb2.Book(title=title).SerializeToString())))

    async def play(scene: Scene) -> None:
        for path, count in ((GET, 1), (LIST, 3)):
            async with scene.connect(path) as client:
                await client.send("{}")
                for _ in range(count):
                    assert json.loads(await client.recv()) == {"title": title}
                assert await closed(client) == (1000, "")

    run(play, answer)


@pytest.mark.parametrize("path", [GET, LIST])
@pytest.mark.parametrize("size", [10, 2 * ON_LOOP_MAX_BYTES])
def test_a_response_that_is_no_message_closes_with_its_status(path: str, size: int) -> None:
    def answer(call: OutgoingCall) -> None:
        if call.request.streams_response:
            item(call, b"\xff" * size)
        else:
            finish(call, Outcome(payload=raw(b"\xff" * size)))

    async def play(scene: Scene) -> None:
        async with scene.connect(path) as client:
            await client.send("{}")
            assert json.loads(await client.recv())["error"]["code"] == 13
            assert (await closed(client))[0] == 4013

    run(play, answer)


@pytest.mark.parametrize("path", [GET, LIST])
def test_a_fault_of_ours_in_the_thread_closes_the_socket(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("a fault of ours")

    def answer(call: OutgoingCall) -> None:
        data = kinds_pb2.Book(title="x" * 2 * ON_LOOP_MAX_BYTES).SerializeToString()
        if call.request.streams_response:
            item(call, data)
        else:
            finish(call, Outcome(payload=raw(data)))

    monkeypatch.setattr(MethodSocket, "translate", fail)

    async def play(scene: Scene) -> None:
        async with scene.connect(path) as client:
            await client.send("{}")
            assert json.loads(await client.recv())["error"]["message"] == "The gateway failed; its log has the reason."
            assert (await closed(client))[0] == 4013

    run(play, answer)


def test_binary_messages_are_protobuf_and_so_are_their_answers() -> None:
    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 10)
        scene.router.link.on_item = item
        async with scene.connect(CHAT) as client:
            await client.send(book(7))
            assert await client.recv() == book(7)

    run(play)


def test_the_response_of_a_streamed_request_comes_before_the_close() -> None:
    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 10)
        scene.router.link.on_half_close = lambda call: finish(
            call, Outcome(payload=raw(book(len(scene.router.link.items))))
        )
        async with scene.connect(ADD) as client:
            await client.send('{"pages": 1}')
            await client.send('{"pages": 2}')
            await client.send("")
            assert json.loads(await client.recv()) == {"pages": "2"}
            assert await closed(client) == (1000, "")

    run(play)


def test_the_first_message_is_the_request_of_a_method_that_takes_one() -> None:
    def answer(call: OutgoingCall) -> None:
        for pages in (1, 2):
            item(call, book(pages))
        finish(call, Outcome())

    async def play(scene: Scene) -> None:
        async with scene.connect(LIST) as client:
            await client.send("{}")
            assert [json.loads(await client.recv())["pages"] for _ in range(2)] == ["1", "2"]
            assert await closed(client) == (1000, "")

    run(play, answer)


def test_a_call_that_fails_says_so_and_closes_with_its_code() -> None:
    async def play(scene: Scene) -> None:
        async with scene.connect(GET) as client:
            await client.send('{"name": "x"}')
            status = {"code": 5, "message": "no such book", "details": []}
            assert json.loads(await client.recv()) == {"error": status}
            assert await closed(client) == (4005, "no such book")

    run(play, lambda call: finish(call, Outcome(code=5, message="no such book")))


@pytest.mark.parametrize(
    ("messages", "code", "text"),
    [
        (['{"pages": "x"}'], 4003, "pages: expected an integer, found 'x'"),
        (["", "{}"], 4003, "a message came behind"),
        ([" " * (LINE_MAX_BYTES + 1)], 4008, "more than 1048576 bytes"),
    ],
)
def test_a_wrong_message_ends_the_call(messages: list[str], code: int, text: str) -> None:
    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 10)
        async with scene.connect(CHAT) as client:
            for each in messages:
                await client.send(each)
            error = json.loads(await client.recv())["error"]
            assert text in error["message"]
            assert (await closed(client))[0] == code
        assert scene.router.cancelled

    run(play)


def test_messages_wait_for_the_replica() -> None:
    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 1)
        async with scene.connect(CHAT) as client:
            for pages in range(3):
                await client.send(book(pages))
            await until(lambda: scene.router.link.items, "the first message")
            await asyncio.wait_for(await client.ping(), 30)  # the gateway has read all that was sent before
            assert scene.router.link.items == [book(0)]
            allow(scene.router.calls[0], 5)
            await until(lambda: len(scene.router.link.items) == 3, "the others")
            assert scene.router.link.items == [book(0), book(1), book(2)]

    run(play)


def test_a_client_that_closes_cancels_its_call() -> None:
    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 1)
        async with scene.connect(CHAT):
            await until(lambda: scene.router.calls, "the call")
        await until(lambda: scene.router.cancelled, "the cancel")
        assert scene.router.cancel_reasons == [CancelReason.CLIENT]

    run(play)


def test_a_gateway_that_drains_closes_its_sockets() -> None:
    async def play(scene: Scene) -> None:
        scene.router.answer = lambda call: allow(call, 1)
        async with scene.connect(CHAT) as client:
            scene.sockets.drain()
            assert (await closed(client))[0] == 1012

    run(play)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [(CHAT, {"application": "nothing"}, 404), (CHAT, {"grpc-timeout": "soon"}, 400)],
)
def test_a_wrong_handshake_is_refused(path: str, headers: dict[str, str], status: int) -> None:
    async def play(scene: Scene) -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with scene.connect(path, **headers):
                raise AssertionError("accepted")
        assert caught.value.response.status_code == status

    run(play)


def test_a_caller_above_its_limit_is_refused() -> None:
    class Limited:
        def admit(self, method: object) -> Refusal:
            return Refusal(8, "Enough for now.", "books")

    gateway = JsonGateway()
    sockets = MethodSocketDialect(gateway.methods, gateway.dialect.json_methods)
    fields = [("sec-websocket-version", "13"), ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")]
    exchange = FakeExchange(replace(request(CHAT, *fields, method="GET"), scheme="ws"))
    exchange.caller = Limited()
    assert sockets.claims(exchange.head)
    assert sockets.open(exchange) is None
    assert (exchange.status, json_of(exchange)["message"]) == (429, "Enough for now.")
    gateway.assert_counted_once(8)
