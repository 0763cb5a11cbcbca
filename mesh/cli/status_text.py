"""The text and JSON in which the `mesh` command shows the status. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from google.protobuf.message import Message

from mesh.status import ApplicationStatus, DeploymentStatus, GatewayStatus, NodeStatus, ReplicaState, serves_fully
from mesh.v1 import control_pb2

_DURATION = re.compile(r"\bfor (\d+) s\b")
_SIGN_OF_LIFE_S = 30
"""A line that differs only in a duration is printed again after this long."""
_COUNTS = re.compile(r"(\d+ of \d+ replicas) are running\.")
_SERVING = (ReplicaState.RUNNING, ReplicaState.UPDATING, ReplicaState.PENDING_MIGRATION)
_ORIGINS = {control_pb2.DEPLOYER_FILE: "from a file", control_pb2.DEPLOYER_RUN: "by `mesh run`"}
_REPLICAS_SHOWN = 8
"""Replicas that are listed of each deployment without `--replicas`."""
_Row: TypeAlias = tuple[str, str, str]


def as_dict(message: Message) -> dict[str, Any]:
    """For `--json`: a message with all field names of control.proto; unset fields are None."""
    return {field.name: _json_value(message, field) for field in message.DESCRIPTOR.fields}


def as_text(reply: control_pb2.StatusReply, *, with_replicas: bool = False) -> str:
    """A table: deployments are indented below applications, replicas below deployments.

    `with_replicas`: all of them, and the last deaths; otherwise a few of each deployment, first those that do not run.
    """
    rows = [
        ("NAME", "STATUS", "DETAILS"),
        *_controller_rows(reply),
        *(_node_row(each) for each in reply.nodes if each.status != NodeStatus.READY),
        *_gateway_rows(reply),
        *_application_rows(reply.applications, with_replicas),
    ]
    return _table(rows)


def nodes_as_text(reply: control_pb2.StatusReply) -> str:
    """A table of all nodes."""
    return _table([("NAME", "STATUS", "DETAILS"), *map(_node_row, reply.nodes)])


def failures_in_full(reply: control_pb2.StatusReply) -> str:
    """Tracebacks of user code by deployment, for which the table has no space."""
    return "\n".join(
        f"\n{application.name}/{deployment.name}: {deployment.message}"
        for application in reply.applications
        for deployment in application.deployments
        if "\n" in deployment.message
    )


def listening_lines(reply: control_pb2.StatusReply) -> list[str]:
    lines = []
    for gateway in reply.gateways:
        if gateway.status == GatewayStatus.DRAINING:  # another one takes its place
            continue
        if gateway.grpc_address and not gateway.index:  # the others have the same
            lines.append(f"gRPC on {gateway.grpc_address}")
        if gateway.http_address:
            lines.append(f"HTTP on http://{gateway.http_address}")
    return lines


def replicas_text(count: int) -> str:
    return f"{count} replica{'' if count == 1 else 's'}"


def _table(rows: Sequence[_Row]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {status:{widths[1]}}  {details}".rstrip() for name, status, details in rows)


def _json_value(message: Message, field: Any) -> Any:
    """`field` is a FieldDescriptor of any implementation of protobuf."""
    value = getattr(message, field.name)
    if field.is_repeated:
        return [as_dict(each) if isinstance(each, Message) else each for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    if isinstance(value, Message):
        return as_dict(value)
    return field.enum_type.values_by_number[value].name if field.enum_type else value


class Progress:
    """Shows each change while applications start, and a sign of life every 30 s."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show
        self._shown: dict[str, list[str]] = {}

    def __call__(self, application: control_pb2.ApplicationStatus) -> None:
        lines = {_without_seconds(line): line for line in _progress_lines(application)}
        for key, line in lines.items():
            if key not in self._shown.get(application.name, ()):
                self._show(line)
        self._shown[application.name] = list(lines)


def _without_seconds(line: str) -> str:
    return _DURATION.sub(lambda match: f"for {int(match[1]) // _SIGN_OF_LIFE_S}", line)


