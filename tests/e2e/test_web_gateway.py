"""Web requests through the gateway as clients see them: routes, ids, timeouts, leaving clients, WebSockets, drain."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import mesh
from tests.e2e.conftest import Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.waiting import until

TIMEOUT_S = 6.0
"""No other request takes as long, on a busy machine too: one uploads 64 MiB."""
MIB = 1024 * 1024
UPLOAD_BYTES = 64 * MIB


def web_application() -> Starlette:
    """What its deployment serves at `/shop`. The gate is found by name."""

    def gate() -> Any:
        return mesh.get_deployment_handle("Gate", "shop")

    async def about(request: Request) -> Response:
        headers = {"x-own": "1", "connection": "close", "x-request-id": "not this one"}
        about = {
            "path": request.url.path,
            "root_path": request.scope["root_path"],
            "client": request.client.host if request.client else None,
            "model": mesh.get_multiplexed_model_id(),
            "ids": request.headers.getlist("x-request-id"),
            "hop": [name for name in ("connection", "keep-alive") if name in request.headers],
        }
        return JSONResponse(about, headers=headers)

    async def wait(request: Request) -> Response:
        return Response(await gate().wait.remote(request.path_params["label"]))

    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            async for item in gate().options(stream=True).stream.remote(request.path_params["label"]):
                yield item

        return StreamingResponse(body())

    async def count(request: Request) -> Response:
        size = 0
        async for piece in request.stream():
            size += len(piece)
        return Response(str(size))

    async def fail(request: Request) -> Response:
        raise LookupError("a secret")

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=next(iter(websocket.scope["subprotocols"]), None))
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                await gate().open.remote(f"closed with {message['code']}")
                return
            if message.get("text") == "close":
                await websocket.close(4002, "as asked")
                return
            if message.get("text") == "raise":
                raise LookupError("a secret")
            await websocket.send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})

    async def refuse(websocket: WebSocket) -> None:
        await websocket.close()

    return Starlette(
        routes=[
            Route("/about", about),
            Route("/wait/{label}", wait),
            Route("/stream/{label}", stream),
            Route("/count", count, methods=["POST"]),
            Route("/fail", fail),
            WebSocketRoute("/echo", echo),
            WebSocketRoute("/refuse", refuse),
        ]
    )


@small(max_ongoing_requests=1000)
@mesh.ingress(web_application())
class Shop:
    def __init__(self, gate: Any) -> None:
        self._gate = gate


@small
class Plain:
    """Says where it was called."""

    async def __call__(self, request: Request) -> str:
        return f"plain {request.url.path}"


@pytest.fixture(scope="module")
def web(gateway: Gateway) -> Iterator[Gateway]:
    """A mesh of its own whose web requests may take some seconds; after it the run's mesh is there again."""
    mesh.shutdown()
    mesh.start(
        http_options={"port": gateway.http_port, "request_timeout_s": TIMEOUT_S, "root_path": "/api"},
        grpc_options={"port": gateway.grpc_port},
    )
    mesh.run(Shop.bind(Gate.bind()), name="shop", route_prefix="/shop")
    mesh.run(Plain.bind(), name="plain", route_prefix="/shop/plain")
    # The first call to the gate also connects the replica to it.
    gate().open.remote("first").result(timeout_s=20)
    until(lambda: get(gateway, "/shop/wait/first").status == 200)
    yield gateway
    mesh.shutdown()
    gateway.start_mesh()


