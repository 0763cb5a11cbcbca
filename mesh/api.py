"""The functions that control the mesh: start, run, delete, status, shutdown and handle look-ups."""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from mesh import application
from mesh.application import RunTarget as RunTarget
from mesh.application import check_target, spec_of
from mesh.client import mesh_lifecycle, port_check, rollout_wait, running_gateways, running_mesh
from mesh.client.control_client import ControlClient, revisions_of
from mesh.client.program_end import ProgramEnd
from mesh.cluster import ray_core
from mesh.context import get_replica_context, in_replica
from mesh.deployment import Application
from mesh.exceptions import MeshException
from mesh.handle import DeploymentHandle
from mesh.local.local_run import delete_all_local, delete_local, local_application, local_names, local_status, run_local
from mesh.options import option_checks
from mesh.options.deployments.autoscaling_policy import PolicyForm
from mesh.options.gateway import gateway_options
from mesh.options.gateway.controller_options import ControllerOptions
from mesh.options.gateway.gateway_changes import NamedOptions
from mesh.options.gateway.grpc_options import gRPCOptions
from mesh.options.gateway.http_options import HTTPOptions
from mesh.options.gateway.proxy_location import ProxyLocation
from mesh.options.gateway.start_keywords import refuse_keywords
from mesh.options.gateway.tracing_options import TracingConfig
from mesh.options.keyword_advice import with_keyword_advice
from mesh.options.logging_options import LoggingConfig
from mesh.settings import settings
from mesh.status import MeshStatus, from_reply
from mesh.v1 import control_pb2

logger = logging.getLogger("mesh")

_HANDLES_CACHED_MAX = 100


def start(
    proxy_location: ProxyLocation | str | None = None,
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
    grpc_options: gRPCOptions | Mapping[str, Any] | None = None,
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
    tracing_config: TracingConfig | Mapping[str, Any] | None = None,
    controller_options: ControllerOptions | Mapping[str, Any] | None = None,
    **kwargs: object,
) -> None:
    """Start the mesh on the Ray cluster, and Ray itself if none is running. Returns when the gateways are healthy.

    On a running mesh the gateways get the options that are named here, one node at a time and without a failed call;
    the others stay. A dict names its keys, `HTTPOptions` and `gRPCOptions` all their fields. `controller_options` are
    ignored with a warning there; replicas that run keep their logging and tracing.

    Args:
        proxy_location: Nodes that run a gateway: "EveryNode" (default), "HeadOnly" or "Disabled".
        http_options: `HTTPOptions` or a dict of its fields. By default health, routes and metrics on localhost:8000.
        grpc_options: `gRPCOptions` or a dict of its fields. By default gRPC on port 9000.
        logging_config: `LoggingConfig` or a dict of its fields, for the controller, the gateways, and the replicas of
            deployments and applications that have none.
        tracing_config: `TracingConfig` or a dict of its fields, for gateways and replicas. By default spans are made
            where `OTEL_TRACES_EXPORTER` is set.
        controller_options: `ControllerOptions` or a dict of its fields: environment variables of the controller.
        **kwargs: Refused with a message that says what to write instead.

    Raises:
        TypeError, ValueError: An option is wrong or not available yet.
        ModuleNotFoundError: A servicer function cannot be imported.
        OSError: A port is taken on this machine.
        MeshException: The controller cannot start.
        TimeoutError: The controller or the gateways are not ready within 60 s, or a gateway fails for 10 s. On a
            running mesh those with the former options go on.
    """
    refuse_keywords(kwargs)
    asked = gateway_options.parse(
        proxy_location, http_options, grpc_options, logging_config, tracing_config, controller_options
    )
    servicer_functions = mesh_lifecycle.packed_servicer_functions(asked.grpc.grpc_servicer_functions)
    ray_core.ensure_ray()
    client, _ = running_mesh.find_with_revisions()
    if client is None:
        port_check.require_free(asked.to_message())
        client = mesh_lifecycle.start(asked.to_message(), servicer_functions, asked.controller.env_vars)
    named = NamedOptions.of(
        proxy_location,
        http_options,
        grpc_options,
        logging=logging_config,
        tracing=tracing_config,
        controller_options=controller_options,
    )
    # Also here: another process may have started the mesh at the same time, with other options.
    running_gateways.adapt(client, asked, named, servicer_functions)
    rollout_wait.until_gateways_healthy(client)


