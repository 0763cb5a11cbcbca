"""Deployments without ASGI: what they get of a request, and what becomes of what they return (item 114)."""

import asyncio
import dataclasses
import datetime
import decimal
import enum
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import PurePosixPath
from typing import Any

import grpc
import numpy as np
import pytest
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from mesh.context import current_request
from tests.unit.fakes.small_mesh import until
from tests.unit.web.web_calls import DEADLINE_S, WebReplica, web_replica, web_request

INTERNAL = grpc.StatusCode.INTERNAL.value[0]
CANCELLED = grpc.StatusCode.CANCELLED.value[0]


class Seen:
    """What happened in user code. It is found by its module, so it is not a part of the pickles."""

    events: list[Any] = []  # noqa: RUF012


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    Seen.events.clear()


def note(event: Any) -> None:
    from tests.unit.web import test_plain_calls

    test_plain_calls.Seen.events.append(event)


class Model(BaseModel):
    name: str
    when: datetime.date


@dataclasses.dataclass
class Record:
    number: int
    model: Model


class Color(enum.Enum):
    RED = "red"


VALUES: dict[str, Any] = {
    "text": "grüße",
    "bytes": b"\x00\xff",
    "dict": {"a": [1, 2.5, None, True]},
    "none": None,
    "int": 7,
    "array": np.arange(4).reshape(2, 2),
    "number": np.float32(0.5),
    "inside": {"scores": [np.int64(3)], "array": np.zeros(1)},
    "model": Model(name="m", when=datetime.date(2026, 1, 2)),
    "record": Record(1, Model(name="m", when=datetime.date(2026, 1, 2))),
    "set": {5},
    "color": Color.RED,
    "decimal": [decimal.Decimal("1.50"), decimal.Decimal(3)],
    "id": uuid.UUID(int=1),
    "path": PurePosixPath("/a/b"),
    "response": PlainTextResponse("made", 418, {"x-tea": "yes"}),
    "empty": "",
}
JSON = b"application/json"
EXPECTED = {
    "text": (b"text/plain; charset=utf-8", "grüße".encode()),
    "bytes": (b"application/octet-stream", b"\x00\xff"),
    "dict": (JSON, b'{"a":[1,2.5,null,true]}'),
    "none": (JSON, b"null"),
    "int": (JSON, b"7"),
    "array": (JSON, b"[[0,1],[2,3]]"),
    "number": (JSON, b"0.5"),
    "inside": (JSON, b'{"scores":[3],"array":[0.0]}'),
    "model": (JSON, b'{"name":"m","when":"2026-01-02"}'),
    "record": (JSON, b'{"number":1,"model":{"name":"m","when":"2026-01-02"}}'),
    "set": (JSON, b"[5]"),
    "color": (JSON, b'"red"'),
    "decimal": (JSON, b"[1.5,3]"),
    "id": (JSON, b'"00000000-0000-0000-0000-000000000001"'),
    "path": (JSON, b'"/a/b"'),
    "response": (b"text/plain; charset=utf-8", b"made"),
    "empty": (b"text/plain; charset=utf-8", b""),
}


class Plain:
    """Everything that a plain deployment may do, by path."""

    async def __call__(self, request: Request) -> Any:
        name = request.url.path.strip("/")
        if name == "echo":
            return await request.body()
        if name == "json":
            return {"got": await request.json(), "query": dict(request.query_params)}
        if name == "request_id":
            served = current_request()
            return served.request_id if served is not None else ""
        if name == "broken":
            raise ValueError("no such number")
        if name == "unknown":
            return object()
        if name == "not_a_number":
            return {"scores": np.array([0.5, np.nan])}
        if name == "hang":
            await asyncio.Event().wait()
        if name == "background":
            return JSONResponse({}, background=BackgroundTask(note, "background"))
        if name == "streamed":
            return StreamingResponse(iter(["a", "b"]), media_type="text/css")
        if name == "generated":
            return self.generate()
        return VALUES[name]

    async def generate(self) -> AsyncIterator[Any]:
        try:
            yield {"n": 1}
            yield {"n": 2}
            await asyncio.Event().wait()
        finally:
            note("closed")


class Threaded:
    def __init__(self) -> None:
        self.gate = threading.Event()

    def __call__(self, request: Request) -> Any:
        note(threading.current_thread().name)
        served = current_request()
        if request.url.path == "/generated":
            return self.generate()
        if request.url.path == "/empty":
            return next(iter(()))
        if request.url.path == "/blocks":
            self.gate.wait(DEADLINE_S)
        if request.url.path == "/waits":
            return self.waits()
        return f"{request.method} {request.url.path} {served.request_id if served is not None else ''}"

    def generate(self) -> Iterator[str]:
        for number in range(3):
            note(threading.current_thread().name)
            yield f"{number},"

    def waits(self) -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            note(f"closed in {threading.current_thread().name}")


@pytest.fixture(scope="module")
def plain() -> Iterator[WebReplica]:
    with web_replica(Plain) as replica:
        yield replica


@pytest.fixture(scope="module")
def threaded() -> Iterator[WebReplica]:
    with web_replica(Threaded) as replica:
        yield replica


