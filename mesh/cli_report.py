"""Owns how the `mesh` command shows the state of the mesh. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict

from mesh.status import ApplicationStatus, ReplicaState
from mesh.v1 import control_pb2


def as_dict(reply: control_pb2.StatusReply) -> dict[str, Any]:
    """For `--json`: the whole status under the field names of control.proto."""
    return MessageToDict(reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def as_text(reply: control_pb2.StatusReply) -> str:
    return "\n".join((*_gateway_lines(reply.gateways), *_application_lines(reply.applications)))


def listening_lines(reply: control_pb2.StatusReply) -> list[str]:
    lines = []
    for gateway in reply.gateways:
        if gateway.grpc_address:
            lines.append(f"gRPC on {gateway.grpc_address}")
        if gateway.http_address:
            lines.append(f"HTTP on http://{gateway.http_address}")
    return lines


class Progress:
    """Shows each change while applications come up."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show
        self._shown: dict[str, list[str]] = {}

    def __call__(self, application: control_pb2.ApplicationStatus) -> None:
        lines = _progress_lines(application)
        for line in lines:
            if line not in self._shown.get(application.name, ()):
                self._show(line)
        self._shown[application.name] = lines


def _progress_lines(application: control_pb2.ApplicationStatus) -> list[str]:
    name = application.name
    lines = [f"  {name}/{each.name}: {_headline(each.message) or _replicas(each)}" for each in application.deployments]
    is_settled = application.status in (ApplicationStatus.RUNNING, ApplicationStatus.DEPLOY_FAILED)
    return [*lines, f"  {name}: {application.status}"] if is_settled else lines


def _gateway_lines(gateways: Iterable[control_pb2.GatewayStatus]) -> Iterator[str]:
    gateways = list(gateways)
    if not gateways:
        yield "no gateways"
    for gateway in gateways:
        addresses = " ".join(
            f"{kind}={address}"
            for kind, address in (("grpc", gateway.grpc_address), ("http", gateway.http_address))
            if address
        )
        yield f"gateway on node {gateway.node_id[:8]}: {gateway.status} {addresses}".rstrip() + _because(
            gateway.message
        )


def _application_lines(applications: Iterable[control_pb2.ApplicationStatus]) -> Iterator[str]:
    applications = list(applications)
    if not applications:
        yield "no applications"
    for application in applications:
        route = f" at {application.route_prefix}" if application.route_prefix else ""
        # It repeats what its deployments say, where they say anything.
        message = "" if any(each.message for each in application.deployments) else application.message
        yield f"application {application.name}{route}: {application.status}{_because(message)}"
        for deployment in application.deployments:
            yield f"  {deployment.name}: {deployment.status}, {_replicas(deployment)}{_because(deployment.message)}"
            if deployment.autoscaling.decision:
                yield f"    autoscaling: {deployment.autoscaling.decision}"
            for replica in deployment.replicas:
                where = f"node {replica.node_id[:8]}, pid {replica.pid}, {replica.address}" if replica.address else ""
                yield f"    {replica.replica_id}: {replica.state} {where}".rstrip()


def _replicas(deployment: control_pb2.DeploymentStatus) -> str:
    states = Counter(replica.state for replica in deployment.replicas)
    running = states.pop(ReplicaState.RUNNING, 0)
    others = "".join(f", {count} {state.lower()}" for state, count in sorted(states.items()))
    return f"{running} of {deployment.target_replicas} replicas running{others}"


def _because(message: str) -> str:
    return f" ({_headline(message)})" if message.strip() else ""


def _headline(message: str) -> str:
    """The line that says most: a traceback may follow it."""
    return message.strip().partition("\n")[0]
