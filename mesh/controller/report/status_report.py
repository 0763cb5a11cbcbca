"""The answer to Status. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from mesh.controller.desired.changes.state_edits import ingress_of
from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import NO_TALLY, Replica
from mesh.controller.plan.rollout import is_given_up
from mesh.controller.report.canary_traffic import closed_canaries
from mesh.controller.report.deployment_status import (
    Verdict,
    application_status,
    canary_message,
    faulty_verdict,
)
from mesh.controller.report.mesh_picture import ControllerIdentity, MeshPicture
from mesh.controller.report.node_statuses import node_statuses
from mesh.controller.scaling.scaling_rule import Load
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ApplicationStatus, DeploymentStatus, DeploymentStatusTrigger, GatewayStatus
from mesh.v1 import control_pb2

_NO_LOAD = Load()


def build_status(picture: MeshPicture, applications: Collection[str] = ()) -> control_pb2.StatusReply:
    """The status of the mesh, with these applications, or with all if none is named."""
    desired = picture.desired
    reply = control_pb2.StatusReply(
        gateway_options=desired.gateways,
        gateways_revision=desired.gateways_revision,
        gateways_wanted=len(picture.wanted_gateways),
        is_shutting_down=desired.is_shutting_down,
        target_capacity=desired.target_capacity,
    )
    for app in applications or picture.deployments:
        if app not in picture.deployments:
            continue
        deployments = [_deployment(key, picture.replicas.get(key, ()), picture) for key in picture.deployments[app]]
        status = _application(app, deployments, desired)
        # Their own notes follow: they are not part of the message of the application.
        for deployment in deployments:
            _add_notes(deployment, DeploymentKey(app, deployment.name), picture)
        status.deployments.extend(deployments)
        if app in desired.canary_applications:
            status.canary.CopyFrom(_canary(app, picture))
        reply.applications.append(status)
    reply.gateways.extend(_gateways(picture))
    if not applications:
        reply.nodes.extend(node_statuses(picture))
    return reply


def has_running(reply: control_pb2.StatusReply) -> bool:
    """Whether one of the applications runs."""
    return any(each.status == ApplicationStatus.RUNNING for each in reply.applications)


def healthy_gateways(reply: control_pb2.StatusReply) -> int:
    """How many there are."""
    return sum(each.status == GatewayStatus.HEALTHY for each in reply.gateways)


def _canary(app: str, picture: MeshPicture) -> control_pb2.CanaryStatus:
    spec = picture.desired.canary_applications[app]
    status = control_pb2.CanaryStatus(
        traffic=spec.traffic,
        last_deployed_time_s=spec.last_deployed_time_s,
        run_id=spec.run_id,
        is_closed=app in closed_canaries(picture.desired, picture.observed, picture.now_s),
    )
    for key, target in sorted(picture.desired.canaries.items()):
        if key.app != app:
            continue
        replicas = [each for each in picture.replicas.get(key, ()) if each.version == target.version]
        failures = picture.observed.failures_of(key, target.version)
        status.deployments.add(
            name=key.name,
            version=target.version,
            running_replicas=sum(each.is_serving for each in replicas),
            target_replicas=target.num_replicas,
            message=canary_message(target, replicas, failures),
            is_given_up=is_given_up(target, replicas, failures),
        )
    return status


def controller_status(identity: ControllerIdentity, unix_time_s: float) -> control_pb2.ControllerStatus:
    return control_pb2.ControllerStatus(
        pid=identity.pid,
        node_id=identity.node_id,
        age_s=unix_time_s - identity.started_unix_s,
        restarts=identity.restarts,
    )


def _application(
    app: str, deployments: Sequence[control_pb2.DeploymentStatus], desired: Desired
) -> control_pb2.ApplicationStatus:
    status = control_pb2.ApplicationStatus(name=app)
    spec = desired.applications.get(app)
    if spec is None:
        status.status = ApplicationStatus.DELETING
        status.message = "The application is being deleted; its replicas are stopping."
        return status
    wanted = [each for each in deployments if DeploymentKey(app, each.name) in desired.deployments]
    status.status = application_status(DeploymentStatus(each.status) for each in wanted)
    if status.status == ApplicationStatus.RUNNING and not desired.is_succeeded(app):
        status.status = ApplicationStatus.DEPLOYING
    status.message = _worst_message(status.status, deployments)
    status.route_prefix = spec.route_prefix
    status.ingress = spec.ingress
    status.last_deployed_time_s = spec.last_deployed_time_s
    status.deployer = spec.deployer
    status.run_id = spec.run_id
    status.config_name = spec.config_name
    status.revision = spec.revision
    status.rolled_back_because = spec.rolled_back_because
    status.docs_path = ingress_of(spec).docs_path
    return status


def _worst_message(status: str, deployments: Iterable[control_pb2.DeploymentStatus]) -> str:
    """What is wrong with each deployment; what has failed stands before what is being updated."""
    if status == ApplicationStatus.RUNNING:
        return ""
    calm = {DeploymentStatus.HEALTHY, DeploymentStatus.UPSCALING, DeploymentStatus.DOWNSCALING}
    troubled = [each for each in deployments if each.status not in calm]
    troubled.sort(key=lambda each: each.status == DeploymentStatus.UPDATING)
    return "\n".join(f"{each.name}: {each.message}" for each in troubled)


def _deployment(key: DeploymentKey, replicas: Sequence[Replica], picture: MeshPicture) -> control_pb2.DeploymentStatus:
    verdict, fault = picture.verdicts[key], picture.faults.get(key)
    if fault is not None:
        verdict = faulty_verdict(verdict, fault)
    load, tally = picture.loads.get(key, _NO_LOAD), picture.observed.tallies.get(key, NO_TALLY)
    return control_pb2.DeploymentStatus(
        name=key.name,
        status=verdict.status,
        trigger=verdict.trigger,
        message=verdict.message,
        target_replicas=verdict.target.num_replicas if verdict.target else 0,
        is_paused=verdict.target is not None and verdict.target.spec.is_paused,
        last_ended=picture.observed.last_ended.get(key, ""),
        busy=load.ongoing,
        waiting=load.queued,
        places=sum(_options(replica, verdict).max_ongoing_requests for replica in replicas if replica.is_serving),
        restarts=sum(tally.restarts.values()),
        deaths=[
            control_pb2.ReplicaDeath(
                replica_id=death.replica_id,
                age_s=picture.now_s - death.at_s,
                reason=death.reason,
                version=death.version,
                node_id=death.node_id,
            )
            for death in tally.deaths
        ],
        replicas=[
            control_pb2.ReplicaStatus(
                replica_id=replica.replica_id,
                state=replica.state,
                node_id=replica.node_id,
                pid=replica.pid,
                address=replica.address,
                stop_reason=", ".join(replica.stop_reasons),
                not_ready=replica.not_ready,
                version=replica.version,
                age_s=picture.now_s - replica.created_at_s,
            )
            for replica in replicas
        ],
    )


def _options(replica: Replica, verdict: Verdict) -> control_pb2.DeploymentOptions:
    """A replica adopts a new limit while it serves, so those of the target are newer than its own."""
    return verdict.target.spec.options if verdict.target else replica.spec.options


def _add_notes(deployment: control_pb2.DeploymentStatus, key: DeploymentKey, picture: MeshPicture) -> None:
    """Add to the message what autoscaling decided, and what is wrong with its policy."""
    notes = [deployment.message]
    scaling = picture.scaling.get(key)
    if scaling is not None:
        deployment.autoscaling.CopyFrom(scaling)
        if deployment.trigger == DeploymentStatusTrigger.AUTOSCALING:
            notes.append(f"Autoscaling: {scaling.decision}")
        if scaling.problem:
            notes.append(f"Autoscaling policy: {scaling.problem}")
    deployment.message = "\n".join(filter(None, notes))


def _gateways(picture: MeshPicture) -> Iterable[control_pb2.GatewayStatus]:
    observed = picture.observed
    for gateway in observed.gateways:
        failures = observed.gateway_failures.get(gateway.slot)
        yield control_pb2.GatewayStatus(
            gateway_id=gateway.gateway_id,
            node_id=gateway.slot.node_id,
            index=gateway.slot.index,
            revision=gateway.slot.revision,
            status=gateway.state,
            grpc_address=gateway.grpc_address,
            http_address=gateway.http_address,
            message=gateway.unhealthy or ", ".join(gateway.stop_reasons) or (failures.message if failures else ""),
        )
    # Between two attempts to start a gateway there is none, but the status has to say why.
    if not observed.gateway_failures:
        return
    missing = picture.wanted_gateways - {gateway.slot for gateway in observed.gateways}
    for slot in sorted(missing & observed.gateway_failures.keys()):
        yield control_pb2.GatewayStatus(
            node_id=slot.node_id,
            index=slot.index,
            revision=slot.revision,
            status=GatewayStatus.UNHEALTHY,
            message=observed.gateway_failures[slot].message,
        )
