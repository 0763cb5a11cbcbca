"""Applications as the documentation of Ray Serve describes them, rewritten: one import is changed, and they run.

The same tests run in local testing mode, see tests/unit/local/test_local_ray_docs_apps.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from starlette.requests import Request as StarletteRequest
from starlette.responses import StreamingResponse
from websockets.sync.client import connect

import mesh as serve
from mesh.exceptions import BackPressureError, RayServeException, RequestCancelledError
from mesh.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator
from tests.e2e.conftest import Gateway
from tests.e2e.waiting import until

URL = str
Run = Callable[..., tuple[DeploymentHandle, URL]]
DEADLINE_S = 20.0


@pytest.fixture
def run(gateway: Gateway) -> Iterator[Run]:
    """`serve.run` for one test; gives the handle, and the URL of the route prefix."""
    with ExitStack() as stack:

        def run(target: serve.Application, name: str = "documented", **options: Any) -> tuple[DeploymentHandle, URL]:
            stack.callback(serve.delete, name)
            handle = serve.run(target, name=name, route_prefix=f"/{name}", **options)
            return handle, f"{gateway.http_url}/{name}"

        yield run


def get(url: str, **options: Any) -> httpx.Response:
    return httpx.get(url, timeout=DEADLINE_S, trust_env=False, **options)


def post(url: str, **options: Any) -> httpx.Response:
    return httpx.post(url, timeout=DEADLINE_S, trust_env=False, **options)


# ---- Getting started: a translator behind a summarizer ---------------------------------------------------------------


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.2, "num_gpus": 0})
class Translator:
    def __init__(self) -> None:
        self.words = {"hello": "bonjour", "world": "monde"}

    def translate(self, text: str) -> str:
        return " ".join(self.words.get(word, word) for word in text.split())


@serve.deployment
class Summarizer:
    def __init__(self, translator: DeploymentHandle) -> None:
        self.translator = translator

    def summarize(self, text: str) -> str:
        return " ".join(text.split()[:2])

    async def __call__(self, http_request: StarletteRequest) -> str:
        english_text: str = await http_request.json()
        summary = self.summarize(english_text)
        return await self.translator.translate.remote(summary)


def test_the_quick_start_with_two_models(run: Run) -> None:
    _, url = run(Summarizer.bind(Translator.bind()))
    answer = post(url, json="hello world and all others")
    assert answer.text == "bonjour monde"
    assert answer.headers["content-type"].startswith("text/plain")


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


# ---- Model composition: chains, dynamic choice, streaming ------------------------------------------------------------


@serve.deployment
class Adder:
    def __init__(self, increment: int) -> None:
        self._increment = increment

    def __call__(self, val: int) -> int:
        return self._increment + val


@serve.deployment
class Multiplier:
    def __init__(self, multiple: int) -> None:
        self._multiple = multiple

    def __call__(self, val: int) -> int:
        return self._multiple * val


@serve.deployment
class Chain:
    def __init__(self, adder: DeploymentHandle, multiplier: DeploymentHandle) -> None:
        self._adder = adder
        self._multiplier = multiplier

    async def __call__(self, input: int) -> int:
        adder_response: DeploymentResponse = self._adder.remote(input)
        return await self._multiplier.remote(adder_response)

    async def all(self, inputs: list[int]) -> list[int]:
        return await asyncio.gather(*[self._adder.remote(each) for each in inputs])


def test_a_chain_of_responses(run: Run) -> None:
    """A response is passed on before it is there (item 29)."""
    handle, _ = run(Chain.bind(Adder.bind(increment=1), Multiplier.bind(multiple=2)))
    assert handle.remote(5).result(timeout_s=DEADLINE_S) == 12
    assert handle.all.remote([1, 2, 3]).result(timeout_s=DEADLINE_S) == [2, 3, 4]


@serve.deployment
class Streamer:
    def __call__(self, limit: int) -> Generator[int, None, None]:
        yield from range(limit)


@serve.deployment
class StreamCaller:
    def __init__(self, streamer: DeploymentHandle) -> None:
        self._streamer = streamer.options(stream=True)

    async def __call__(self, limit: int) -> AsyncGenerator[int, None]:
        r: DeploymentResponseGenerator = self._streamer.remote(limit)
        async for i in r:
            yield i


def test_streams_between_deployments(run: Run) -> None:
    """A generator answers a generator (items 42, 47)."""
    handle, _ = run(StreamCaller.bind(Streamer.bind()))
    r: DeploymentResponseGenerator = handle.options(stream=True).remote(10)
    assert list(r) == list(range(10))


@serve.deployment
class Router:
    def __init__(self, models: list[DeploymentHandle]) -> None:
        self.models = models

    async def __call__(self, request: StarletteRequest) -> int:
        val = (await request.json())["input"]
        return await self.models[val % len(self.models)].remote(val)


def test_dynamic_choice_between_models(run: Run) -> None:
    """Handles may be in a list (item 96)."""
    _, url = run(Router.bind([Adder.bind(100), Multiplier.bind(100)]))
    assert [post(url, json={"input": each}).json() for each in (2, 3)] == [102, 300]


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
        await asyncio.sleep(0.2)
        self.log.append("shielded work is done")

    async def __call__(self, request: StarletteRequest) -> str:
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
    with pytest.raises(httpx.TimeoutException):
        httpx.get(url, timeout=0.1, trust_env=False)
    both = ["shielded work is done", "the client left"]
    until(lambda: sorted(handle.logged.remote().result(timeout_s=DEADLINE_S)) == both, timeout_s=DEADLINE_S)


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


# ---- Batching guide --------------------------------------------------------------------------------------------------


@serve.deployment
class BatchModel:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def reconfigure(self, config: dict[str, Any]) -> None:
        self.handle_batch.set_max_batch_size(config["max_batch_size"])
        self.handle_batch.set_batch_wait_timeout_s(config["batch_wait_timeout_s"])

    @serve.batch
    async def handle_batch(self, numbers: list[int], factors: list[int]) -> list[int]:
        self.sizes.append(len(numbers))
        return list((np.array(numbers) * np.array(factors)).tolist())

    async def __call__(self, number: int) -> int:
        return await self.handle_batch(number, factors=2)

    async def seen(self) -> int:
        return max(self.sizes)


def test_batches_of_several_arguments(run: Run) -> None:
    """Each argument becomes a list, and `reconfigure` sets the sizes (items 85, 134, 140)."""
    config = {"max_batch_size": 4, "batch_wait_timeout_s": 0.5}
    handle, _ = run(BatchModel.options(user_config=config, max_ongoing_requests=20).bind())
    responses = [handle.remote(i) for i in range(9)]
    assert [r.result(timeout_s=DEADLINE_S) for r in responses] == [2 * i for i in range(9)]
    assert handle.seen.remote().result(timeout_s=DEADLINE_S) == 4


# ---- Multiplexing guide ----------------------------------------------------------------------------------------------


@serve.deployment
class ModelInferencer:
    @serve.multiplexed(max_num_models_per_replica=3)
    async def get_model(self, model_id: str) -> Callable[[str], str]:
        return lambda text: f"{model_id}: {text}"

    async def __call__(self, request: StarletteRequest) -> str:
        model_id = serve.get_multiplexed_model_id()
        model = await self.get_model(model_id)
        return model(request.query_params["text"])

    async def predict(self, text: str) -> str:
        return (await self.get_model(serve.get_multiplexed_model_id()))(text)


@serve.deployment
class Downstream:
    def __init__(self, models: DeploymentHandle) -> None:
        self.models = models

    async def __call__(self, model_id: str, text: str) -> str:
        return await self.models.options(multiplexed_model_id=model_id).predict.remote(text)


def test_multiplexed_models(run: Run) -> None:
    """They are named by a header, or by an option of the handle (items 119, 124)."""
    handle, url = run(ModelInferencer.bind())
    assert get(url, params={"text": "hi"}, headers={"serve_multiplexed_model_id": "1"}).text == "1: hi"
    response = handle.options(multiplexed_model_id="2", method_name="predict").remote("hi")
    assert response.result(timeout_s=DEADLINE_S) == "2: hi"
    handle, _ = run(Downstream.bind(ModelInferencer.bind()), "downstream")
    assert handle.remote("7", "ho").result(timeout_s=DEADLINE_S) == "7: ho"


# ---- App builder guide -----------------------------------------------------------------------------------------------


@serve.deployment
class HelloWorld:
    def __init__(self, message: str) -> None:
        self._message = message

    def __call__(self, request: StarletteRequest) -> str:
        return self._message


def app_builder(args: dict[str, str]) -> serve.Application:
    return HelloWorld.options(num_replicas=1).bind(args["message"])


def test_an_application_from_a_builder(run: Run) -> None:
    _, url = run(app_builder({"message": "Hello from CLI!"}))
    assert get(url).text == "Hello from CLI!"


# ---- Asyncio best practices, request cancellation and errors of handles ----------------------------------------------


@serve.deployment(max_ongoing_requests=1, max_queued_requests=1)
class SlowDeployment:
    def __init__(self) -> None:
        self.started = 0

    async def __call__(self, seconds: float) -> str:
        self.started += 1
        await asyncio.sleep(seconds)
        return "Hello!"

    async def fail(self) -> None:
        raise ValueError("on purpose")


def test_load_shedding_and_cancels(run: Run) -> None:
    """A full queue refuses, a timeout leaves the call running, a cancel ends it (items 24, 33, 142)."""
    handle, _ = run(SlowDeployment.bind())
    running = handle.remote(60)
    with pytest.raises(TimeoutError):
        running.result(timeout_s=0.2)
    queued = handle.remote(0)
    with pytest.raises(BackPressureError):
        handle.remote(0).result(timeout_s=DEADLINE_S)
    running.cancel()
    with pytest.raises(RequestCancelledError):
        running.result(timeout_s=DEADLINE_S)
    assert queued.result(timeout_s=DEADLINE_S) == "Hello!"
    with pytest.raises(ValueError, match="on purpose"):
        handle.fail.remote().result(timeout_s=DEADLINE_S)
    with pytest.raises(RayServeException, match="Available methods"):
        handle.nothing.remote().result(timeout_s=DEADLINE_S)


# ---- Custom metrics, logging and the context of a replica ------------------------------------------------------------


@serve.deployment
class MyDeployment:
    def __init__(self) -> None:
        self.num_requests = 0
        self.my_counter = serve.metrics.Counter(
            "my_documented_counter", description="The number of odd-numbered requests.", tag_keys=("model",)
        )
        self.my_counter.set_default_tags({"model": "123"})

    def __call__(self) -> dict[str, str]:
        self.num_requests += 1
        if self.num_requests % 2 == 1:
            self.my_counter.inc()
        context = serve.get_replica_context()
        return {"app": context.app_name, "deployment": context.deployment}


def test_metrics_and_context(run: Run) -> None:
    handle, _ = run(MyDeployment.bind())
    assert handle.remote().result(timeout_s=DEADLINE_S) == {"app": "documented", "deployment": "MyDeployment"}


# ---- Stateful: reconfigure and health checks -------------------------------------------------------------------------


@serve.deployment(user_config={"threshold": 0.5}, health_check_period_s=10, health_check_timeout_s=30)
class Model:
    def __init__(self) -> None:
        self.cache: dict[str, int] = defaultdict(int)
        self.directory = tempfile.mkdtemp()

    def reconfigure(self, config: dict[str, Any]) -> None:
        self.threshold = config["threshold"]

    def check_health(self) -> None:
        if not os.path.isdir(self.directory):
            raise RuntimeError("the directory is gone")

    def __call__(self, x: float) -> bool:
        self.cache["calls"] += 1
        return x > self.threshold

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            Path(self.directory).rmdir()


def test_a_threshold_from_the_user_config(run: Run) -> None:
    handle, _ = run(Model.bind())
    assert [handle.remote(x).result(timeout_s=DEADLINE_S) for x in (0.4, 0.6)] == [False, True]