def _progress_lines(application: control_pb2.ApplicationStatus) -> list[str]:
    name = application.name
    lines = [
        f"  {name}/{each.name}: {_joined(_running(each, each.replicas), _news(each))}"
        for each in application.deployments
    ]
    # An application that changes its number of replicas is RUNNING too, but not complete.
    is_complete = all(each.status == DeploymentStatus.HEALTHY for each in application.deployments)
    is_settled = application.status == ApplicationStatus.DEPLOY_FAILED or (
        application.status == ApplicationStatus.RUNNING and is_complete
    )
    return [*lines, f"  {name}: {application.status}"] if is_settled else lines


def _controller_rows(reply: control_pb2.StatusReply) -> Iterator[_Row]:
    if reply.HasField("controller"):
        controller = reply.controller
        process = f"age {_age(controller.age_s)}, node {controller.node_id[:8]}, pid {controller.pid}"
        yield "controller", "RUNNING", _joined(process, _restarts(controller.restarts), controller.message)


def _node_row(node: control_pb2.NodeStatus) -> _Row:
    replicas = replicas_text(node.replicas)
    if node.replicas_to_move:
        replicas = f"{node.moved_replicas} of {node.replicas_to_move} replicas moved"
    details = _joined(node.address, "head" if node.is_head else "", replicas, node.message)
    return f"node {node.node_id[:8]}", node.status, details


def _gateway_rows(reply: control_pb2.StatusReply) -> Iterator[_Row]:
    if reply.HasField("target_capacity"):
        yield "target capacity", f"{reply.target_capacity:g} %", "of all replica counts"
    for gateway in reply.gateways:
        addresses = (("grpc", gateway.grpc_address), ("http", gateway.http_address))
        listening = " ".join(f"{kind}={address}" for kind, address in addresses if address)
        number = f" {gateway.index}" if gateway.index else ""
        yield f"gateway{number} on node {gateway.node_id[:8]}", gateway.status, _joined(listening, gateway.message)
    if not reply.gateways:
        yield "no gateways", "", ""


def _application_rows(applications: Sequence[control_pb2.ApplicationStatus], with_replicas: bool) -> Iterator[_Row]:
    for application in applications:
        route = f"at {application.route_prefix}" if application.route_prefix else ""
        origin = _ORIGINS.get(application.deployer, "")
        # The message of an application repeats those of its deployments.
        message = "" if any(each.message for each in application.deployments) else application.message
        undone = f"rolled back because {application.rolled_back_because}" if application.rolled_back_because else ""
        yield application.name, application.status, _joined(route, origin, undone, message)
        if application.HasField("canary"):
            yield from _canary_rows(application.canary)
        canaries = {each.name: each.version for each in application.canary.deployments}
        for deployment in application.deployments:
            yield _deployment_row(deployment, canaries.get(deployment.name, ""))
            if with_replicas:
                yield from map(_death_row, deployment.deaths)
                yield from map(_replica_row, deployment.replicas)
            else:
                yield from _rows_of_few(deployment.replicas)
    if not applications:
        yield "no applications", "", ""


def _canary_rows(canary: control_pb2.CanaryStatus) -> Iterator[_Row]:
    rule = canary.traffic
    match = f"{rule.header}: {rule.value or 'any'}" if rule.header else ""
    share = f"{rule.percent:g} % of requests" if rule.percent or not match else ""
    is_given_up = any(each.is_given_up for each in canary.deployments)
    state = "FAILED" if is_given_up else "RUNNING" if serves_fully(canary) else "STARTING"
    yield "  canary", state, _joined(share, match)
    for each in canary.deployments:
        replicas = f"{each.running_replicas} of {each.target_replicas} replicas running"
        yield f"    {each.name}", "", _joined(f"version {_short_version(each.version)}", replicas, each.message)


def _deployment_row(deployment: control_pb2.DeploymentStatus, canary_version: str) -> _Row:
    """The replicas of the canary have a row of their own."""
    details = _joined(
        _replicas(deployment, canary_version), _load(deployment), _autoscaling(deployment), _news(deployment)
    )
    ended = f"last ended: {deployment.last_ended}" if deployment.last_ended else ""
    paused = "rollouts are paused" if deployment.is_paused else ""
    return f"  {deployment.name}", deployment.status, _joined(details, paused, _restarts(deployment.restarts), ended)


