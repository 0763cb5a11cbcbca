"""Constructors, calls of reconfigure() and waits for check_ready() that take longer than allowed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.options.deployments.rollout_policy import progress_deadline_s_of
from mesh.status import ReplicaState


@dataclass(frozen=True, slots=True)
class OverdueReplica:
    replica_id: str
    title: str
    """The replica's name in logs."""
    message: str
    """What has not happened, in words."""


def overdue_replicas(desired: Desired, observed: Observed, now_s: float) -> Iterator[OverdueReplica]:
    """Those whose user code hangs. The wait for a process does not count: the code has not begun."""
    for replica in observed.replicas:
        target = _target_of(replica, desired)
        began_at_s = _began_at_s(replica, target)
        if replica.unhealthy or began_at_s is None or is_held(replica, target):
            continue
        deadline_s = progress_deadline_s_of((target or replica).spec.options)
        if now_s - max(began_at_s, replica.held_at_s) > deadline_s:
            message = f"{_missing(replica)} within progress_deadline_s={deadline_s:g}"
            if replica.not_ready:
                message += f": {replica.not_ready}"
            yield OverdueReplica(replica.replica_id, replica.title, f"replica {replica.replica_id}: {message}")


def held_replicas(desired: Desired, observed: Observed) -> list[str]:
    """Those whose rollout is paused: what they take until it is resumed is no one's fault.

    Only those whose user code runs: what the others begin later begins after the pause, or in it.
    """
    if not any(target.is_held for target in desired.deployments.values()):
        return []
    waiting = (each for each in observed.replicas if _may_wait(each))
    return [each.replica_id for each in waiting if is_held(each, _target_of(each, desired))]


def is_held(replica: Replica, target: DeploymentTarget | None) -> bool:
    """The replica is of a rollout that is paused."""
    return target is not None and target.is_held and target.version == replica.version


def _may_wait(replica: Replica) -> bool:
    """For user code, whatever its version has proven: see `_began_at_s`."""
    return replica.state in (ReplicaState.UPDATING, ReplicaState.STARTING) or replica.unready_at_s is not None


def _missing(replica: Replica) -> str:
    if replica.state == ReplicaState.UPDATING:
        return "its reconfigure() has not returned"
    return "it was not ready for calls" if replica.is_up else "its constructor has not returned"


def _began_at_s(replica: Replica, target: DeploymentTarget | None) -> float | None:
    """When the user code began that is running now; None if the replica does not wait for any.

    A replica that has never been ready counts until its version is proven, as it holds up the rollout, the first deploy
    or the canary. Afterwards it waits for something that another replica would wait for too.
    """
    if replica.state == ReplicaState.UPDATING:
        return replica.since_at_s
    if replica.state == ReplicaState.STARTING and replica.is_placed:
        return max(replica.placed_at_s, replica.created_at_s)
    if target is None or target.is_proven or target.version != replica.version:
        return None
    return replica.unready_at_s if replica.is_up else None


def _target_of(replica: Replica, desired: Desired) -> DeploymentTarget | None:
    """With the options of now: a new deadline holds for starts that have begun."""
    return desired.target_of(replica.deployment, replica.version)
