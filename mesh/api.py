"""Owns the functions with which a program drives the mesh: start, run, delete, status, shutdown and handle look-ups."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mesh import application
from mesh.client import mesh_lifecycle, rollout_wait
from mesh.client.control_client import ControlClient
from mesh.cluster import ray_core
from mesh.context import get_replica_context, in_replica
from mesh.deployment import Application
from mesh.exceptions import MeshException
from mesh.handle import DeploymentHandle
from mesh.options import gateway_options, logging_options, option_checks
from mesh.options.gateway_options import HTTPOptions, ProxyLocation, gRPCOptions
from mesh.options.logging_options import LoggingConfig
from mesh.status import MeshStatus, find_application, from_reply

logger = logging.getLogger("mesh")

_HANDLES_CACHED_MAX = 100
_BLOCKING_POLL_S = 1.0
_OLD_KEYWORDS = ("http_host", "http_port", "http_middlewares")


def start(
    proxy_location: ProxyLocation | str | None = None,
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
    grpc_options: gRPCOptions | Mapping[str, Any] | None = None,
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
    **kwargs: object,
) -> None:
    """Start the mesh on the Ray cluster, and Ray itself where none runs. Returns when the gateways are healthy.

    On a running mesh this only connects; options that differ from its own are ignored with a warning.

    Raises TypeError or ValueError for wrong options, ModuleNotFoundError for a servicer function that cannot be
    imported, TimeoutError when the gateways do not come up within 60 s or keep failing for 10 s.
    """
    _refuse_keywords(kwargs)
    _refuse_logging_config(logging_config)
    asked = gateway_options.parse(proxy_location, http_options, grpc_options)
    servicer_functions = mesh_lifecycle.packed_servicer_functions(asked.grpc.grpc_servicer_functions)
    ray_core.ensure_ray()
    client = _running()
    if client is None:
        client = mesh_lifecycle.start(asked.to_message(), servicer_functions)
    else:
        _warn_of_differences(asked, client)
    rollout_wait.until_gateways_healthy(client)


def run(
    target: Application,
    blocking: bool = False,
    name: str = "default",
    route_prefix: str | None = "/",
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
    _local_testing_mode: bool = False,
) -> DeploymentHandle[Any]:
    """Deploy an application in the place of the one of that name and return a handle to its ingress.

    Starts the mesh if need be and returns when every deployment is up; with `blocking` only on KeyboardInterrupt.

    Raises TypeError for a target that was not bound or arguments that cannot be pickled, ValueError for a wrong route
    prefix, MeshException when the prefix belongs to another application, RuntimeError when the deployment failed.
    """
    if _local_testing_mode:
        raise option_checks.not_yet("_local_testing_mode")
    handle = _run(target, name=name, route_prefix=route_prefix, logging_config=logging_config)
    if blocking:
        _block()
    return handle


def _run(
    target: Application,
    *,
    _blocking: bool = True,
    name: str = "default",
    route_prefix: str | None = "/",
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
) -> DeploymentHandle[Any]:
    """`run` that, with `_blocking=False`, returns as soon as the application is stored."""
    _check_target(RunTarget(target, name, route_prefix, logging_config))
    ray_core.ensure_ray()
    client = _running() or _started()
    spec = application.build(target, name=name, route_prefix=route_prefix, rules=_rules())
    client.deploy(spec)
    if _blocking:
        rollout_wait.until_running(client, name)
    return _handle(spec.ingress, name)


@dataclass(frozen=True, slots=True)
class RunTarget:
    """One application for `run_many`."""

    target: Application
    name: str = "default"
    route_prefix: str | None = "/"
    logging_config: LoggingConfig | Mapping[str, Any] | None = None


def run_many(
    targets: Sequence[RunTarget], *, wait_for_applications_running: bool = True
) -> list[DeploymentHandle[Any]]:
    """`run` of several applications in one step: all are stored, or none is. Returns their handles in order.

    Raises ValueError for no target or a name given twice, and what `run` raises.
    """
    if not targets:
        raise ValueError("run_many needs at least one RunTarget.")
    for each in targets:
        _check_target(each)
    ray_core.ensure_ray()
    client = _running() or _started()
    rules = _rules()
    specs = [
        application.build(each.target, name=each.name, route_prefix=each.route_prefix, rules=rules) for each in targets
    ]
    client.apply(specs)
    if wait_for_applications_running:
        for spec in specs:
            rollout_wait.until_running(client, spec.name)
    return [_handle(spec.ingress, spec.name) for spec in specs]


def delete(name: str, _blocking: bool = True) -> None:
    """Delete an application and wait until its replicas are gone. An unknown name is fine.

    Raises MeshException where no mesh is running, TimeoutError after 60 s.
    """
    client = _require()
    client.delete(name)
    if _blocking:
        rollout_wait.until_deleted(client, name)


def status() -> MeshStatus:
    """The mesh now; empty where none is running."""
    client = mesh_lifecycle.find() if ray_core.attach_ray() else None
    return MeshStatus() if client is None else from_reply(client.status())


def shutdown() -> None:
    """End every application, the gateways and the controller. Nothing happens where no mesh is running."""
    client = mesh_lifecycle.find() if ray_core.attach_ray() else None
    _handle.cache_clear()
    if client is None:
        logger.info("no mesh is running: nothing to shut down")
        return
    mesh_lifecycle.destroy(client)


def get_app_handle(name: str) -> DeploymentHandle[Any]:
    """Handle of an application's ingress. Raises MeshException when there is no such application."""
    reply = _require().status()
    found = find_application(reply, name)
    if found is None or not found.ingress:
        advice = option_checks.did_you_mean(name, (each.name for each in reply.applications))
        raise MeshException(f"Application '{name}' does not exist.{advice}")
    return _handle(found.ingress, name)


