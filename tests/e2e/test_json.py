"""JSON at a gateway as curl and httpx see it: methods, rules, streams in every form, uploads, errors and OpenAPI."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from openapi_spec_validator import validate
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

import mesh
from mesh.exceptions import GrpcStatusError
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import Gate, small
from tests.e2e.waiting import until
from tests.unit.protos import kinds_pb2, kinds_pb2_grpc

Handle = mesh.DeploymentHandle[Any]
Book = kinds_pb2.Book
LINES = {"content-type": "application/x-ndjson"}


@small(max_ongoing_requests=100)
class Library(kinds_pb2_grpc.LibraryServicer):
    """The name in a request says what is to happen."""

    def __init__(self, gate: Handle) -> None:
        self._gate = gate

    async def GetBook(self, request: Any, context: Any) -> Any:
        match request.name:
            case "missing":
                info = error_details_pb2.ErrorInfo(reason="BURNT")
                raise GrpcStatusError.with_details(grpc.StatusCode.NOT_FOUND, "no such book", info)
            case "metadata":
                sent = dict(context.invocation_metadata())
                await context.send_initial_metadata((("shelf", "12"),))
                context.set_trailing_metadata((("loans", "3"),))
                return Book(title=f"{sent['tenant']} {mesh.get_multiplexed_model_id()}")
            case "wait":
                await self._gate.wait.remote("get")
        return Book(title=request.name, pages=request.place.row)

    async def ListBooks(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for pages in range(1, 4):
            yield Book(pages=pages)
            if request.name in ("wait", "stay"):
                await self._gate.wait.remote(f"{request.name} {pages}")
        if request.name == "fail":
            await context.abort(grpc.StatusCode.DATA_LOSS, "a page is torn")

    async def CreateBook(self, request: Any, context: Any) -> Any:
        return request

    async def UpdateBook(self, request: Any, context: Any) -> Any:
        return request

    async def AddBooks(self, request_iterator: AsyncIterator[Any], context: Any) -> Any:
        return Book(pages=sum([book.pages async for book in request_iterator]))

    async def Chat(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for book in request_iterator:
            yield Book(title=book.title.upper())

    async def PutContent(self, request: Any, context: Any) -> Any:
        return request.content


@pytest.fixture(scope="module")
def gate(deploy: Deploy) -> Handle:
    return deploy(Gate.bind(), "json-gate")


@pytest.fixture(scope="module", autouse=True)
def library(deploy: Deploy, gate: Handle) -> Handle:
    return deploy(Library.bind(mesh.get_app_handle("json-gate")), "library")


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http_url, timeout=20) as client:
        yield client


def test_methods_answer_at_their_own_path_by_rules_and_below_the_prefix(client: httpx.Client) -> None:
    for answer in (
        client.post("/kinds.Library/GetBook", json={"name": "Emma"}),
        client.get("/v1/books/Emma"),
        client.get("/library/v1/books/Emma"),
        client.post("/library/kinds.Library/GetBook", json={"name": "Emma"}),
    ):
        assert (answer.status_code, answer.json()) == (200, {"title": "Emma"})
        assert answer.headers["x-request-id"]


def test_path_query_and_body_fill_one_request(client: httpx.Client) -> None:
    assert client.get("/v1/books/Emma?place.row=7").json() == {"title": "Emma", "pages": "7"}
    patched = client.patch("/v1/shelves/1?validateOnly=true", json={"title": "Emma", "authors": ["Jane"]})
    assert patched.json() == {"title": "Emma", "authors": ["Jane"]}


def test_metadata_are_headers_both_ways(client: httpx.Client) -> None:
    headers = {"grpc-metadata-tenant": "t1", "serve_multiplexed_model_id": "m1", "x-request-id": "r1"}
    answer = client.get("/v1/books/metadata", headers=headers)
    assert answer.json() == {"title": "t1 m1"}
    assert answer.headers["grpc-metadata-shelf"] == "12"
    assert answer.headers["grpc-trailer-loans"] == "3"
    assert answer.headers["x-request-id"] == "r1"


def test_an_error_is_a_status_with_details(client: httpx.Client) -> None:
    answer = client.get("/v1/books/missing")
    assert answer.status_code == 404
    assert answer.json() == {
        "code": 5,
        "message": "no such book",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "BURNT"}],
    }
    wrong = client.get("/v1/books/Emma?place.row=x")
    assert (wrong.status_code, wrong.json()["message"]) == (400, "place.row: expected an integer, found 'x'")
    assert client.delete("/v1/books/Emma").headers["allow"] == "GET, HEAD"


def test_a_timeout_of_the_client_ends_its_call(client: httpx.Client) -> None:
    answer = client.get("/v1/books/wait", headers={"x-request-timeout-seconds": "0.2"})
    assert (answer.status_code, answer.json()["code"]) == (504, 4)


ITEMS = [{"pages": "1"}, {"pages": "2"}, {"pages": "3"}]
TORN = {"code": 15, "message": "a page is torn", "details": []}


def test_a_stream_comes_in_all_three_forms_and_says_how_it_failed(client: httpx.Client) -> None:
    assert client.get("/v1/books").json() == ITEMS
    assert client.get("/v1/books?name=fail").json() == [*ITEMS, {"error": TORN}]
    lines = client.get("/v1/books?name=fail", headers={"accept": "application/x-ndjson"}).text
    assert [json.loads(line) for line in lines.splitlines()] == [*ITEMS, {"error": TORN}]
    events = client.get("/v1/books?name=fail", headers={"accept": "text/event-stream"}).text
    assert events.startswith('data: {"pages":"1"}\n\ndata: {"pages":"2"}\n\n')
    assert json.loads(events.rpartition("event: error\ndata: ")[2]) == TORN
    assert client.get("/v1/books", headers={"accept": "text/event-stream"}).text.endswith("event: end\ndata: {}\n\n")


def test_an_item_arrives_before_the_next_one_is_made(client: httpx.Client, gate: Handle) -> None:
    with client.stream("GET", "/v1/books?name=wait", headers={"accept": "application/x-ndjson"}) as answer:
        lines = answer.iter_lines()
        for pages in range(1, 4):
            assert json.loads(next(lines)) == {"pages": str(pages)}
            gate.open.remote(f"wait {pages}").result()
        assert list(lines) == []


def test_an_upload_of_lines_is_a_streamed_request(client: httpx.Client) -> None:
    def lines() -> Iterator[bytes]:
        for pages in range(1000):
            yield b'{"pages": %d}\n' % pages

    assert client.post("/v1/books:add", content=lines(), headers=LINES).json() == {"pages": "499500"}
    chat = client.post("/kinds.Library/Chat", content=b'{"title":"a"}\n{"title":"b"}\n', headers=LINES)
    assert chat.json() == [{"title": "A"}, {"title": "B"}]


def test_a_websocket_calls_a_method_that_streams_both_ways(gateway: Gateway) -> None:
    with connect(f"ws://127.0.0.1:{gateway.http_port}/library/kinds.Library/Chat", proxy=None) as socket:
        for title in ("a", "b"):
            socket.send(json.dumps({"title": title}))
            assert json.loads(socket.recv(20)) == {"title": title.upper()}
        socket.send(Book(title="c").SerializeToString())
        assert socket.recv(20) == Book(title="C").SerializeToString()
        socket.send("")
        with pytest.raises(ConnectionClosedOK):
            socket.recv(20)


def test_raw_bodies_pass_as_they_are(client: httpx.Client) -> None:
    data = bytes(range(256)) * 1000
    answer = client.put("/v1/content/a/b", content=data, headers={"content-type": "image/png"})
    assert (answer.headers["content-type"], answer.content) == ("image/png", data)


def test_requests_at_the_same_time_do_not_wait_for_each_other(gateway: Gateway) -> None:
    with httpx.Client(base_url=gateway.http_url, timeout=20) as client:
        large = json.dumps({"title": "x" * 3_000_000})
        answers: list[int] = []

        def ask() -> None:
            body = client.post("/v1/books", content=large, headers={"content-type": "application/json"})
            answers.append(len(body.json()["title"]))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
        assert answers == [3_000_000] * 4


CURL = shutil.which("curl")


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("port", ["grpc_port", "http_port"])
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_is_served_by_both_versions_of_http_on_both_ports(gateway: Gateway, port: str, version: str) -> None:
    url = f"http://127.0.0.1:{getattr(gateway, port)}"

    def curl(*arguments: str) -> str:
        command = [str(CURL), "-sS", "--max-time", "20", version, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    assert curl(f"{url}/v1/books/Emma") == '{"title":"Emma"}'
    assert curl("--json", '{"name":"Emma"}', f"{url}/kinds.Library/GetBook") == '{"title":"Emma"}'
    assert curl("-N", "-H", "accept: text/event-stream", f"{url}/v1/books").count("data: ") == 4
    upload = curl(
        "-H", "content-type: application/x-ndjson", "--data-binary", '{"pages":1}\n{"pages":2}', f"{url}/v1/books:add"
    )
    assert upload == '{"pages":"3"}'


def test_the_api_is_described_and_has_a_page(client: httpx.Client) -> None:
    document = client.get("/-/openapi/library.json").json()
    validate(document)
    assert "/v1/books/{name}" in document["paths"]
    assert "text/html" in client.get("/-/docs").headers["content-type"]
    assert "library" in client.get("/-/openapi/").json()["applications"]


def test_a_client_that_leaves_cancels_its_stream(client: httpx.Client, gate: Handle) -> None:
    with client.stream("GET", "/v1/books?name=stay", headers={"accept": "application/x-ndjson"}) as answer:
        lines = answer.iter_lines()  # the response is closed when nothing holds it
        assert json.loads(next(lines)) == {"pages": "1"}
        until(lambda: "stay 1" in gate.entered.remote().result())
    until(lambda: "stay 1" in gate.cancelled_at_s.remote().result())
