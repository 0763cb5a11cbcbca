"""Mistakes that users make in code, each with the message that says what is wrong, and what to write instead."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

import mesh
from mesh.caller.response import DeploymentResponse, DeploymentResponseGenerator
from mesh.exceptions import MeshException
from mesh.replica.user_methods import MethodTable
from mesh.testing import FakeHandle, grpc_context, replica_context
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
            lambda: FakeHandle(Plain()).sell.remote().result(5),
            "DeploymentResponse.result() takes timeout_s by name: write timeout_s=5.",
        ),
        (
            lambda: HANDLE.options("sell"),  # type: ignore[call-overload]
            "DeploymentHandle.options() takes method_name, multiplexed_model_id, stream, timeout_s, idempotent, retry, "
            "queue_timeout_s, hedge_after_s, session_id, tenant, metadata by name.",
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
        (lambda: mesh.ingres, "module 'mesh' has no attribute 'ingres'. Did you mean 'ingress'?"),
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
            lambda: options(request_router_config={"request_router_kwargs": {"salt": "a"}}),
            "request_router_kwargs are for a request_router_class: name that too, or leave them out.",
        ),
        (
            lambda: options(request_router_config={"request_router_clas": "a:B"}),
            "request_router_config['request_router_clas'] is unknown. Did you mean 'request_router_class'?",
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
            lambda: mesh.deployment({"num_replicas": 2}),  # type: ignore[call-overload]
            "@mesh.deployment takes a class or a function, got {'num_replicas': 2}. Options have names, as in "
            "@mesh.deployment(num_replicas=2).",
        ),
        (
            lambda: Shop(1),
            "A Deployment cannot be called. Write Shop.bind(...) and hand the result to mesh.run(). A test may call "
            "the code itself: Shop.func_or_class(...).",
        ),
        (
            lambda: mesh.batch(len),  # type: ignore[call-overload]
            "@mesh.batch needs an `async def` function, got <built-in function len>. Declare it `async def`.",
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


def test_a_handle_among_the_attributes_is_no_method() -> None:
    """It is callable only to say that it must not be called."""
    target = Shop.func_or_class()
    target.stock = HANDLE
    with pytest.raises(MeshException, match=r"Available methods: \['sell'\]"):
        MethodTable(target, {}).find("stock")
