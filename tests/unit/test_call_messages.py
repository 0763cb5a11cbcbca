"""Mistakes in calls and in the code of replicas, each with the message that says what to write instead."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest.mock import Mock

import pytest

import mesh
from examples.weather import weather_pb2_grpc
from mesh.caller.response import DeploymentResponse, DeploymentResponseGenerator
from mesh.context import ReplicaContext, set_replica_context
from mesh.exceptions import DeploymentUnavailableError, MeshException, ReplicaUnavailableError, UnserializableError
from mesh.replica.method_codecs import ProtobufCodec
from mesh.replica.user_methods import MethodTable
from mesh.testing import RunMeshApp
from mesh.usercode.served_methods import typed_methods
from mesh.wire.payload import encode
from tests.unit.fakes.mesh_fakes import FakeCluster


class Plain:
    """A class without a constructor."""


@mesh.deployment
class Shop:
    def __init__(self, size: int = 1) -> None:
        self.size = size

    def sell(self) -> int:
        return self.size


def test_an_unknown_http_option_is_ignored_with_a_warning(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the original API, but not silently (item 54)."""
    with caplog.at_level(logging.WARNING, "mesh"):
        mesh.start(http_options={"prot": 8001})
    assert caplog.messages == ["ignored: http_options['prot'] is unknown. Did you mean 'port'?"]


def test_a_deployment_of_an_application_that_is_not_there(cluster: FakeCluster) -> None:
    mesh.run(Shop.bind())
    with pytest.raises(KeyError) as caught:
        mesh.get_deployment_handle("Shop", "deflt")
    assert caught.value.args == ("Application 'deflt' of deployment 'Shop' does not exist. Did you mean 'default'?",)


def test_an_application_in_the_place_of_its_deployment(cluster: FakeCluster) -> None:
    mesh.run(Shop.bind())
    with pytest.raises(KeyError, match="'default' is an application: the name of the deployment comes first"):
        mesh.get_deployment_handle("default", "Shop")


def test_a_deployment_that_is_not_there(cluster: FakeCluster) -> None:
    mesh.run(Shop.bind())
    with pytest.raises(KeyError) as caught:
        mesh.get_deployment_handle("Shopp", "default")
    assert caught.value.args == ("Deployment 'Shopp' of application 'default' does not exist. Did you mean 'Shop'?",)


def test_a_method_that_is_not_there() -> None:
    """The message names the deployment (item 26)."""
    set_replica_context(ReplicaContext("default", "Shop", "r1"))
    try:
        with pytest.raises(MeshException) as caught:
            MethodTable(Shop.func_or_class(), {}).find("sel")
    finally:
        set_replica_context(None)
    assert str(caught.value) == (
        "Tried to call a method 'sel' that does not exist in deployment 'Shop' of application 'default'. "
        "Available methods: ['sell']. Did you mean 'sell'?"
    )


def test_a_response_shows_how_to_get_what_it_stands_for() -> None:
    """Where `await` was forgotten, and the response is printed or logged."""
    waiting = Mock(outcome=None)
    assert repr(DeploymentResponse(waiting, "r-1")) == (
        "<DeploymentResponse of request r-1, in progress: await it, or ask for its result()>"
    )
    assert repr(DeploymentResponseGenerator(Mock(), "r-1")) == (
        "<DeploymentResponseGenerator of request r-1, completed: iterate over it with `for` or `async for`>"
    )


@mesh.deployment
class Careless:
    @mesh.batch(max_batch_size=2, batch_wait_timeout_s=10)
    async def halve(self, numbers: list[int]) -> object:
        return numbers[0] if numbers[0] < 0 else numbers[:1]

    async def count(self) -> AsyncIterator[int]:
        yield 1

    def one(self) -> int:
        return 1


def test_a_mistake_in_a_call(mesh_app: RunMeshApp) -> None:
    """At run time, as the caller reads it."""
    handle: mesh.DeploymentHandle[Any] = mesh_app(Careless.bind()).handle

    def says(error: type[Exception], call: Callable[[], Any]) -> str:
        with pytest.raises(error) as caught:
            call()
        return str(caught.value)

    async def two(number: int) -> None:
        await asyncio.gather(handle.halve.remote(number), handle.halve.remote(number))

    async def result_in_a_loop() -> None:
        handle.one.remote().result()

    async def await_a_stream() -> None:
        await handle.count.options(stream=True).remote()

    batch = "Batched function doesn't preserve batch size: calls: 2, "
    one_each = ". Return a list with one entry per call, in their order."
    assert says(MeshException, lambda: asyncio.run(two(1))) == f"{batch}results: 1{one_each}"
    assert says(MeshException, lambda: asyncio.run(two(-1))) == f"{batch}the result: one int{one_each}"
    assert says(MeshException, lambda: handle.won.remote().result(timeout_s=10)) == (
        "Tried to call a method 'won' that does not exist in deployment 'Careless' of application 'default'. "
        "Available methods: ['count', 'halve', 'one']. Did you mean 'one'?"
    )
    assert says(TypeError, lambda: handle.one.remote().result(timeout_s="10")) == (
        "timeout_s must be a number of seconds or None, got '10'."
    )
    assert says(TypeError, lambda: handle.one.remote(2).result(timeout_s=10)) == (
        "Careless.one() takes 1 positional argument but 2 were given"
    )
    assert says(TypeError, lambda: handle.count.remote().result(timeout_s=10)) == (
        "Method 'count' returned a generator. You must use `handle.options(stream=True)` to call generators on a "
        "deployment."
    )
    assert says(TypeError, lambda: list(handle.one.options(stream=True).remote())) == (
        "Method 'one' was called with `stream=True`, but it did not return a generator. Use `yield`, or call it "
        "without `stream=True`."
    )
    assert says(RuntimeError, lambda: asyncio.run(result_in_a_loop())) == (
        "Sync methods should not be called from within an `asyncio` event loop. Use `await response` (or `async for` "
        "on a generator) instead."
    )
    assert says(TypeError, lambda: asyncio.run(await_a_stream())).startswith(
        "A DeploymentResponseGenerator cannot be awaited. Use `async for`"
    )
    assert says(TypeError, lambda: handle.count.options(stream=True).remote().result()) == (
        "A streaming response has no single result. Iterate over it with `for` or `async for`."
    )


