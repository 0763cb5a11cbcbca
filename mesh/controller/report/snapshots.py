"""The snapshots for callers and the route table for gateways. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from mesh.controller.desired.autoscaling_targets import load_interval_s
from mesh.controller.desired.changes.generations import is_proven
from mesh.controller.desired.changes.state_edits import ingress_of
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.report.canary_traffic import add_traffic, rule_for
from mesh.controller.report.deployment_status import Verdict
from mesh.routing.snapshot import DeploymentKey
from mesh.status import DeploymentStatus
from mesh.v1 import control_pb2

_NOTHING = Observed()


class _Built(NamedTuple):
    target: DeploymentTarget
    replicas: Sequence[Replica]
    verdict: Verdict | None
    snapshot: control_pb2.DeploymentSnapshot


class SnapshotMemory:
    """The snapshots that were built last, each with what it was made of: of thousands few change from turn to turn."""

    def __init__(self) -> None:
        self._built: dict[DeploymentKey, _Built] = {}

    def wanted_snapshot(
        self, target: DeploymentTarget, replicas: Sequence[Replica], verdict: Verdict | None
    ) -> control_pb2.DeploymentSnapshot:
        """Of a deployment without a canary. The message is the last one where that holds: only its version may differ.

        Replicas are the same, nearly always, so that comparing them costs next to nothing.
        """
        built = self._built.get(target.key)
        if built and built.target is target and built.verdict is verdict and built.replicas == replicas:
            return built.snapshot
        snapshot = _wanted_snapshot(target, None, replicas, verdict)
        self._built[target.key] = _Built(target, replicas, verdict, snapshot)
        return snapshot

    def keep(self, keys: Set[DeploymentKey]) -> None:
        """Forget other deployments."""
        for key in self._built.keys() - keys:
            del self._built[key]


def build_snapshots(
    desired: Desired,
    observed: Observed,
    verdicts: Mapping[DeploymentKey, Verdict],
    closed: Set[str] = frozenset(),
    memory: SnapshotMemory | None = None,
) -> dict[DeploymentKey, control_pb2.DeploymentSnapshot]:
    """A snapshot, without version, of every deployment that is wanted or still serves its last callers.

    `closed`: applications whose canaries get no requests.
    """
    groups, memory = observed.by_deployment(), memory or SnapshotMemory()
    lost = {each.deployment for each in observed.departed if each.is_lost}
    divided = desired.canary_applications
    memory.keep({key for key in desired.targets if key not in lost and key.app not in divided})
    snapshots = {}
    for key, target in desired.targets.items():
        replicas, verdict = groups.pop(key, []), verdicts.get(key)
        if key in lost or key.app in divided:  # more is added to these below
            snapshots[key] = _wanted_snapshot(target, desired.canaries.get(key), replicas, verdict)
        else:
            snapshots[key] = memory.wanted_snapshot(target, replicas, verdict)
    for key, replicas in groups.items():
        serving = _serving(replicas)
        if serving:
            snapshots[key] = _snapshot(key, serving[-1].spec.options, serving)
    for departed in observed.departed:
        if departed.is_lost and departed.deployment in snapshots:
            snapshots[departed.deployment].lost_replica_ids.append(departed.replica_id)
    if divided:
        add_traffic(snapshots, desired, observed, closed)
    return snapshots


def missing_snapshot(key: DeploymentKey, desired: Desired) -> control_pb2.DeploymentSnapshot:
    """The snapshot for callers of a deployment that does not exist; it names those that do."""
    application = desired.applications.get(key.app)
    if application is None:
        known = ", ".join(sorted(desired.applications)) or "none"
        reason = f"Application {key.app!r} does not exist. Applications: {known}."
    else:
        known = ", ".join(sorted(deployment.name for deployment in application.deployments))
        reason = f"Application {key.app!r} has no deployment {key.name!r}. Its deployments: {known}."
    deployment = {"app": key.app, "name": key.name}
    return control_pb2.DeploymentSnapshot(deployment=deployment, unavailable=reason, is_missing=True)


def build_routes(
    desired: Desired, observed: Observed = _NOTHING, closed: Set[str] = frozenset()
) -> control_pb2.RouteTable:
    """The routes of all applications, without version. They name descriptors, whose bytes each stream gets once."""
    table = control_pb2.RouteTable()
    for _, application in sorted(_routed(desired, observed).items()):
        ingress = ingress_of(application)
        table.routes.add(
            app=application.name,
            route_prefix=application.route_prefix,
            ingress=application.ingress,
            grpc_methods=ingress.grpc_methods,
            serves_web=ingress.serves_web,
            docs_path=ingress.docs_path,
            model_id_paths=ingress.model_id_paths,
            descriptors_digest=application.descriptors_digest,
            traffic=rule_for(application.name, desired, closed),
        )
    return table


def _routed(desired: Desired, observed: Observed) -> dict[str, control_pb2.ApplicationSpec]:
    """The version of each application that callers from outside reach.

    Another ingress gets their calls when the wanted version is proven, one of the same name when it serves.
    """
    routed = dict(desired.applications)
    prefixes = {app.route_prefix for app in routed.values()}
    groups = observed.by_deployment() if desired.predecessors else {}
    for name, before in desired.predecessors.items():
        wanted = routed[name]
        if before.ingress == wanted.ingress:
            replicas = groups.get(DeploymentKey(name, wanted.ingress), ())
            routed[name] = _with_methods_of(before, wanted, replicas)
        elif not is_proven(wanted):
            routed[name] = _copy(before)
        if routed[name].route_prefix != wanted.route_prefix and routed[name].route_prefix in prefixes:
            routed[name].route_prefix = ""  # another application has it now
    return routed


def _with_methods_of(
    before: control_pb2.ApplicationSpec, wanted: control_pb2.ApplicationSpec, replicas: Iterable[Replica]
) -> control_pb2.ApplicationSpec:
    """The version that serves, the wanted one if both do, with the gRPC methods of each that `replicas` serve."""
    serving = {each.version for each in replicas if each.is_serving}
    generations = [app for app in (before, wanted) if ingress_of(app).version in serving] or [wanted]
    merged = _copy(generations[-1])
    methods = {method.full_name: method for app in generations for method in ingress_of(app).grpc_methods}
    ingress = ingress_of(merged)
    del ingress.grpc_methods[:]
    ingress.grpc_methods.extend(methods.values())
    return merged


def _copy(app: control_pb2.ApplicationSpec) -> control_pb2.ApplicationSpec:
    copy = control_pb2.ApplicationSpec()
    copy.CopyFrom(app)
    return copy


def _wanted_snapshot(
    target: DeploymentTarget,
    canary: DeploymentTarget | None,
    replicas: Sequence[Replica],
    verdict: Verdict | None,
) -> control_pb2.DeploymentSnapshot:
    serving = _without_surplus(target, canary, _serving(replicas))
    snapshot = _snapshot(target.key, target.spec.options, serving)
    is_hopeless = verdict and (verdict.status == DeploymentStatus.DEPLOY_FAILED or verdict.is_given_up)
    if verdict and not serving and is_hopeless and not _returns_to_predecessor(target, replicas):
        # Callers and clients get the reason without its traceback, which only `mesh status` shows.
        snapshot.unavailable = verdict.message.partition("\n")[0]
    return snapshot


def _returns_to_predecessor(target: DeploymentTarget, replicas: Iterable[Replica]) -> bool:
    """Whether replicas of the version before start again after a failed update, which had taken their places."""
    before = target.predecessor if target.has_other_version_before else None
    return before is not None and any(each.stays_as(before.version) for each in replicas)


def _without_surplus(
    target: DeploymentTarget, canary: DeploymentTarget | None, serving: list[Replica]
) -> list[Replica]:
    """Without replicas of versions that are not wanted, where enough others serve: they stop next.

    Those of a canary that has ended would get a full share of the calls until then.
    """
    kept = {each.version for each in (target, target.predecessor, canary) if each is not None}
    wanted = [replica for replica in serving if replica.version in kept]
    beside_canary = sum(canary is None or replica.version != canary.version for replica in wanted)
    return wanted if beside_canary >= target.num_replicas else serving


def _serving(replicas: Iterable[Replica]) -> list[Replica]:
    return sorted((replica for replica in replicas if replica.is_serving), key=lambda replica: replica.replica_id)


def _snapshot(
    key: DeploymentKey, options: control_pb2.DeploymentOptions, serving: Iterable[Replica]
) -> control_pb2.DeploymentSnapshot:
    snapshot = control_pb2.DeploymentSnapshot(
        deployment={"app": key.app, "name": key.name},
        max_ongoing_requests=options.max_ongoing_requests,
        max_queued_requests=options.max_queued_requests,
        queue_timeout_s=options.queue_timeout_s,
        backpressure=options.backpressure if options.HasField("backpressure") else None,
        request_router=options.request_router if options.HasField("request_router") else None,
        load_interval_s=load_interval_s(options),
        starts_on_demand=options.HasField("autoscaling") and options.autoscaling.min_replicas == 0,
    )
    for replica in serving:
        snapshot.replicas.add(
            replica_id=replica.replica_id, address=replica.address, node_id=replica.node_id, zone=replica.zone
        )
    return snapshot
