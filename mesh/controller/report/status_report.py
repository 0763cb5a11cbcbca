"""The answer to Status. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.plan.gateway_plan import wanted_nodes
from mesh.controller.report.deployment_status import Verdict, application_status
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ApplicationStatus, DeploymentStatus, DeploymentStatusTrigger, GatewayStatus
from mesh.v1 import control_pb2

Verdicts = Mapping[DeploymentKey, Verdict]
ScalingStatuses = Mapping[DeploymentKey, control_pb2.AutoscalingStatus]
Texts = Mapping[DeploymentKey, str]
_NO_SCALING: ScalingStatuses = {}
_NO_TEXTS: Texts = {}


def build_status(
    desired: Desired,
    observed: Observed,
    verdicts: Verdicts,
    now_s: float,
    scaling: ScalingStatuses = _NO_SCALING,
    faults: Texts = _NO_TEXTS,
) -> control_pb2.StatusReply:
    """`scaling`: of deployments that autoscale. `faults`: texts of the controller's own faults, by deployment."""
    reply = control_pb2.StatusReply(
        gateway_options=desired.gateways,
        is_shutting_down=desired.is_shutting_down,
        target_capacity=desired.target_capacity,
    )
    groups = observed.by_deployment()
    by_app: dict[str, list[DeploymentKey]] = {}
    for key in verdicts:
        by_app.setdefault(key.app, []).append(key)
    for app, keys in sorted(by_app.items()):
        reply.applications.append(_application(app, keys, desired, groups, verdicts))
        for deployment in reply.applications[-1].deployments:
            key = DeploymentKey(app, deployment.name)
            deployment.last_ended = observed.last_ended.get(key, "")
            _add_scaling(deployment, scaling.get(key))
            deployment.message = "\n".join(filter(None, (faults.get(key), deployment.message)))
    reply.gateways.extend(_gateways(desired, observed, now_s))
    return reply


def _application(
    app: str,
    keys: Sequence[DeploymentKey],
    desired: Desired,
    groups: Mapping[DeploymentKey, Sequence[Replica]],
    verdicts: Verdicts,
) -> control_pb2.ApplicationStatus:
    deployments = [_deployment(key, groups.get(key, ()), verdicts[key]) for key in sorted(keys)]
    status = control_pb2.ApplicationStatus(name=app, deployments=deployments)
    spec = desired.applications.get(app)
    if spec is None:
        status.status = ApplicationStatus.DELETING
        status.message = "The application is being deleted; its replicas are stopping."
        return status
    wanted = [verdicts[key] for key in keys if key in desired.deployments]
    status.status = application_status(verdict.status for verdict in wanted)
    status.message = _worst_message(status.status, deployments)
    status.route_prefix = spec.route_prefix
    status.ingress = spec.ingress
    status.last_deployed_time_s = spec.last_deployed_time_s
    status.deployer = spec.deployer
    status.run_id = spec.run_id
    return status


def _worst_message(status: str, deployments: Iterable[control_pb2.DeploymentStatus]) -> str:
    if status == ApplicationStatus.RUNNING:
        return ""
    calm = {DeploymentStatus.HEALTHY, DeploymentStatus.UPSCALING, DeploymentStatus.DOWNSCALING}
    return "\n".join(f"{each.name}: {each.message}" for each in deployments if each.status not in calm)


def _deployment(key: DeploymentKey, replicas: Sequence[Replica], verdict: Verdict) -> control_pb2.DeploymentStatus:
    return control_pb2.DeploymentStatus(
        name=key.name,
        status=verdict.status,
        trigger=verdict.trigger,
        message=verdict.message,
        target_replicas=verdict.target.num_replicas if verdict.target else 0,
        replicas=[
            control_pb2.ReplicaStatus(
                replica_id=replica.replica_id,
                state=replica.state,
                node_id=replica.node_id,
                pid=replica.pid,
                address=replica.address,
                stop_reason=", ".join(replica.stop_reasons),
            )
            for replica in replicas
        ],
    )


def _add_scaling(deployment: control_pb2.DeploymentStatus, scaling: control_pb2.AutoscalingStatus | None) -> None:
    """Add the autoscaling status, and to the message what autoscaling decided and what is wrong with its policy."""
    if scaling is None:
        return
    deployment.autoscaling.CopyFrom(scaling)
    notes = [deployment.message]
    if deployment.trigger == DeploymentStatusTrigger.AUTOSCALING:
        notes.append(f"Autoscaling: {scaling.decision}")
    if scaling.problem:
        notes.append(f"Autoscaling policy: {scaling.problem}")
    deployment.message = "\n".join(filter(None, notes))


def _gateways(desired: Desired, observed: Observed, now_s: float) -> Iterable[control_pb2.GatewayStatus]:
    for gateway in observed.gateways:
        failures = observed.gateway_failures.get(gateway.node_id)
        yield control_pb2.GatewayStatus(
            gateway_id=gateway.gateway_id,
            node_id=gateway.node_id,
            status=gateway.state,
            grpc_address=gateway.grpc_address,
            http_address=gateway.http_address,
            message=gateway.unhealthy or ", ".join(gateway.stop_reasons) or (failures.message if failures else ""),
        )
    # Between two attempts to start a gateway there is none, but the status has to say why.
    missing = wanted_nodes(desired, observed, now_s) - {gateway.node_id for gateway in observed.gateways}
    for node_id in sorted(missing & observed.gateway_failures.keys()):
        yield control_pb2.GatewayStatus(
            node_id=node_id, status=GatewayStatus.UNHEALTHY, message=observed.gateway_failures[node_id].message
        )
