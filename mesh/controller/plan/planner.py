"""Owns the decision what to do next: a pure function of what shall be, what is, and the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mesh.controller.desired.controller_faults import Problems, confined
from mesh.controller.desired.desired_state import DeploymentTarget, Desired
from mesh.controller.plan.actions import Action, KillReplica, Plan, ReconfigureReplica, StartReplica, StopReplica
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.plan.gateway_plan import plan_gateways
from mesh.controller.plan.replica_placement import Ledger, Room
from mesh.controller.plan.rollout import next_step
from mesh.controller.plan.stop_order import held_back, is_overdue
from mesh.routing.snapshot import DeploymentKey
from mesh.status import ReplicaState


def plan(desired: Desired, observed: Observed, now_s: float) -> Plan:
    """The actions missing between `observed` and `desired`. Empty when nothing is."""
    problems: Problems = {}
    replicas = _plan_replicas(desired, observed, now_s, problems)
    return Plan((*plan_gateways(desired, observed, now_s), *replicas), problems)


def is_finished(desired: Desired, observed: Observed) -> bool:
    """A shutdown is complete."""
    return desired.is_shutting_down and not observed.replicas and not observed.gateways


def _plan_replicas(desired: Desired, observed: Observed, now_s: float, problems: Problems) -> list[Action]:
    groups = observed.by_deployment()
    ledger = Ledger(observed, now_s)
    actions: list[Action] = []
    for key, target in desired.deployments.items():
        with confined(key, problems):
            # A plan is whole or not at all: starts without their stops would be another one.
            actions += tuple(_plan_deployment(target, groups.get(key, ()), ledger))
    unwanted = groups.keys() - desired.deployments.keys()
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
    held = set(unwanted) if is_early else held_back(unwanted, groups, now_s)
    for key in unwanted:
        replicas = groups[key]
        yield from _stops(each for each in replicas if not each.is_leaving and not (key in held and each.is_serving))
        yield from _overdue(replicas, now_s)


def _plan_deployment(target: DeploymentTarget, replicas: Sequence[Replica], ledger: Ledger) -> Iterator[Action]:
    failures, now_s = ledger.observed.failures_of(target.key, target.version), ledger.now_s
    room = Room(ledger, target.ask, replicas, target.version)
    step = next_step(target, replicas, failures, room, now_s)
    spots = room.spots(step.starts)
    if len(spots) < step.starts:
        # Some may not start before there is a node for them: perhaps others can make room.
        step = next_step(target, replicas, failures, room, now_s)
    yield from (StartReplica(target.key, spot) for spot in spots)
    yield from _stops(step.stops)
    yield from (ReconfigureReplica(replica.replica_id) for replica in step.reconfigures)
    yield from _overdue(replicas, now_s)


def _stops(replicas: Iterable[Replica]) -> Iterator[Action]:
    for replica in replicas:
        # Who has not started serves nobody, and without a drain timeout there is nothing to wait for.
        is_immediate = replica.state == ReplicaState.STARTING or replica.drain_timeout_s <= 0
        yield KillReplica(replica.replica_id) if is_immediate else StopReplica(replica.replica_id)


def _overdue(replicas: Iterable[Replica], now_s: float) -> Iterator[Action]:
    return (KillReplica(replica.replica_id) for replica in replicas if is_overdue(replica, now_s))