@with_keyword_advice
def run(
    target: Application,
    blocking: bool = False,
    name: str = "default",
    route_prefix: str | None = "/",
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
    _local_testing_mode: bool = False,
    autoscaling_policy: PolicyForm | None = None,
) -> DeploymentHandle[Any]:
    """Deploy an application, which replaces the one of the same name. Starts the mesh if none is running.

    Args:
        target: The result of `Deployment.bind(...)`; its deployment is the ingress.
        blocking: Once the application runs, wait until the program is asked to end: raises KeyboardInterrupt, and
            SystemExit after SIGTERM or when Ray has ended. If Ray ends with the program, the mesh is drained first.
        name: Name of the application, unique in the mesh.
        route_prefix: HTTP path prefix, unique in the mesh; None: no HTTP. An ingress that serves gRPC only, which is a
            class without `__call__`, does not claim the default, `/`.
        logging_config: `LoggingConfig` or a dict of its fields, for deployments that have none.
        _local_testing_mode: Run one replica of each deployment in threads of this process, without Ray and without
            ports, until `delete(name)`, `shutdown()` or a local run of the same name; docs/testing.md says what
            differs.
        autoscaling_policy: `AutoscalingPolicy` or another form of it: a function that decides about all deployments of
            the application that autoscale and have no policy of their own; docs/autoscaling.md shows one.

    Returns:
        A handle of the ingress, once every deployment is healthy. There is no timeout for that.

    Raises:
        TypeError: The target was not bound, or its arguments cannot be pickled.
        ValueError: The route prefix is malformed, or an option is not available yet.
        MeshException: The route prefix belongs to another application, or the controller cannot be reached.
        ChangeConflictError: Another client has changed the application since this call began; nothing is deployed.
        RuntimeError: The deployment failed, or the application was deleted in the meantime.
        TimeoutError: The mesh had to be started and is not ready within 60 s.
    """
    is_local = _is_local(_local_testing_mode, blocking)
    asked = RunTarget(target, name, route_prefix, logging_config, autoscaling_policy)
    check_target(asked)
    if is_local:
        return run_local(target, name, route_prefix).ingress
    _ensure_ray([asked])
    if not blocking:
        return _deployed([asked])[0]
    _program_end.serve(functools.partial(_deployed, [asked]))


@with_keyword_advice
def run_many(
    targets: Sequence[RunTarget],
    wait_for_ingress_deployment_creation: bool = True,
    wait_for_applications_running: bool = True,
    _local_testing_mode: bool = False,
    *,
    blocking: bool = False,
) -> list[DeploymentHandle[Any]]:
    """Run several applications in one step: either all are stored or none is.

    Args:
        targets: At least one; names must differ.
        wait_for_ingress_deployment_creation: As in Ray Serve; without effect, because what is stored can be called.
        wait_for_applications_running: Return when all deployments are healthy, instead of as soon as they are stored.
        blocking: As in `run`: then wait until the program is asked to end.

    Returns:
        Handles of the ingresses in the order of `targets`.

    Raises:
        ValueError: There is no target or a name is given twice.
        Exception: The errors of `run`.
    """
    is_local = _is_local(_local_testing_mode, blocking)
    if not targets:
        raise ValueError("run_many needs at least one RunTarget.")
    for each in targets:
        check_target(each)
    if len({each.name for each in targets}) < len(targets):
        raise ValueError(f"run_many got a name twice: {', '.join(each.name for each in targets)}. Names must differ.")
    if is_local:
        return [run_local(each.target, each.name, each.route_prefix).ingress for each in targets]
    _ensure_ray(targets)
    if not blocking:
        return _deployed(targets, is_waiting=wait_for_applications_running)
    _program_end.serve(functools.partial(_deployed, targets, is_waiting=wait_for_applications_running))


@with_keyword_advice
def delete(name: str, _blocking: bool = True) -> None:
    """Delete an application and wait until its replicas are gone. An unknown name is not an error.

    If a local test of this process has the name, that one ends, and the mesh is not asked.

    Raises:
        MeshException: No mesh is running.
        ChangeConflictError: Another client has changed the application since this call began; it is not deleted.
        TimeoutError: Replicas are left after 60 s; the deletion continues.
    """
    if delete_local(name):
        return
    client = running_mesh.attach()
    client.delete(name, expected=revisions_of(client.status(name)))
    _program_end.deleted(name)
    if _blocking:
        rollout_wait.until_deleted(client, name)


def status() -> MeshStatus:
    """The current state of gateways, applications, deployments and replicas; empty if no mesh is running.

    Where this process has run local tests only, it is that of their applications, and no Ray is looked for.

    Raises:
        MeshException: The controller does not answer within 30 s.
    """
    local = local_status()
    if local.applications and not ray_core.is_connected():
        return local
    client = mesh_lifecycle.find() if ray_core.attach_ray() else None
    return MeshStatus() if client is None else from_reply(client.status())


def shutdown() -> None:
    """Stop every application, the gateways and the controller. Does nothing if no mesh is running.

    Local tests of this process end first; where it has run nothing else, no Ray is looked for.

    Replicas get 30 s to drain; then they are killed.
    """
    if delete_all_local() and not ray_core.is_connected():
        return
    client = mesh_lifecycle.find() if ray_core.attach_ray() else None
    _handle.cache_clear()
    _program_end.all_deleted()
    if client is not None:
        mesh_lifecycle.destroy(client)
    elif ray_core.is_connected() and (mesh := mesh_lifecycle.leftover()):
        mesh_lifecycle.destroy_leftover(mesh)
    else:
        logger.info("no mesh is running: nothing to shut down")