@pytest.mark.parametrize("name", EXPECTED)
def test_values_become_responses(plain: WebReplica, name: str) -> None:
    """Text, bytes, responses, and JSON of all else (item 114)."""
    response = plain.ask(f"/{name}")
    assert (response.headers[b"content-type"], response.body) == EXPECTED[name]
    assert response.status == (418 if name == "response" else 200)
    assert response.headers[b"content-length"] == str(len(response.body)).encode()


def test_a_request_has_its_body_query_and_context(plain: WebReplica) -> None:
    """A `starlette.requests.Request`, and the context of every call (item 114)."""
    text = plain.ask("/json?a=1", method="POST", body=b'{"x": 2}').text
    assert text == '{"got":{"x":2},"query":{"a":"1"}}'
    assert plain.ask("/request_id").text == "request-1"


def test_a_streamed_body_is_read(plain: WebReplica) -> None:
    call = plain.start(web_request("/echo", "POST"), is_streamed=True)
    call.push(b"one", b"two")
    call.half_close()
    assert call.response().body == b"onetwo"


def test_responses_that_stream_or_go_on_are_run(plain: WebReplica) -> None:
    response = plain.ask("/streamed")
    assert (response.text, response.headers[b"content-type"]) == ("ab", b"text/css; charset=utf-8")
    assert plain.ask("/background").text == "{}"
    until(lambda: Seen.events == ["background"], "the background task")


def test_generators_are_streams(plain: WebReplica, threaded: WebReplica) -> None:
    """Values other than text and bytes are lines of JSON (item 114)."""
    call = plain.start(path="/generated")
    until(lambda: len(call.answers.items) == 2, "two items")
    call.leave()
    assert call.ended().code == CANCELLED
    assert Seen.events == ["closed"]
    response = threaded.ask("/generated")
    assert response.pieces[:3] == [b"0,", b"1,", b"2,"]
    assert response.headers[b"content-type"] == b"text/plain; charset=utf-8"


def test_generators_of_threads_end_with_their_client(threaded: WebReplica) -> None:
    """Their `finally` may block, so it runs in a thread as well."""
    call = threaded.start(path="/waits", credit=3)
    call.wait_items(3)
    call.leave()
    assert call.ended().code == CANCELLED
    until(lambda: str(Seen.events[-1]).startswith("closed in mesh-user-def"), "the end of the generator in a thread")


def test_sync_code_runs_in_threads(threaded: WebReplica) -> None:
    """In the context of its request (item 147)."""
    assert threaded.ask("/x", method="PUT").text == "PUT /x request-1"
    assert Seen.events[0].startswith("mesh-user-def")


def test_failures_end_the_call_with_a_status(plain: WebReplica, caplog: pytest.LogCaptureFixture) -> None:
    """The gateway answers with 500, and the log of the replica has the reason (items 114, 144)."""
    outcome = plain.start(path="/broken").ended()
    assert (outcome.code, outcome.message) == (INTERNAL, "ValueError: no such number")
    until(lambda: "no such number" in caplog.text, "the log")
    assert "A value of type object has no JSON form" in plain.start(path="/unknown").ended().message
    assert "NaN and infinity have no JSON form" in plain.start(path="/not_a_number").ended().message


def test_a_function_that_asks_an_empty_iterator_fails_its_call(threaded: WebReplica) -> None:
    """It may have no StopIteration for the event loop that waits: the call would never end (item 114)."""
    outcome = threaded.start(path="/empty").ended()
    assert (outcome.code, outcome.message) == (INTERNAL, "RuntimeError: Threaded.__call__ raised StopIteration")


def test_a_client_that_leaves_cancels(plain: WebReplica) -> None:
    call = plain.start(path="/hang")
    call.leave()
    assert call.ended().code == CANCELLED


def test_a_thread_keeps_the_place_of_its_call_until_it_returns(threaded: WebReplica) -> None:
    """It cannot be interrupted; another call in its place would wait for a thread, beside replicas that are free."""
    call = threaded.start(path="/blocks")
    until(lambda: bool(Seen.events), "the thread")
    call.leave()
    assert threaded.ask("/x").text == "GET /x request-1"
    assert call.answers.outcome is None
    threaded.object.target.gate.set()
    assert call.ended().code == CANCELLED


def test_websockets_are_refused(plain: WebReplica) -> None:
    call = plain.connect("/")
    assert call.ended().is_ok
    assert [event.WhichOneof("kind") for event in call.events()] == ["close"]


async def async_function(request: Request) -> str:
    return f"async {request.method}"


def sync_function(request: Request) -> str:
    return f"sync {request.method}"


def no_parameters() -> dict[str, int]:
    return {"a": 1}


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (async_function, "async GET"),
        (sync_function, "sync GET"),
        (no_parameters, '{"a":1}'),
        (lambda *args: len(args), "1"),
    ],
)
def test_functions_are_deployments(function: Any, text: str) -> None:
    """The request is only passed where there is a parameter for it (item 27)."""
    with web_replica(function) as replica:
        assert replica.ask("/").text == text