def get_deployment_handle(
    deployment_name: str, app_name: str | None = None, _check_exists: bool = True
) -> DeploymentHandle[Any]:
    """Handle of any deployment; inside a replica `app_name` defaults to its own application.

    Raises MeshException outside of a replica without `app_name`, KeyError when there is no such deployment.
    """
    if app_name is None:
        if not in_replica():
            raise MeshException("Outside of a deployment get_deployment_handle needs app_name.")
        app_name = get_replica_context().app_name
    if _check_exists:
        found = find_application(_require().status(), app_name)
        names = [] if found is None else [each.name for each in found.deployments]
        if deployment_name not in names:
            advice = option_checks.did_you_mean(deployment_name, names)
            raise KeyError(f"Deployment '{deployment_name}' of application '{app_name}' does not exist.{advice}")
    return _handle(deployment_name, app_name)


@lru_cache(maxsize=_HANDLES_CACHED_MAX)
def _handle(deployment_name: str, app_name: str) -> DeploymentHandle[Any]:
    return DeploymentHandle(deployment_name, app_name)


def _require() -> ControlClient:
    ray_core.attach_ray()
    return mesh_lifecycle.require()


def _running() -> ControlClient | None:
    """The mesh that is there; the rest of one whose shutdown was interrupted is removed first."""
    client = mesh_lifecycle.find()
    if client is not None and client.status().is_shutting_down:
        mesh_lifecycle.destroy(client)
        return None
    return client


def _started() -> ControlClient:
    start()
    return mesh_lifecycle.require()


def _refuse_keywords(keywords: Mapping[str, object]) -> None:
    for keyword in keywords:
        if keyword in _OLD_KEYWORDS:
            option = keyword.removeprefix("http_")
            raise ValueError(f"{keyword} is no longer an argument: write http_options={{{option!r}: ...}}.")
        raise TypeError(f"start() got an unexpected keyword argument {keyword!r}")


def _refuse_logging_config(config: LoggingConfig | Mapping[str, Any] | None) -> None:
    if config is not None:
        logging_options.parse(config)
        raise option_checks.not_yet("logging_config")


def _warn_of_differences(asked: gateway_options.GatewayRequest, client: ControlClient) -> None:
    default = gateway_options.parse(None, None, None).to_message()
    message, running = asked.to_message(), client.status().gateway_options
    explicit = set(gateway_options.differing_fields(message, default))
    ignored = [name for name in gateway_options.differing_fields(message, running) if name in explicit]
    if ignored:
        logger.warning(
            "the mesh is already running; these options of mesh.start() are ignored: %s. "
            "Call mesh.shutdown() first to change them.",
            ", ".join(ignored),
        )


def _check_target(asked: RunTarget) -> None:
    if not isinstance(asked.target, Application):
        raise TypeError(f"mesh.run takes an application, the result of Deployment.bind(...), not {asked.target!r}.")
    application.checked_name(asked.name)
    application.checked_route_prefix(asked.route_prefix)
    _refuse_logging_config(asked.logging_config)


def _rules() -> application.BuildRules:
    """A version of its own for each run: all replicas are replaced (item 68)."""
    version = uuid.uuid4().hex[:10]
    return application.BuildRules(
        make_handle=DeploymentHandle,
        version_of=lambda code, packed: version,
        servicer_functions=mesh_lifecycle.servicer_functions(),
        runtime_env=inherited_runtime_env(),
    )


def inherited_runtime_env() -> dict[str, Any]:
    """What the driver's job runs with is the default for its deployments."""
    return {key: value for key, value in ray_core.job_runtime_env().items() if not key.startswith("_")}


def _block() -> None:
    logger.info("running until interrupted")
    try:
        while True:
            time.sleep(_BLOCKING_POLL_S)
    except KeyboardInterrupt:
        logger.warning("interrupted; the application keeps running until mesh.delete() or mesh.shutdown()")
        raise
