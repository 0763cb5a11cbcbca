"""Mistakes that users make, each with the message that says what is wrong, where, and what to write instead."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

import mesh
from examples.weather import weather_pb2_grpc
from mesh.caller.response import DeploymentResponse, DeploymentResponseGenerator
from mesh.cli import main
from mesh.context import ReplicaContext, set_replica_context
from mesh.declarative import compose, import_path
from mesh.declarative.config_file import read_config
from mesh.declarative.yaml_positions import ConfigError
from mesh.exceptions import (
    DeploymentUnavailableError,
    MeshException,
    ReplicaUnavailableError,
    UnserializableError,
)
from mesh.replica.method_codecs import ProtobufCodec
from mesh.replica.user_methods import MethodTable
from mesh.testing import FakeHandle, RunMeshApp, grpc_context, replica_context
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


def options(**given: object) -> object:
    return mesh.deployment(**given)(Plain)  # type: ignore[call-overload]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    cluster.attach(monkeypatch)
    return cluster


@mesh.deployment
async def tax(price: float) -> float:
    return price


HANDLE: mesh.DeploymentHandle[Any] = mesh.DeploymentHandle("Shop", "default")


def batched() -> object:
    return mesh.batch(max_batch=8)


def multiplexed() -> object:
    return mesh.multiplexed(max_models=3)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (batched, "batch() got an unexpected keyword argument 'max_batch'. Did you mean 'max_batch_size'?"),
        (
            multiplexed,
            "multiplexed() got an unexpected keyword argument 'max_models'. There are: func, "
            "max_num_models_per_replica, max_bytes_per_replica, model_size_fn, preload, aliases, min_copies.",
        ),
        (
            lambda: mesh.run(Shop.bind(), nme="x"),
            "run() got an unexpected keyword argument 'nme'. Did you mean 'name'?",
        ),
        (
            lambda: mesh.start(proxy_locaton="HeadOnly"),
            "start() got an unexpected keyword argument 'proxy_locaton'. Did you mean 'proxy_location'?",
        ),
        (
            lambda: mesh.start(external_scaler_enabled=True),
            "start() got an unexpected keyword argument 'external_scaler_enabled'. It is an option of Ray Serve that "
            "the mesh does not have. Leave it out: give each deployment that is scaled external_scaler in its "
            "autoscaling_config.",
        ),
        (
            lambda: mesh.run_many([Shop.bind()]),  # type: ignore[list-item]
            "mesh.run_many takes RunTargets: write mesh.RunTarget(app, name=...), not Application(deployment='Shop').",
        ),
        (
            lambda: replica_context(model_id="a"),
            "replica_context() got an unexpected keyword argument 'model_id'. There are: app_name, deployment, "
            "replica_id, multiplexed_model_id, request_id, timeout_s.",
        ),
        (
            lambda: grpc_context(timeout=3),
            "grpc_context() got an unexpected keyword argument 'timeout'. Did you mean 'timeout_s'?",
        ),
        (
            lambda: HANDLE.options(timeout=3),
            "DeploymentHandle.options() got an unexpected keyword argument 'timeout'. Did you mean 'timeout_s'?",
        ),
        (
            lambda: mesh.AutoscalingConfig(max_replica=3),
            "AutoscalingConfig() got an unexpected keyword argument 'max_replica'. Did you mean 'max_replicas'?",
        ),
        (
            lambda: mesh.RunTarget(Shop.bind(), nam="x"),
            "RunTarget() got an unexpected keyword argument 'nam'. Did you mean 'name'?",
        ),
        (
            lambda: mesh.llm,
            "module 'mesh' has no attribute 'llm', which Ray Serve has. Instead: load the model in a deployment of "
            "your own.",
        ),
        (lambda: mesh.deploy, "module 'mesh' has no attribute 'deploy'. Did you mean 'deployment'?"),
        (
            lambda: Shop.remote(),
            "'Deployment' object has no attribute 'remote': it does not run yet. Write handle = "
            "mesh.run(deployment.bind(...)), then handle.remote(...)",
        ),
        (
            lambda: Shop.sell,
            "'Deployment' object has no attribute 'sell'. The decorated class has it: write "
            "deployment.func_or_class.sell",
        ),
        (
            lambda: Shop.bind().remote(),
            "'Application' object has no attribute 'remote': it does not run yet. Write handle = mesh.run(app), then "
            "handle.remote(...)",
        ),
        (
            lambda: mesh.exceptions.BackpressureError,
            "module 'mesh.exceptions' has no attribute 'BackpressureError'. Did you mean 'BackPressureError'?",
        ),
        (
            lambda: list(DeploymentResponse(Mock(), "id")),
            "A DeploymentResponse is one value: await it, or ask for its result(). For `for` over the items of a "
            "generator, call it through handle.options(stream=True).",
        ),
        (
            lambda: aiter(DeploymentResponse(Mock(), "id")),
            "A DeploymentResponse is one value: await it, or ask for its result(). For `async for` over the items of a "
            "generator, call it through handle.options(stream=True).",
        ),
        (
            lambda: HANDLE(1),
            "A handle is not called like a function: write handle.remote(...), which returns a response to await or to "
            "ask for its result().",
        ),
        (
            lambda: HANDLE.sell(1),
            "A handle is not called like a function: write handle.sell.remote(...), which returns a response to await "
            "or to ask for its result().",
        ),
        (
            lambda: Shop.bind(1, 2),
            "Shop.bind(): too many positional arguments. The constructor takes (size=1).",
        ),
        (
            lambda: Shop.bind(sise=1),
            "Shop.bind(): got an unexpected keyword argument 'sise'. The constructor takes (size=1).",
        ),
        (
            lambda: mesh.deployment(Plain).bind(1),
            "Plain.bind(): too many positional arguments. The constructor takes ().",
        ),
        (lambda: tax.bind(1), "tax is a function: it has no constructor, so .bind() takes no arguments."),
        (
            lambda: mesh.run(Shop.bind({"lock": threading.Lock()})),
            "The arguments bound to Shop cannot be pickled, so no replica can get it: TypeError: cannot pickle "
            "'_thread.lock' object (found at: argument 1 -> ['lock']). Create what cannot travel (locks, sockets, "
            "clients) in the constructor instead.",
        ),
        (lambda: options(num_replica=2), "num_replica is unknown. Did you mean 'num_replicas'?"),
        (
            lambda: Shop.options(graceful_shutdown_timeout=2),  # type: ignore[call-arg]
            "graceful_shutdown_timeout is unknown. Did you mean 'graceful_shutdown_timeout_s'?",
        ),
        (
            lambda: options(request_router_config={}),
            'request_router_config needs "request_router_class": a class, or its import path.',
        ),
        (
            lambda: options(gang_scheduling_config={}),
            "gang_scheduling_config is an option of Ray Serve that the mesh does not have. Leave it out: use "
            "placement_group_bundles for what one replica needs together.",
        ),
        (
            lambda: options(ray_actor_options={"runtime_env": {"env_var": {"A": "1"}}}),
            "ray_actor_options['runtime_env']['env_var'] is unknown. Did you mean 'env_vars'?",
        ),
        (
            lambda: options(ray_actor_options={"runtime_env": {"env_vars": {"A": 1}}}),
            "ray_actor_options['runtime_env']['env_vars']['A'] must be a string, got 1: put it into quotes.",
        ),
        (lambda: options(num_replicas="2"), "num_replicas must be an integer or \"auto\", got '2'."),
        (lambda: options(num_replicas=-1), "num_replicas must be at least 1, got -1."),
        (lambda: options(num_replicas=2.5), "num_replicas must be an integer, got 2.5."),
        (lambda: options(max_ongoing_requests=0), "max_ongoing_requests must be at least 1, got 0."),
        (lambda: options(max_ongoing_requests=True), "max_ongoing_requests must be an integer, got True."),
        (lambda: options(health_check_timeout_s="30s"), "health_check_timeout_s must be a number, got '30s'."),
        (lambda: options(health_check_period_s=-1), "health_check_period_s must be more than 0, got -1."),
        (
            lambda: options(ray_actor_options={"num_cpu": 1}),
            "ray_actor_options['num_cpu'] is unknown. Did you mean 'num_cpus'?",
        ),
        (
            lambda: options(ray_actor_options={"num_cpus": "one"}),
            "ray_actor_options['num_cpus'] must be a number, got 'one'.",
        ),
        (lambda: options(ray_actor_options=[1]), "ray_actor_options must be a dict, got list."),
        (
            lambda: options(autoscaling_config={"min_replica": 1}),
            "autoscaling_config['min_replica'] is unknown. Did you mean 'min_replicas'?",
        ),
        (
            lambda: options(autoscaling_config={"min_replicas": 3, "max_replicas": 1}),
            "max_replicas (1) must be at least min_replicas (3).",
        ),
        (
            lambda: options(num_replicas=2, autoscaling_config={"max_replicas": 2}),
            "Manually setting num_replicas is not allowed when autoscaling_config is provided. Leave one of them out.",
        ),
        (
            lambda: options(user_config={"sizes": {1}}),
            "user_config must be JSON-serializable: Object of type set is not JSON serializable.",
        ),
        (
            lambda: options(logging_config={"level": 1}),
            "logging_config['level'] is unknown. Did you mean 'log_level'?",
        ),
        (
            lambda: mesh.run(Shop),  # type: ignore[arg-type]
            "mesh.run takes an application, the result of Deployment.bind(...), not Deployment(name=Shop). Write "
            "mesh.run(Shop.bind(...)).",
        ),
        (
            lambda: mesh.run(Plain),  # type: ignore[arg-type]
            f"mesh.run takes an application, the result of Deployment.bind(...), not {Plain!r}. Write "
            "mesh.run(mesh.deployment(Plain).bind(...)).",
        ),
        (
            lambda: mesh.run([Shop.bind()]),  # type: ignore[arg-type]
            "mesh.run takes an application, the result of Deployment.bind(...), not [Application(deployment='Shop')]. "
            "For several applications write mesh.run_many([mesh.RunTarget(app, name=...), ...]).",
        ),
        (
            lambda: mesh.run("shop.app:app"),  # type: ignore[arg-type]
            "mesh.run takes an application, the result of Deployment.bind(...), not 'shop.app:app'. Import it, or run "
            "it by `mesh run MODULE:APP`.",
        ),
        (
            lambda: Shop.bind(size=Shop),
            "Shop.bind(): the argument Deployment(name=Shop) is not bound, so it would not run. Write Shop.bind(...), "
            "for which the constructor gets a handle.",
        ),
        (
            lambda: Shop.bind([{"size": tax}]),
            "Shop.bind(): the argument Deployment(name=tax) is not bound, so it would not run. Write tax.bind(...), "
            "for which the constructor gets a handle.",
        ),
        (
            lambda: options(max_concurrent_queries=3),
            "max_concurrent_queries is an option of Ray Serve that the mesh does not have. Leave it out: write "
            "max_ongoing_requests, the name that replaced it there.",
        ),
        (
            lambda: DeploymentResponse(Mock(), "id").size,
            "'DeploymentResponse' object has no attribute 'size'. For what the method returned, await it, or ask for "
            "its result()",
        ),
        (
            lambda: DeploymentResponseGenerator(Mock(), "id").size,
            "'DeploymentResponseGenerator' object has no attribute 'size'. For what the method returned, iterate over "
            "it with `for` or `async for`",
        ),
        (
            lambda: DeploymentResponse(Mock(), "id")._size,
            "'DeploymentResponse' object has no attribute '_size'",
        ),
        (
            lambda: FakeHandle(Plain),
            "FakeHandle takes an object, not its class: write FakeHandle(Plain(...)).",
        ),
        (
            lambda: mesh.ingress(Plain),
            f"mesh.ingress takes an ASGI application, got {Plain!r}. Write @mesh.ingress(app) above the class.",
        ),
        (
            lambda: mesh.deployment(Shop),  # type: ignore[call-overload]
            "@mesh.deployment takes a class or a function, got Deployment(name=Shop).",
        ),
        (
            lambda: Shop(1),
            "A Deployment cannot be called. Write Shop.bind(...) and hand the result to mesh.run(). A test may call "
            "the code itself: Shop.func_or_class(...).",
        ),
        (
            lambda: mesh.batch(len),  # type: ignore[call-overload]
            "@mesh.batch needs an `async def` function; <built-in function len> is none. Declare it `async def`.",
        ),
        (lambda: HANDLE.options(stream="yes"), "stream must be True or False, got 'yes'."),  # type: ignore[call-overload]
        (lambda: HANDLE.options(idempotent=1), "idempotent must be True or False, got 1."),  # type: ignore[call-overload]
        (lambda: mesh.start(grpc_options={"port": "x"}), "grpc_options['port'] must be an integer, got 'x'."),
        (lambda: mesh.start(http_options={"port": "x"}), "http_options['port'] must be an integer, got 'x'."),
        (
            lambda: mesh.run(Shop.bind(), route_prefix=""),  # type: ignore[attr-defined]
            "route_prefix must start with '/', got ''. For no HTTP route write None in Python, null in a file and none "
            "on the command line.",
        ),
        (
            lambda: mesh.run(Shop.bind(), name=5),  # type: ignore[arg-type, attr-defined]
            "Application name must be a non-empty string, got 5: put it into quotes.",
        ),
    ],
)
def test_a_mistake_in_code(cluster: FakeCluster, mistake: Callable[[], object], message: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the whole message is compared
        mistake()
    assert str(caught.value) == message


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
    assert re.fullmatch(
        r"'/weather.Weather/Forecast' answered with a coroutine, not with its response message: .*\. Await it before "
        r"it is returned\.",
        says(TypeError, lambda: ProtobufCodec(forecast).write_result(unawaited)),
    )
    unawaited.close()
    assert says(UnserializableError, lambda: encode(halves(2), "result")) == (
        "The result cannot be pickled: cannot pickle 'async_generator' object. Make a list of what halves yields, or "
        "`yield` its items."
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


def test_a_handle_among_the_attributes_is_no_method() -> None:
    """It is callable only to say that it must not be called."""
    target = Shop.func_or_class()
    target.stock = HANDLE
    with pytest.raises(MeshException, match=r"Available methods: \['sell'\]"):
        MethodTable(target, {}).find("stock")


def test_the_namespace_has_the_public_names_only() -> None:
    assert set(dir(mesh)) == {*mesh.__all__, "context"}


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("mesh.deploy", "module 'mesh' has no attribute 'deploy'. Did you mean 'deployment'?"),
        (
            "mesh.exceptions.BackpressureError",
            "module 'mesh.exceptions' has no attribute 'BackpressureError'. Did you mean 'BackPressureError'?",
        ),
    ],
)
def test_a_script_shows_one_guess(script: str, shown: str) -> None:
    """Python would add a second one at the end."""
    command = [sys.executable, "-c", f"import mesh; {script}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr.rstrip("\n").endswith(f"AttributeError: {shown}")


def test_a_class_that_is_not_decorated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "undecorated_shop.py").write_text("class Shop: ...\n\napp = Shop.bind()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as caught:
        import_path.load_application("undecorated_shop:app", {})
    assert str(caught.value).splitlines()[0] == (
        "Importing 'undecorated_shop' failed: AttributeError: type object 'Shop' has no attribute 'bind'. "
        "Decorate the class or function with @mesh.deployment"
    )


DECORATE = "Decorate the class or function with @mesh.deployment"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("Shop.bind()", f"type object 'Shop' has no attribute 'bind'\n{DECORATE}."),
        ("Shop.options(num_replicas=2)", f"type object 'Shop' has no attribute 'options'\n{DECORATE}."),
        (
            "Shop.remote()",
            f"type object 'Shop' has no attribute 'remote'\n{DECORATE}, then call it through its handle: handle = "
            "mesh.run(deployment.bind(...)).",
        ),
        ("tax.bind()", f"'function' object has no attribute 'bind'\n{DECORATE}."),
        ("Shop().bind", "'Shop' object has no attribute 'bind'"),
        ("Odd.bind", "type object 'Odd' has no attribute 'bind'\nNone"),
    ],
)
def test_a_script_that_does_not_decorate(mistake: str, message: str) -> None:
    """Nothing of the mesh runs there; the hook that the script has set before is called too."""
    script = f"""
        import sys
        def before(*error): print("before"); sys.__excepthook__(*error)
        sys.excepthook = before
        import mesh
        class Shop: ...
        class Meta(type):
            def __getattr__(self, name):
                error = AttributeError("type object 'Odd' has no attribute 'bind'", name=name, obj=self)
                error.__notes__ = None  # no note can be added
                raise error
        class Odd(metaclass=Meta): ...
        def tax(): ...
        {mistake}
        """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "before\n")
    assert ended.stderr.partition("AttributeError: ")[2].rstrip("\n") == message


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


# ---- Configuration files ---------------------------------------------------------------------------------------------


def mistakes(text: str) -> list[str]:
    """The findings in a file, without its name."""
    with pytest.raises(ConfigError) as caught:
        compose.load(*read_config(textwrap.dedent(text).lstrip("\n"), "mesh.yaml"))
    lines = [line for line in str(caught.value).splitlines() if line.startswith("mesh.yaml:")]
    return [line.removeprefix("mesh.yaml:") for line in lines]


@pytest.mark.parametrize("prefix", ["''", "None"])
def test_a_file_says_how_to_have_no_route(prefix: str) -> None:
    (line,) = mistakes(f"applications: [{{import_path: a:b, route_prefix: {prefix}}}]")
    assert line.startswith("1:49: applications[0].route_prefix: must start with '/', got ")
    assert "null in a file" in line


def test_a_number_for_a_name_needs_quotes() -> None:
    assert mistakes("applications: [{import_path: a:b, name: 5}]") == [
        "1:41: applications[0].name: Application name must be a non-empty string, got 5: put it into quotes."
    ]


@pytest.mark.parametrize(
    ("applications", "message"),
    [
        (
            "[{import_path: a:b, name: }]",
            "1:40: applications[0].name: Application name must be a non-empty string, got None: leave it out, or give "
            "it one.",
        ),
        (
            "['import_path:a:b']",
            "1:16: applications[0]: must be a mapping of fields to values, got 'import_path:a:b'. Is a space missing "
            "behind a colon?",
        ),
    ],
)
def test_what_is_missing_in_a_file(applications: str, message: str) -> None:
    assert mistakes(f"applications: {applications}") == [message]


def test_every_mistake_in_nested_options_is_named() -> None:
    text = """
        http_options: {port: x, root_path: x}
        grpc_options: {port: -1, request_timeout_s: soon}
        applications:
        - import_path: a:b
          deployments:
          - name: Front
            num_replicas: 2
            autoscaling_config: {min_replicas: 3, max_replicas: 1, upscale_delay_s: no}
            ray_actor_options: {num_cpus: x, num_gpus: y, resources: {disk: -1, tape: -2}}
        """
    front = "applications[0].deployments[0]"
    assert [re.split(":? (?:must|is) ", line)[0] for line in mistakes(text)] == [
        "1:22: http_options.port",
        "1:36: http_options.root_path",
        "2:22: grpc_options.port",
        "2:45: grpc_options.request_timeout_s",
        f"7:19: {front}.num_replicas: Manually setting num_replicas",
        f"8:57: {front}.autoscaling_config.max_replicas: (1)",
        f"8:77: {front}.autoscaling_config.upscale_delay_s",
        f"9:35: {front}.ray_actor_options.num_cpus",
        f"9:48: {front}.ray_actor_options.num_gpus",
        f"9:69: {front}.ray_actor_options.resources.disk",
        f"9:79: {front}.ray_actor_options.resources.tape",
    ]


def test_what_follows_from_a_mistake_is_no_other_mistake() -> None:
    """Without `max_replicas` its default is below `min_replicas`; only the type is at fault."""
    text = """
        applications:
        - import_path: a:b
          deployments: [{name: X, autoscaling_config: {min_replicas: 3, max_replicas: many}}]
        """
    (line,) = mistakes(text)
    assert line.endswith("autoscaling_config.max_replicas: must be an integer, got 'many'.")


@pytest.mark.parametrize("holder", ["", "deployments: [{name: X, ray_actor_options: {%s}}]"])
def test_a_misspelt_key_of_a_runtime_environment(holder: str) -> None:
    """Ray would ignore it, and the variable would be missing at run time."""
    key = "runtime_env: {env_var: {A: '1'}}"
    (line,) = mistakes(f"applications:\n- import_path: a:b\n  {holder % key if holder else key}")
    assert line.endswith("runtime_env.env_var: no such field: did you mean env_vars?")


def test_a_number_for_an_environment_variable_is_named_at_its_place() -> None:
    assert mistakes("applications:\n- import_path: a:b\n  runtime_env: {env_vars: {A: 1}}") == [
        "3:31: applications[0].runtime_env.env_vars.A: must be a string, got 1: put it into quotes."
    ]


def test_a_wrong_servicer_function_is_named_at_its_place() -> None:
    text = """
        grpc_options:
          grpc_servicer_functions: [json:add_X_to_server, nowhere:add_Y_to_server]
        applications: []
        """
    assert mistakes(text) == [
        "2:29: grpc_options.grpc_servicer_functions[0]: "
        "Module 'json' has no 'add_X_to_server', named by the servicer function 'json:add_X_to_server'.",
        "2:51: grpc_options.grpc_servicer_functions[1]: "
        "No module named 'nowhere', needed for the gRPC servicer function 'nowhere:add_Y_to_server'. "
        "Is the generated code on the Python path?",
    ]


# ---- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text("")
    (tmp_path / "bound_shop.py").write_text("import mesh\n@mesh.deployment\nclass Shop: ...\napp = Shop.bind()\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "latin1.yaml").write_bytes("applications: # größer\n".encode("latin-1"))
    (tmp_path / "tab.yaml").write_text("applications:\n\t- import_path: a:b\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("deploy", "shop/app.py"),
            "shop/app.py is code: name the application in it, for instance shop.app:app.",
        ),
        (
            ("run", "app.py", "--app-dir", "shop"),
            "app.py is code: name the application in it, for instance --app-dir . app:app.",
        ),
        (
            ("run", "bound_shop:app", "size=1"),
            "bound_shop:app is a bound application and takes no arguments, got size.",
        ),
        (("deploy", "latin1.yaml"), "latin1.yaml is not text in UTF-8: invalid start byte at byte 18."),
        (
            ("deploy", "tab.yaml"),
            "tab.yaml:2:1: this is not YAML: while scanning for the next token found character '\\t' that cannot start "
            "any token",
        ),
        (
            ("deploy", "a:b", "--traffic-match", "x-canary"),
            "--traffic-match 'x-canary' is not NAME=VALUE: write for instance x-canary=1.",
        ),
        (
            ("deploy", "a:b", "--runtime-env-json", '{"env_var": {}}'),
            "runtime_env['env_var'] is unknown. Did you mean 'env_vars'?",
        ),
    ],
)
def test_a_mistake_on_the_command_line(
    cluster: FakeCluster, in_directory: Path, words: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(main.main, words)
    assert (result.exit_code, result.output) == (1, f"Error: {message}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "a:b", "--grpc-port", "x"), "Invalid value for '--grpc-port': 'x' is not a valid port."),
        (("deplyo", "mesh.yaml"), "No such command 'deplyo'."),
        (("run", "a:b", "--port", "9"), "No such option '--port'"),
        (("delete",), "Missing argument 'NAME'."),
    ],
)
def test_arguments_that_a_command_does_not_take(words: tuple[str, ...], message: str) -> None:
    """Versions of click add what they guess."""
    result = CliRunner().invoke(main.main, words)
    assert result.exit_code == 2
    # They also write `option: --port` or `option '--port'`.
    marks = str.maketrans("", "", "':")
    assert message.rstrip(".").translate(marks) in result.output.splitlines()[-1].translate(marks)
