"""The decision what to do next: a pure function of the desired state, the observed cluster and the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mesh.controller.desired.controller_faults import Problems, confined
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.actions import (
    Action,
    KillReplica,
    Plan,
    Reason,
    ReconfigureReplica,
    StartReplica,
    StopReplica,
)
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.plan.gateway_plan import plan_gateways
from mesh.controller.plan.replica_placement import DeploymentPlacement, NodeAssignment, Shortage
from mesh.controller.plan.rollout import is_given_up, missing_predecessors, next_step
from mesh.controller.plan.stop_order import is_overdue, still_called
from mesh.defaults.control_settings import ControllerSettings
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ReplicaState


def plan(desired: Desired, observed: Observed, now_s: float, limits: ControllerSettings | None = None) -> Plan:
    """The actions missing between `observed` and `desired`. Empty when nothing is."""
    problems: Problems = {}
    replicas = _plan_replicas(desired, ClusterResources(observed, now_s, limits), problems)
    return Plan((*plan_gateways(desired, observed, now_s), *replicas), problems)


def _plan_replicas(desired: Desired, resources: ClusterResources, problems: Problems) -> list[Action]:
    observed, now_s = resources.observed, resources.now_s
    groups = observed.by_deployment()
    actions: list[Action] = []
    for key, target in (*desired.deployments.items(), *desired.retained.items()):
        with confined(key, problems):
            # A plan is whole or not at all: starts without their stops would be another one.
            beside = desired.beside_canaries(key, groups.get(key, ()))
            actions += tuple(_plan_deployment(target, beside, resources))
    for key, canary in desired.canaries.items():
        with confined(key, problems):
            replicas = desired.of_canary(key, groups.get(key, ()))
            actions += tuple(_plan_deployment(canary, replicas, resources))
    unwanted = groups.keys() - desired.kept
    if unwanted:
        actions += _plan_unwanted(sorted(unwanted), groups, desired, observed, now_s)
    return actions


def _plan_unwanted(
    unwanted: Sequence[DeploymentKey],
    groups: Mapping[DeploymentKey, Sequence[Replica]],
    desired: Desired,
    observed: Observed,
    now_s: float,
) -> Iterator[Action]:
    # Clients come through gateways: what these still carry needs all the replicas there are.
    is_early = desired.is_shutting_down and bool(observed.gateways)
    held = set(unwanted) if is_early else still_called(unwanted, groups, now_s)
    reason = Reason.SHUTDOWN if desired.is_shutting_down else Reason.DELETED
    for key in unwanted:
        replicas = groups[key]
        yield from _stops(
            (each, reason) for each in replicas if not each.is_leaving and not (key in held and each.is_serving)
        )
        yield from _overdue(replicas, now_s)


def _plan_deployment(
    target: DeploymentTarget, replicas: Sequence[Replica], resources: ClusterResources
) -> Iterator[Action]:
    if not is_settled(target, replicas):
        yield from _next_actions(target, replicas, resources)


def is_settled(target: DeploymentTarget, replicas: Sequence[Replica]) -> bool:
    """As wanted, so that there is nothing to do. Of thousands of deployments nearly all are."""
    if len(replicas) != target.num_replicas or target.predecessor is not None:
        return False
    version, config_version = target.version, target.config_version
    for each in replicas:
        is_as_wanted = each.version == version and each.config_version == config_version
        if not is_as_wanted or each.state is not ReplicaState.RUNNING or each.unhealthy or each.not_ready:
            return False
        if each.node_ends_at_s is not None:
            return False
    return True


def _next_actions(
    target: DeploymentTarget, replicas: Sequence[Replica], resources: ClusterResources
) -> Iterator[Action]:
    failures = resources.observed.failures_of(target.key, target.version)
    placement = DeploymentPlacement(resources, target.request, replicas, target.version)
    shortage = placement.reserve_for_waiting()
    gave_up = is_given_up(target, replicas, failures)
    returning = _returning(target, replicas, placement, is_given_up=gave_up)
    step = next_step(target, replicas, failures, shortage, placement, len(returning))
    assignments = placement.reserve(step.starts)
    if len(assignments) < step.starts:
        # Starts that have to wait for a node are unschedulable too: old replicas may be preempted for them.
        shortage = Shortage(shortage.unschedulable + step.starts - len(assignments))
        step = next_step(target, replicas, failures, shortage, placement, len(returning))
    placement.preempt(step.preempted, shortage.unschedulable)
    # With the same version before, replicas start with what has worked, and take over the wanted configuration later.
    is_known = target.predecessor is not None and not target.has_other_version_before
    yield from (StartReplica(target.key, assignment, Reason.KEPT, is_predecessor=True) for assignment in returning)
    yield from (
        StartReplica(target.key, assignment, step.start_reason, is_known, target.is_canary)
        for assignment in assignments
    )
    yield from _stops(step.reasoned_stops)
    yield from (ReconfigureReplica(replica.replica_id) for replica in step.reconfigures)
    yield from _overdue(replicas, resources.now_s)


def _returning(
    target: DeploymentTarget, replicas: Sequence[Replica], placement: DeploymentPlacement, *, is_given_up: bool
) -> list[NodeAssignment]:
    """Where replicas of the version before start, so that it keeps its number.

    While the wanted version is still being rolled out, only where there is room: it may have made that for itself.
    """
    missing = missing_predecessors(target, replicas, placement, is_given_up=is_given_up)
    if not missing or target.predecessor is None:
        return []
    before = placement.of_version(target.predecessor.request, target.predecessor.version)
    before.reserve_for_waiting()
    stands_still = is_given_up or target.is_held
    return [each for each in before.reserve(missing) if stands_still or each.node_ids]


def _stops(stops: Iterable[tuple[Replica, Reason]]) -> Iterator[Action]:
    for replica, reason in stops:
        # A starting replica has no calls to drain; a zero drain timeout means kill immediately.
        is_immediate = replica.state == ReplicaState.STARTING or replica.drain.is_immediate
        action = KillReplica if is_immediate else StopReplica
        yield action(replica.replica_id, reason)


def _overdue(replicas: Iterable[Replica], now_s: float) -> Iterator[Action]:
    return (KillReplica(replica.replica_id, Reason.OVERDUE) for replica in replicas if is_overdue(replica, now_s))
