"""Constructors and calls of reconfigure() that have taken longer than their deployment allows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.options.rollout_policy import progress_deadline_s_of
from mesh.status import ReplicaState


@dataclass(frozen=True, slots=True)
class OverdueReplica:
    replica_id: str
    title: str
    """Of the replica, as logs name it."""
    message: str
    """What has not happened, in words."""


def overdue_replicas(desired: Desired, observed: Observed, now_s: float) -> Iterator[OverdueReplica]:
    """Those whose user code hangs. The wait for a process does not count: the code has not begun."""
    for replica in observed.replicas:
        began_at_s = _began_at_s(replica)
        if replica.unhealthy or began_at_s is None:
            continue
        deadline_s = progress_deadline_s_of((_target_of(replica, desired) or replica).spec.options)
        if now_s - began_at_s > deadline_s:
            what = "reconfigure()" if replica.state == ReplicaState.UPDATING else "constructor"
            message = f"its {what} has not returned within progress_deadline_s={deadline_s:g}"
            yield OverdueReplica(replica.replica_id, replica.title, f"replica {replica.replica_id}: {message}")


def _began_at_s(replica: Replica) -> float | None:
    """When the user code began that is running now; None if the replica does not wait for any."""
    if replica.state == ReplicaState.UPDATING:
        return replica.since_at_s
    if replica.state == ReplicaState.STARTING and replica.is_placed:
        return max(replica.placed_at_s, replica.created_at_s)
    return None


def _target_of(replica: Replica, desired: Desired) -> DeploymentTarget | None:
    """With the options of now: a new deadline holds for starts that have begun."""
    return desired.target_of(replica.deployment, replica.version)
