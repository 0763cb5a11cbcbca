"""Applications of FastAPI and of streams as the documentation of Ray Serve describes them, with one import changed.

The same tests run in local testing mode, see tests/unit/local/test_local_ray_docs_apps.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any

import httpx
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from starlette.requests import Request as StarletteRequest
from starlette.responses import StreamingResponse
from websockets.sync.client import connect

import mesh as serve
from tests.e2e.leaving import leave_when
from tests.e2e.ray_docs import DEADLINE_S, Run, get, post
from tests.e2e.waiting import until

# ---- Quick start of the index page: FastAPI and a message ------------------------------------------------------------

greeter_app = FastAPI()


@serve.deployment
@serve.ingress(greeter_app)
class MyFastAPIDeployment:
    @greeter_app.get("/hello")
    def say_hello(self, name: str) -> str:
        return f"Hello {name}!"


@serve.deployment
class MyModelDeployment:
    def __init__(self, msg: str) -> None:
        self._msg = msg

    def __call__(self) -> dict[str, str]:
        return {"result": self._msg}


def test_hello_world(run: Run) -> None:
    _, url = run(MyFastAPIDeployment.bind())
    assert get(f"{url}/hello", params={"name": "Theodore"}).json() == "Hello Theodore!"
    _, url = run(MyModelDeployment.bind(msg="Hello world!"), "hello")
    assert get(url).json() == {"result": "Hello world!"}


# ---- HTTP guide: streams, disconnects, WebSockets --------------------------------------------------------------------


@serve.deployment
class StreamingResponder:
    def generate_numbers(self, max: int) -> Generator[str, None, None]:
        for i in range(max):
            yield str(i)
            time.sleep(0.01)

    def __call__(self, request: StarletteRequest) -> StreamingResponse:
        max = request.query_params.get("max", "25")
        return StreamingResponse(self.generate_numbers(int(max)), status_code=200, media_type="text/plain")


def test_an_http_stream(run: Run) -> None:
    """Pieces arrive one by one (item 112)."""
    _, url = run(StreamingResponder.bind())
    with httpx.stream("GET", f"{url}/?max=10", timeout=DEADLINE_S, trust_env=False) as r:
        r.raise_for_status()
        chunks = list(r.iter_text())
    assert "".join(chunks) == "0123456789"
    assert len(chunks) > 1


@serve.deployment
class Snoring:
    def __init__(self) -> None:
        self.log: list[str] = []

    async def snore(self) -> None:
        await asyncio.sleep(1.5)
        self.log.append("shielded work is done")

    async def __call__(self, request: StarletteRequest) -> str:
        self.log.append("asleep")
        try:
            await asyncio.shield(self.snore())
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.log.append("the client left")
            raise
        return "never"

    async def logged(self) -> list[str]:
        return self.log


def test_a_client_that_leaves(run: Run) -> None:
    """A request is cancelled with its client, shielded work is not (item 207)."""
    handle, url = run(Snoring.bind())

    def logged() -> list[str]:
        return sorted(handle.logged.remote().result(timeout_s=DEADLINE_S))

    leave_when(lambda: "asleep" in logged(), "GET", url)
    until(lambda: len(logged()) > 2, timeout_s=DEADLINE_S)
    assert logged() == ["asleep", "shielded work is done", "the client left"]


socket_app = FastAPI()


@serve.deployment
@serve.ingress(socket_app)
class EchoServer:
    @socket_app.websocket("/")
    async def echo(self, ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                text = await ws.receive_text()
                await ws.send_text(text)
        except WebSocketDisconnect:
            pass


def test_a_websocket_echo(run: Run) -> None:
    _, url = run(EchoServer.bind())
    with connect(f"{url.replace('http', 'ws', 1)}/", proxy=None, open_timeout=DEADLINE_S) as websocket:
        websocket.send("Message")
        assert websocket.recv(timeout=DEADLINE_S) == "Message"


error_app = FastAPI()


class MaxSizeError(Exception):
    pass


@error_app.exception_handler(MaxSizeError)
async def too_large(request: Request, error: MaxSizeError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 413)


@serve.deployment
@serve.ingress(error_app)
class Uploads:
    @error_app.post("/")
    async def upload(self, request: Request) -> int:
        body = await request.body()
        if len(body) > 10:
            raise MaxSizeError("too large")
        return len(body)


def test_handlers_of_exceptions(run: Run) -> None:
    _, url = run(Uploads.bind())
    assert post(f"{url}/", content=b"12345").json() == 5
    refused = post(f"{url}/", content=b"1" * 11)
    assert (refused.status_code, refused.json()) == (413, {"error": "too large"})


# ---- Streaming tutorial: a text generator, a chat, batches of streams ------------------------------------------------

text_app = FastAPI()


@serve.deployment
@serve.ingress(text_app)
class Textbot:
    def __init__(self, reply: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.reply = reply

    @text_app.post("/")
    def handle_request(self, prompt: str) -> StreamingResponse:
        return StreamingResponse(self.consume(prompt), media_type="text/plain")

    async def consume(self, prompt: str) -> AsyncGenerator[str, None]:
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.loop.run_in_executor(None, self.generate, prompt, queue)
        while (token := await queue.get()) is not None:
            yield token

    def generate(self, prompt: str, queue: asyncio.Queue[str | None]) -> None:
        for word in (*prompt.split(), *self.reply.split()):
            self.loop.call_soon_threadsafe(queue.put_nowait, f"{word} ")
        self.loop.call_soon_threadsafe(queue.put_nowait, None)


def test_a_text_bot_that_streams_from_a_thread(run: Run) -> None:
    """The constructor runs on the loop of the requests (item 147)."""
    _, url = run(Textbot.bind("fine, thanks"))
    assert post(f"{url}/?prompt=how are you").text == "how are you fine, thanks "


batch_app = FastAPI()


@serve.deployment
@serve.ingress(batch_app)
class Batchbot:
    @batch_app.post("/")
    async def handle_request(self, prompt: str) -> StreamingResponse:
        return StreamingResponse(self.run_model(prompt), media_type="text/plain")

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=1)
    async def run_model(self, prompts: list[str]) -> AsyncGenerator[list[Any], None]:
        words = [prompt.split() for prompt in prompts]
        for number in range(max(map(len, words))):
            yield [each[number] + " " if number < len(each) else StopIteration for each in words]


def test_batches_of_streams(run: Run) -> None:
    """Shorter answers of a batch end first (item 138)."""
    _, url = run(Batchbot.bind())

    async def ask() -> list[str]:
        async with httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False) as client:
            prompts = ("one two three", "four")
            answers = await asyncio.gather(*(client.post(f"{url}/", params={"prompt": each}) for each in prompts))
            return [each.text for each in answers]

    assert asyncio.run(ask()) == ["one two three ", "four "]