async def shutdown_async() -> None:
    """`shutdown` for async code: the event loop goes on meanwhile."""
    await asyncio.to_thread(shutdown)


@with_keyword_advice
def get_app_handle(name: str) -> DeploymentHandle[Any]:
    """The handle of an application's ingress.

    Raises:
        MeshException: There is no such application, or no mesh is running.
    """
    local = local_application(name)
    if local is not None:
        return local.ingress
    applications = _applications()
    found = applications.get(name)
    if found is None or not found.ingress:
        advice = option_checks.did_you_mean(name, [*applications, *local_names()])
        raise MeshException(f"Application '{name}' does not exist.{advice}")
    return _handle(found.ingress, name)


@with_keyword_advice
def get_deployment_handle(
    deployment_name: str, app_name: str | None = None, _check_exists: bool = True
) -> DeploymentHandle[Any]:
    """The handle of any deployment.

    Args:
        deployment_name: Name of the deployment in its application.
        app_name: Name of the application; inside a replica by default its own.

    Raises:
        MeshException: `app_name` is missing outside of a replica, or no mesh is running.
        KeyError: There is no such deployment or application.
    """
    if app_name is None:
        if not in_replica():
            raise MeshException("Outside of a deployment get_deployment_handle needs app_name.")
        app_name = get_replica_context().app_name
    local = local_application(app_name)
    if local is not None:
        return local.handle(deployment_name, check_exists=_check_exists)
    if _check_exists:
        applications = _applications()
        found = applications.get(app_name)
        if found is None:
            names = [*applications, *local_names()]
            advice = option_checks.did_you_mean(app_name, names)
            if deployment_name in names:
                advice = f" {deployment_name!r} is an application: the name of the deployment comes first."
            raise KeyError(f"Application '{app_name}' of deployment '{deployment_name}' does not exist.{advice}")
        names = [each.name for each in found.deployments]
        if deployment_name not in names:
            advice = option_checks.did_you_mean(deployment_name, names)
            raise KeyError(f"Deployment '{deployment_name}' of application '{app_name}' does not exist.{advice}")
    return _handle(deployment_name, app_name)


def _run(
    target: Application,
    *,
    _blocking: bool = True,
    _local_testing_mode: bool = False,
    **fields: Any,
) -> DeploymentHandle[Any]:
    """Like `run`; with `_blocking=False` it returns as soon as the application is stored."""
    asked = RunTarget(target, **fields)
    check_target(asked)
    if _is_local(_local_testing_mode):
        return run_local(target, asked.name, asked.route_prefix).ingress
    _ensure_ray([asked])
    return _deployed([asked], is_waiting=_blocking)[0]


def _is_local(local_testing_mode: bool, blocking: bool = False) -> bool:
    if isinstance(blocking, str):  # the second positional argument of `run`, as in Ray Serve
        raise TypeError(f"blocking must be True or False, got {blocking!r}. Write name={blocking!r} for a name.")
    option_checks.flag("blocking", blocking)
    is_local = local_testing_mode or bool(settings().process.force_local_testing_mode)
    if is_local and blocking:
        raise ValueError("blocking=True waits for clients, and a local test has no ports for any. Leave it out.")
    return is_local


def _ensure_ray(targets: Sequence[RunTarget]) -> None:
    """Ray takes seconds to start: what could not be deployed then is refused before."""
    if not ray_core.is_connected():
        for each in targets:
            application.check_arguments(each.target)
    ray_core.ensure_ray()


def _deployed(targets: Sequence[RunTarget], *, is_waiting: bool = True) -> list[DeploymentHandle[Any]]:
    client, revisions = running_mesh.find_with_revisions(*(each.name for each in targets))
    client = client or _started()
    rules = _rules()
    specs = [spec_of(each, rules) for each in targets]
    client.apply(specs, expected=revisions)
    for spec in specs:
        _program_end.deployed(spec.name)
    if is_waiting:
        for spec in specs:
            rollout_wait.until_running(client, spec.name)
    return [_handle(spec.ingress, spec.name) for spec in specs]


@functools.lru_cache(maxsize=_HANDLES_CACHED_MAX)
def _handle(deployment_name: str, app_name: str) -> DeploymentHandle[Any]:
    return DeploymentHandle(deployment_name, app_name)


def _applications() -> dict[str, control_pb2.ApplicationStatus]:
    """Those of the mesh, by name. Where this process has only local ones no Ray is looked for: there are none."""
    if local_names() and not ray_core.is_connected():
        return {}
    return {each.name: each for each in running_mesh.attach().status().applications}


def _started() -> ControlClient:
    start()
    return mesh_lifecycle.require()


def _rules() -> application.BuildRules:
    """Each run gets a new version, so that all replicas are replaced (item 68)."""
    version = uuid.uuid4().hex[:10]
    return application.BuildRules(
        make_handle=DeploymentHandle,
        version_of=lambda code, packed: version,
        servicer_functions=mesh_lifecycle.servicer_functions(),
        runtime_env=mesh_lifecycle.inherited_runtime_env(),
    )


_program_end = ProgramEnd(shutdown)
