"""What the controller refuses of an application that is deployed. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import grpc

from mesh.controller.desired.changes.invalid_change import InvalidChangeError
from mesh.settings import settings
from mesh.v1 import control_pb2


def check_applications(state: control_pb2.DesiredState, applications: Sequence[control_pb2.ApplicationSpec]) -> None:
    """Raises InvalidChangeError for applications that must not be added to the state."""
    names = {other.name for other in state.applications}
    owners = {other.route_prefix: other.name for other in state.applications}
    for application in applications:
        _check_application(state, application)
        name, prefix = application.name, application.route_prefix
        if name in names:
            raise _invalid(f"Two applications are named {name!r}: give one of them another name.")
        if prefix and prefix in owners:
            raise InvalidChangeError(
                grpc.StatusCode.ALREADY_EXISTS,
                f"Route prefix {prefix!r} belongs to application {owners[prefix]!r}. Give {name!r}"
                " another one, or none if HTTP requests do not call it: --route-prefix none, route_prefix=None in code,"
                " route_prefix: null in a file.",
            )
        names.add(name)
        owners[prefix] = name


def _check_application(state: control_pb2.DesiredState, application: control_pb2.ApplicationSpec) -> None:
    check_not_shutting_down(state)
    if not application.name:
        raise _invalid("The application has no name.")
    check_deployments(application)
    check_descriptors(application)


def check_not_shutting_down(state: control_pb2.DesiredState) -> None:
    if state.is_shutting_down:
        raise InvalidChangeError(
            grpc.StatusCode.FAILED_PRECONDITION, "The mesh is shutting down: deploy after a new start."
        )


def check_deployments(application: control_pb2.ApplicationSpec) -> None:
    names = Counter(deployment.name for deployment in application.deployments)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise _invalid(f"Application {application.name!r} has several deployments named {twice[0]!r}.")
    if application.ingress not in names:
        raise _invalid(f"The ingress {application.ingress!r} is not a deployment of application {application.name!r}.")
    for deployment in application.deployments:
        if not deployment.name or "#" in deployment.name:
            raise _invalid(f"{deployment.name!r} is not a name for a deployment: it must not be empty or contain '#'.")
        if not deployment.version:
            raise _invalid(f"Deployment {deployment.name!r} has no version.")
        if not (deployment.code or deployment.code_key):
            raise _invalid(f"Deployment {deployment.name!r} has no code.")
        _check_runtime_env(deployment)


def check_descriptors(application: control_pb2.ApplicationSpec) -> None:
    """Every gateway holds them in memory."""
    size, limit = len(application.descriptors), settings().payload.descriptors_max_bytes
    if size > limit:
        raise _invalid(
            f"The gRPC descriptors of application {application.name!r} are {size} bytes, and the controller takes at "
            f"most {limit}. Import fewer .proto files, or raise MESH_DESCRIPTORS_MAX_BYTES in all processes."
        )


def _check_runtime_env(deployment: control_pb2.DeploymentSpec) -> None:
    """Placement reads it for all deployments together."""
    text = deployment.options.actor.runtime_env_json or "{}"
    try:
        is_valid = isinstance(json.loads(text), dict)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise _invalid(f"The runtime environment of deployment {deployment.name!r} is not a JSON object: {text[:200]}")


def _invalid(message: str) -> InvalidChangeError:
    return InvalidChangeError(grpc.StatusCode.INVALID_ARGUMENT, message)