async def halves(count: int) -> AsyncIterator[float]:
    for _ in range(count):
        yield 0.5


async def half() -> float:
    return 0.5


def test_an_await_that_is_missing_in_a_method() -> None:
    """Its result is then a coroutine, which cannot travel; so is a generator that was not iterated over."""

    def says(error: type[Exception], call: Callable[[], Any]) -> str:
        with pytest.raises(error) as caught:
            call()
        return str(caught.value)

    service = type("Weather", (weather_pb2_grpc.WeatherServicer,), {"Forecast": half})
    unawaited, forecast = half(), typed_methods(service)["/weather.Weather/Forecast"]
    assert says(UnserializableError, lambda: encode(unawaited, "result")) == (
        "The result cannot be pickled: cannot pickle 'coroutine' object. Await half where it is called."
    )
    assert says(TypeError, lambda: ProtobufCodec(forecast).write_result(unawaited)) == (
        "'/weather.Weather/Forecast' answered with a coroutine, not with its response message. Await it before it is "
        "returned."
    )
    unawaited.close()
    assert says(UnserializableError, lambda: encode(halves(2), "result")) == (
        "The result cannot be pickled: cannot pickle 'async_generator' object. Make a list of what halves yields, or "
        "`yield` its items."
    )


@pytest.mark.parametrize(("answer", "what"), [({"celsius": 20.0}, "a dict"), (None, "None")])
def test_an_answer_that_is_no_message_of_the_service(answer: object, what: str) -> None:
    service = type("Weather", (weather_pb2_grpc.WeatherServicer,), {"Forecast": half})
    codec = ProtobufCodec(typed_methods(service)["/weather.Weather/Forecast"])
    with pytest.raises(TypeError) as caught:
        codec.write_result(answer)
    assert str(caught.value) == (
        f"'/weather.Weather/Forecast' answered with {what}, not with its response message. Return the message of the "
        ".proto."
    )


class Failing:
    def __init__(self) -> None:
        raise ValueError("no stock")


class Exiting:
    def __init__(self) -> None:
        sys.exit(3)


def test_a_mistake_that_a_start_finds(mesh_app: RunMeshApp) -> None:
    failed = "Deployment '{}' of application 'default' failed to start: "
    with pytest.raises(RuntimeError) as caught:
        mesh_app(mesh.deployment(Failing).bind())
    assert str(caught.value) == f"{failed.format('Failing')}ValueError: no stock"
    with pytest.raises(RuntimeError) as caught:
        mesh_app(mesh.deployment(Exiting).bind())
    assert str(caught.value) == f"{failed.format('Exiting')}SystemExit: 3"
    with pytest.raises(RuntimeError) as caught:
        mesh_app(mesh.deployment(Plain, user_config={"size": 1}).bind())
    assert str(caught.value) == (
        f"{failed.format('Plain')}MeshException: user_config was given, but Plain has no method "
        "`reconfigure(self, config)`."
    )
    with pytest.raises(TypeError) as misspelt:
        mesh_app(Shop.bind(), nme="shop")  # type: ignore[call-arg]
    assert str(misspelt.value) == "mesh_app() got an unexpected keyword argument 'nme'. Did you mean 'name'?"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            DeploymentUnavailableError("shop#Front", "Application 'shop' does not exist."),
            "Deployment 'Front' of application 'shop' is unavailable: Application 'shop' does not exist. See `mesh "
            "status` for why it failed, then deploy it again.",
        ),
        (
            ReplicaUnavailableError("r1", "its connection broke (Socket closed)"),
            "Replica r1 is unavailable: its connection broke (Socket closed). The call may have been executed; retry "
            "it only if it is idempotent.",
        ),
        (
            ReplicaUnavailableError("r1", "UNAUTHENTICATED: wrong token"),
            "Replica r1 is unavailable: UNAUTHENTICATED: wrong token. The call may have been executed; retry it only "
            "if it is idempotent.",
        ),
    ],
)
def test_what_a_client_reads(error: MeshException, message: str) -> None:
    assert str(error) == message