class Answer:
    """Status, headers and body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()


@contextlib.contextmanager
def client(gateway: Gateway) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.http_port, timeout=20)
    try:
        yield connection
    finally:
        connection.close()


def get(gateway: Gateway, path: str, **headers: str) -> Answer:
    with client(gateway) as connection:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return Answer(connection.getresponse())


def gate() -> Any:
    return mesh.get_deployment_handle("Gate", "shop")


def websocket(gateway: Gateway, path: str, **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{gateway.http_port}{path}", open_timeout=20, close_timeout=20, **options)


def is_cancelled(label: str) -> bool:
    return label in gate().cancelled_at_s.remote().result(timeout_s=10)


def has_entered(label: str) -> bool:
    return label in gate().entered.remote().result(timeout_s=10)


# ---- Requests --------------------------------------------------------------------------------------------------------


def test_applications_share_the_port_by_their_prefixes(web: Gateway) -> None:
    """The longest prefix wins, and a root path may be there or not (items 54, 203)."""
    assert get(web, "/shop/plain/x").body == b"plain /api/shop/plain/x"
    assert get(web, "/api/shop/plain").body == b"plain /api/shop/plain"
    assert get(web, "/shop/plainer").status == 404
    unknown = get(web, "/nowhere")
    assert unknown.status == 404
    assert unknown.body.startswith(b"Path '/nowhere' not found.")


def test_an_application_sees_its_request_and_the_client_its_answer(web: Gateway) -> None:
    """Ids come back once, headers of the connection do not pass (items 124, 204)."""
    answer = get(
        web,
        "/shop/about",
        x_request_id="r-7",
        serve_multiplexed_model_id="m1",
        connection="keep-alive",
        keep_alive="timeout=5",
    )
    assert answer.status == 200
    assert answer.headers.get_all("x-request-id") == ["r-7"]
    assert answer.headers["x-own"] == "1"
    text = answer.body.decode()
    assert '"path":"/api/shop/about"' in text
    assert '"root_path":"/api/shop"' in text
    assert '"client":"127.0.0.1"' in text
    assert '"model":"m1"' in text
    assert '"ids":["r-7"]' in text
    assert '"hop":[]' in text


def test_head_has_the_headers_of_get_and_no_body(web: Gateway) -> None:
    with client(web) as connection:
        connection.request("HEAD", "/shop/about")
        answer = Answer(connection.getresponse())
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers["content-length"]) > 0
        connection.request("GET", "/shop/about")
        assert Answer(connection.getresponse()).status == 200


def test_a_request_that_takes_too_long_is_answered_and_cancelled(web: Gateway) -> None:
    """The text names the request and the time (items 144, 205, D10)."""
    answer = get(web, "/shop/wait/slow", x_request_id="slow-1", x_request_timeout_seconds="1.5")
    assert (answer.status, answer.body) == (408, b"Request slow-1 timed out after 1.5s.")
    until(lambda: is_cancelled("slow"))
    answer = get(web, "/shop/wait/slower", x_request_id="slow-2", x_request_timeout_seconds="60")
    assert (answer.status, answer.body) == (408, f"Request slow-2 timed out after {TIMEOUT_S:g}s.".encode())


def test_a_stream_that_takes_too_long_is_broken_off(web: Gateway) -> None:
    """What has left does not look complete (item 205)."""
    with client(web) as connection:
        connection.request("GET", "/shop/stream/late", headers={"X-Request-Timeout-Seconds": "1.5"})
        response = connection.getresponse()
        assert (response.status, response.read(5)) == (200, b"first")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()


def test_pieces_of_a_stream_arrive_as_they_are_made(web: Gateway) -> None:
    """The first is there while the application waits for the second (item 112)."""
    with client(web) as connection:
        connection.request("GET", "/shop/stream/next")
        response = connection.getresponse()
        assert response.read(5) == b"first"
        gate().open.remote("next").result(timeout_s=10)
        assert response.read() == b"next"


def test_user_errors_are_no_news_to_clients(web: Gateway) -> None:
    """The log has the rest (item 144)."""
    answer = get(web, "/shop/fail")
    assert (answer.status, answer.body) == (500, b"Internal Server Error")


def test_large_bodies_pass_in_pieces(web: Gateway) -> None:
    with client(web) as connection:
        piece = bytes(MIB)
        pieces = (piece for _ in range(UPLOAD_BYTES // MIB))
        connection.request("POST", "/shop/count", body=pieces, headers={"Content-Length": str(UPLOAD_BYTES)})
        assert Answer(connection.getresponse()).body == b"%d" % UPLOAD_BYTES
        connection.request("POST", "/shop/count", body=(piece for _ in range(3)), encode_chunked=True)
        assert Answer(connection.getresponse()).body == b"%d" % (3 * MIB)


def test_a_client_that_leaves_cancels_its_request(web: Gateway) -> None:
    """The child call is cancelled too (items 38, 207)."""
    with client(web) as connection:
        connection.request("GET", "/shop/wait/left")
        until(lambda: has_entered("left"))
    until(lambda: is_cancelled("left"))
    assert gate().entered.remote().result(timeout_s=10).count("left") == 1, "it is not made again"


def test_a_request_may_outlive_its_client(web: Gateway) -> None:
    """It asked for that in a header (item 206)."""
    with client(web) as connection:
        connection.request("GET", "/shop/wait/stays", headers={"X-Request-Disconnect-Disabled": "?1"})
        until(lambda: has_entered("stays"))
    assert get(web, "/shop/plain").status == 200
    assert not is_cancelled("stays")
    gate().open.remote("stays").result(timeout_s=10)


def test_requests_on_one_connection_are_answered_in_their_order(web: Gateway) -> None:
    """Also those that are sent ahead, with the same id (item 204)."""
    head = b"GET /shop/about HTTP/1.1\r\nHost: x\r\nX-Request-Id: same\r\n\r\n"
    with socket.create_connection(("127.0.0.1", web.http_port), timeout=20) as raw:
        raw.sendall(head * 5)
        received = b""
        while received.count(b'"path"') < 5:
            received += raw.recv(MIB)
    assert received.count(b"x-request-id: same\r\n") == 5


# ---- WebSockets ------------------------------------------------------------------------------------------------------


def test_messages_of_all_sizes_come_back(web: Gateway) -> None:
    """Text and binary, compressed or not (item 111)."""
    for options in ({}, {"compression": None}):
        with websocket(web, "/shop/echo", subprotocols=["chat"], **options) as socket_:
            assert socket_.subprotocol == "chat"
            for message in ("", "ü", "x" * 5_000, b"", b"\0" * 100_000, "y" * MIB):
                socket_.send(message)
                assert socket_.recv(timeout=20) == message


def test_codes_of_a_close_pass_in_both_directions(web: Gateway) -> None:
    """Client, application and failure (item 111)."""
    with websocket(web, "/shop/echo") as socket_:
        socket_.close(4001, "bye")
    assert gate().wait.remote("closed with 4001").result(timeout_s=10)
    for text, code in (("close", 4002), ("raise", 1011)):
        with websocket(web, "/shop/echo") as socket_:
            socket_.send(text)
            with pytest.raises(ConnectionClosed) as closed:
                socket_.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


def test_a_refused_handshake_is_forbidden(web: Gateway) -> None:
    """And one without a route is not found (items 111, 203)."""
    for path, status in (("/shop/refuse", 403), ("/nowhere", 404)):
        with pytest.raises(InvalidStatus) as refused, websocket(web, path):
            pass
        assert refused.value.response.status_code == status


def test_a_websocket_lives_longer_than_a_request_may(web: Gateway) -> None:
    """It has no timeout (item 111)."""
    began_at_s = time.monotonic()
    with websocket(web, "/shop/echo") as socket_:
        while time.monotonic() < began_at_s + TIMEOUT_S + 0.5:
            socket_.send("still there")
            assert socket_.recv(timeout=20) == "still there"
            get(web, "/shop/about")


# ---- Drain: the last test, it ends the gateway -----------------------------------------------------------------------


def test_no_request_fails_while_the_gateway_drains(web: Gateway) -> None:
    """Connected clients are served until they are asked to leave, WebSockets close with 1012 (item 209)."""
    failures: list[str] = []
    is_over = threading.Event()

    def keep_asking() -> None:
        """On one connection after the other, until no new one is served."""
        while not is_over.is_set():
            answers = 0
            try:
                with client(web) as connection:
                    while not is_over.is_set():
                        connection.request("GET", "/shop/about")
                        answer = Answer(connection.getresponse())
                        answers += 1
                        if answer.status != 200:
                            failures.append(f"{answer.status} {answer.body!r}")
                        if answer.headers.get("connection") == "close":
                            break
            except OSError as error:
                if answers:
                    failures.append(repr(error))
                return

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    with websocket(web, "/shop/echo") as socket_:
        socket_.send("there")
        assert socket_.recv(timeout=20) == "there"
        for thread in threads:
            thread.start()
        mesh.shutdown()
        with pytest.raises(ConnectionClosed) as closed:
            socket_.recv(timeout=20)
    is_over.set()
    for thread in threads:
        thread.join(timeout=20)
    assert failures == []
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
