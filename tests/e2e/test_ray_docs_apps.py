"""Applications as the documentation of Ray Serve describes them, rewritten: one import is changed, and they run.

Those that speak HTTP in other ways than by plain requests are in test_ray_docs_web.py.
The same tests run in local testing mode, see tests/unit/local/test_local_ray_docs_apps.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request as StarletteRequest

import mesh as serve
from mesh.exceptions import BackPressureError, RayServeException, RequestCancelledError
from mesh.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator
from tests.e2e.ray_docs import DEADLINE_S, Run, get, post

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
        running.result(timeout_s=1)
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
