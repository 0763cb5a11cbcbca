"""Owns how the `mesh` command shows the state of the mesh. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from google.protobuf.message import Message

from mesh.status import ApplicationStatus, DeploymentStatus, ReplicaState
from mesh.v1 import control_pb2

_DURATION = re.compile(r"\bfor (\d+) s\b")
_LIFE_SIGN_S = 30
_Row: TypeAlias = tuple[str, str, str]


def as_dict(reply: control_pb2.StatusReply) -> dict[str, Any]:
    """For `--json`: the whole status under the field names of control.proto, all of them; what is not set is None."""
    return _as_dict(reply)


def as_text(reply: control_pb2.StatusReply) -> str:
    """A table; what belongs to something stands indented below it."""
    rows = [("NAME", "STATUS", "DETAILS"), *_gateway_rows(reply), *_application_rows(reply.applications)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {status:{widths[1]}}  {details}".rstrip() for name, status, details in rows)


def failures_in_full(reply: control_pb2.StatusReply) -> str:
    """What the table has no room for: where user code raised, deployment by deployment."""
    return "\n".join(
        f"\n{application.name}/{deployment.name}: {deployment.message}"
        for application in reply.applications
        for deployment in application.deployments
        if "\n" in deployment.message
    )


def listening_lines(reply: control_pb2.StatusReply) -> list[str]:
    lines = []
    for gateway in reply.gateways:
        if gateway.grpc_address:
            lines.append(f"gRPC on {gateway.grpc_address}")
        if gateway.http_address:
            lines.append(f"HTTP on http://{gateway.http_address}")
    return lines


def _as_dict(message: Message) -> dict[str, Any]:
    return {field.name: _json_value(message, field) for field in message.DESCRIPTOR.fields}


def _json_value(message: Message, field: Any) -> Any:
    """`field` is a FieldDescriptor of either of protobuf's implementations."""
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_as_dict(each) if isinstance(each, Message) else each for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    if isinstance(value, Message):
        return _as_dict(value)
    return field.enum_type.values_by_number[value].name if field.enum_type else value


class Progress:
    """Shows each change while applications come up. That time passes is one every half minute."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show
        self._shown: dict[str, list[str]] = {}

    def __call__(self, application: control_pb2.ApplicationStatus) -> None:
        lines = {_at_leisure(line): line for line in _progress_lines(application)}
        for key, line in lines.items():
            if key not in self._shown.get(application.name, ()):
                self._show(line)
        self._shown[application.name] = list(lines)


def _at_leisure(line: str) -> str:
    return _DURATION.sub(lambda match: f"for {int(match[1]) // _LIFE_SIGN_S}", line)


def _progress_lines(application: control_pb2.ApplicationStatus) -> list[str]:
    name = application.name
    lines = [f"  {name}/{each.name}: {_joined(_running(each), _news(each))}" for each in application.deployments]
    # Also an application that changes its number of replicas is running, but there is more to come.
    is_complete = all(each.status == DeploymentStatus.HEALTHY for each in application.deployments)
    is_settled = application.status == ApplicationStatus.DEPLOY_FAILED or (
        application.status == ApplicationStatus.RUNNING and is_complete
    )
    return [*lines, f"  {name}: {application.status}"] if is_settled else lines


def _gateway_rows(reply: control_pb2.StatusReply) -> Iterator[_Row]:
    if reply.HasField("target_capacity"):
        yield "target capacity", f"{reply.target_capacity:g} %", "of all numbers of replicas"
    for gateway in reply.gateways:
        addresses = (("grpc", gateway.grpc_address), ("http", gateway.http_address))
        listening = " ".join(f"{kind}={address}" for kind, address in addresses if address)
        yield f"gateway on node {gateway.node_id[:8]}", gateway.status, _joined(listening, gateway.message)
    if not reply.gateways:
        yield "no gateways", "", ""


def _application_rows(applications: Sequence[control_pb2.ApplicationStatus]) -> Iterator[_Row]:
    for application in applications:
        route = f"at {application.route_prefix}" if application.route_prefix else ""
        origin = "from a file" if application.is_declarative else ""
        # Its message repeats what its deployments say, where they say anything.
        message = "" if any(each.message for each in application.deployments) else application.message
        yield application.name, application.status, _joined(route, origin, message)
        for deployment in application.deployments:
            yield from _deployment_rows(deployment)
    if not applications:
        yield "no applications", "", ""


def _deployment_rows(deployment: control_pb2.DeploymentStatus) -> Iterator[_Row]:
    details = _joined(_replicas(deployment), _autoscaling(deployment), _news(deployment))
    ended = f"last ended: {deployment.last_ended}" if deployment.last_ended else ""
    yield f"  {deployment.name}", deployment.status, _joined(details, ended)
    for replica in deployment.replicas:
        where = f"node {replica.node_id[:8]}, pid {replica.pid}, {replica.address}" if replica.address else ""
        yield f"    {replica.replica_id}", replica.state, _joined(where, replica.stop_reason)


def _autoscaling(deployment: control_pb2.DeploymentStatus) -> str:
    if not deployment.HasField("autoscaling"):
        return ""
    told = deployment.autoscaling
    return _joined(f"scales from {told.min_replicas} to {told.max_replicas}", told.decision, told.problem)


def _replicas(deployment: control_pb2.DeploymentStatus) -> str:
    states = Counter(replica.state for replica in deployment.replicas if replica.state != ReplicaState.RUNNING)
    others = "".join(f", {count} {state.lower()}" for state, count in sorted(states.items()))
    return f"{_running(deployment)}{others}"


def _running(deployment: control_pb2.DeploymentStatus) -> str:
    running = sum(replica.state == ReplicaState.RUNNING for replica in deployment.replicas)
    return f"{running} of {deployment.target_replicas} replicas running"


def _news(deployment: control_pb2.DeploymentStatus) -> str:
    """Its message, without the numbers that stand before it here."""
    told = _running(deployment).replace("running", "are running.")
    return " ".join(_headline(deployment.message).replace(told, "").split())


def _joined(*parts: str) -> str:
    return "; ".join(_headline(part).rstrip(".") for part in parts if part.strip())


def _headline(message: str) -> str:
    """The line that says most: a traceback may follow it."""
    return message.strip().partition("\n")[0]
