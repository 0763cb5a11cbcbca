"""gRPC services that several applications serve, so that clients have to name one. Pure."""

from __future__ import annotations

from mesh.v1 import control_pb2


def new_warnings(before: control_pb2.DesiredState, after: control_pb2.DesiredState) -> list[str]:
    """A line for users about each service that this change makes several applications serve."""
    known = _shared(before)
    return [
        f"{service} is now served by {', '.join(apps)}: gRPC calls of a method that they share are refused "
        "(NOT_FOUND) unless their metadata 'application' names one."
        for service, apps in _shared(after).items()
        if known.get(service) != apps
    ]


def _shared(state: control_pb2.DesiredState) -> dict[str, list[str]]:
    """The applications that share methods, by service."""
    by_method: dict[str, list[str]] = {}
    for app in state.applications:
        for deployment in app.deployments:
            if deployment.name == app.ingress:
                for method in deployment.grpc_methods:
                    by_method.setdefault(method.full_name, []).append(app.name)
    shared: dict[str, set[str]] = {}
    for full_name, apps in by_method.items():
        if len(apps) > 1:
            shared.setdefault(full_name[1:].rpartition("/")[0], set()).update(apps)
    return {service: sorted(apps) for service, apps in sorted(shared.items())}
