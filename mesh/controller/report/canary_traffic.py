"""How callers divide the requests of applications between their versions and their canaries. Pure.

Theory of operation. A request that is decided for a canary needs a replica of it in each deployment that it comes to:
where there is none the version beside serves its calls, so that it meets two versions. So a canary opens in two steps.
While not all of its deployments serve, or callers are just hearing of those replicas, its replicas are listed with a
rule by which every request is decided for the version beside. Then the rule is the one that was asked for. When a
deployment of the canary has lost its last replica the canary closes in the same way, until another one serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from mesh.controller.desired.desired_state import Desired
from mesh.controller.plan.cluster_picture import Observed
from mesh.routing.snapshot import DeploymentKey
from mesh.settings import settings
from mesh.v1 import control_pb2


def closed_canaries(desired: Desired, observed: Observed, now_s: float) -> Set[str]:
    """The applications whose canaries get no requests now. Those of which no replica is wanted are not among them."""
    if not desired.canary_applications:
        return frozenset()
    delay_s = settings().controller.canary_open_delay_s
    groups = observed.by_deployment()
    closed = set()
    for key, target in desired.canaries.items():
        replicas = desired.of_canary(key, groups.get(key, ()))
        # One that is replaced while others serve changes nothing: callers know the others.
        known_since_at_s = min(
            (each.ready_at_s for each in replicas if each.is_serving and each.version == target.version),
            default=float("inf"),
        )
        if target.num_replicas and now_s - known_since_at_s < delay_s:
            closed.add(key.app)
    return closed


def rule_for(app: str, desired: Desired, closed: Set[str]) -> control_pb2.TrafficRule | None:
    """By which callers decide now; None: there is no canary. An empty rule decides for the version beside it."""
    canary = desired.canary_applications.get(app)
    if canary is None:
        return None
    return control_pb2.TrafficRule() if app in closed else canary.traffic


def add_traffic(
    snapshots: Mapping[DeploymentKey, control_pb2.DeploymentSnapshot],
    desired: Desired,
    observed: Observed,
    closed: Set[str],
) -> None:
    """Add what callers of an application with a canary need to divide its requests. `closed`: see above."""
    versions = {each.replica_id: each.version for each in observed.replicas}
    canary_versions: dict[str, dict[str, str]] = {}
    for key, target in desired.canaries.items():
        canary_versions.setdefault(key.app, {})[key.name] = target.version
    for key, snapshot in snapshots.items():
        rule = rule_for(key.app, desired, closed)
        if rule is None:
            continue
        snapshot.traffic.CopyFrom(rule)
        snapshot.canary_versions.update(canary_versions.get(key.app, {}))
        # A deployment that only the canary has is reached from its replicas only: nothing is divided there.
        if desired.is_divided(key):
            snapshot.canary_version = desired.canaries[key].version
            for replica in snapshot.replicas:
                replica.version = versions.get(replica.replica_id, "")