def _death_row(death: control_pb2.ReplicaDeath) -> _Row:
    node = f", node {death.node_id[:8]}" if death.node_id else ""
    what = f"version {_short_version(death.version)}, {_age(death.age_s)} ago{node}"
    return f"    {death.replica_id}", "DIED", _joined(what, death.reason)


def _rows_of_few(replicas: Sequence[control_pb2.ReplicaStatus]) -> Iterator[_Row]:
    """Where there are more than a few, those that do not run or take no calls come first."""
    if len(replicas) <= _REPLICAS_SHOWN:
        yield from map(_replica_row, replicas)
        return
    first = sorted(replicas, key=lambda each: each.state == ReplicaState.RUNNING and not each.not_ready)
    yield from map(_replica_row, first[:_REPLICAS_SHOWN])
    yield f"    and {len(replicas) - _REPLICAS_SHOWN} more", "", "--replicas lists them"


def _replica_row(replica: control_pb2.ReplicaStatus) -> _Row:
    process = f"version {_short_version(replica.version)}, age {_age(replica.age_s)}"
    if replica.address:
        process += f", node {replica.node_id[:8]}, pid {replica.pid}, {replica.address}"
    return f"    {replica.replica_id}", replica.state, _joined(process, _not_ready(replica), replica.stop_reason)


def _not_ready(replica: control_pb2.ReplicaStatus) -> str:
    return f"takes no calls: {replica.not_ready}" if replica.not_ready else ""


def _load(deployment: control_pb2.DeploymentStatus) -> str:
    """Averages, so they are rounded; none is shown as zero."""
    waiting = f", {_rounded(deployment.waiting)} waiting" if deployment.waiting else ""
    return f"{_rounded(deployment.busy)} of {deployment.places} busy{waiting}" if deployment.places or waiting else ""


def _rounded(mean: float) -> str:
    return f"{math.ceil(mean * 10) / 10:g}"


def _restarts(count: int) -> str:
    return f"{count} restart{'s' if count > 1 else ''}" if count else ""


def _age(age_s: float) -> str:
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if age_s >= 2 * unit_s:
            return f"{age_s / unit_s:.0f} {unit}"
    return f"{age_s:.0f} s"


def _short_version(version: str) -> str:
    """The beginning of the code's version, and the digest of the options."""
    code, _, options = version.rpartition("-")
    return f"{code[:8]}-{options}"


def _autoscaling(deployment: control_pb2.DeploymentStatus) -> str:
    if not deployment.HasField("autoscaling"):
        return ""
    status = deployment.autoscaling
    return _joined(f"scales from {status.min_replicas} to {status.max_replicas}", status.decision, status.problem)


def _replicas(deployment: control_pb2.DeploymentStatus, canary_version: str) -> str:
    own = [each for each in deployment.replicas if each.version != canary_version]
    states = Counter(replica.state for replica in own if replica.state not in _SERVING)
    others = "".join(f", {count} {state.lower()}" for state, count in sorted(states.items()))
    return f"{_running(deployment, own)}{others}"


def _running(deployment: control_pb2.DeploymentStatus, replicas: Iterable[control_pb2.ReplicaStatus]) -> str:
    """The counts in its message, which knows more about the replicas, or else those of the states."""
    counted = _COUNTS.search(_headline(deployment.message))
    if counted is not None:
        return f"{counted[1]} running"
    running = sum(replica.state in _SERVING for replica in replicas)
    return f"{running} of {deployment.target_replicas} replicas running"


def _news(deployment: control_pb2.DeploymentStatus) -> str:
    """Its message, without the counts that the line already shows."""
    return " ".join(_COUNTS.sub("", _headline(deployment.message)).split())


def _joined(*parts: str) -> str:
    return "; ".join(_headline(part).rstrip(".") for part in parts if part.strip())


def _headline(message: str) -> str:
    """The first line: a traceback may follow it."""
    return message.strip().partition("\n")[0]
