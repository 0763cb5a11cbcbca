"""Owns the decision what to do next: a pure function of what shall be, what is, and the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mesh.controller.actions import Action, KillReplica, Plan, ReconfigureReplica, StartReplica, StopReplica
from mesh.controller.desired import DeploymentTarget, Desired
from mesh.controller.gateway_plan import plan_gateways
from mesh.controller.observe import Observed, Replica
from mesh.controller.rollout import next_step

KILL_MARGIN_S = 5.0
"""A replica that outlasts its graceful shutdown by this much is killed."""


def plan(desired: Desired, observed: Observed, now_s: float) -> Plan:
    """The actions missing between `observed` and `desired`. Empty when nothing is."""
    return Plan((*plan_gateways(desired, observed, now_s), *_plan_replicas(desired, observed, now_s)))


def is_finished(desired: Desired, observed: Observed) -> bool:
    """A shutdown is complete."""
    return desired.is_shutting_down and not observed.replicas and not observed.gateways


def _plan_replicas(desired: Desired, observed: Observed, now_s: float) -> Iterator[Action]:
    groups = observed.by_deployment()
    for key, target in desired.deployments.items():
        yield from _plan_deployment(target, groups.pop(key, ()), observed, now_s)
    # Clients come through gateways: what these still carry needs its replicas.
    must_wait = desired.is_shutting_down and bool(observed.gateways)
    for replicas in groups.values():
        if not must_wait:
            yield from _stops(replica for replica in replicas if not replica.is_leaving)
        yield from _overdue(replicas, now_s)


def _plan_deployment(
    target: DeploymentTarget, replicas: Sequence[Replica], observed: Observed, now_s: float
) -> Iterator[Action]:
    step = next_step(target, replicas, observed.failures_of(target.key, target.version), now_s)
    yield from (StartReplica(target.key) for _ in range(step.starts))
    yield from _stops(step.stops)
    yield from (ReconfigureReplica(replica.replica_id) for replica in step.reconfigures)
    yield from _overdue(replicas, now_s)


def _stops(replicas: Iterable[Replica]) -> Iterator[Action]:
    for replica in replicas:
        # Without a process there is nobody to drain, and without a drain timeout nothing to wait for.
        is_immediate = not replica.is_placed or replica.drain_timeout_s <= 0
        yield KillReplica(replica.replica_id) if is_immediate else StopReplica(replica.replica_id)


def _overdue(replicas: Iterable[Replica], now_s: float) -> Iterator[Action]:
    for replica in replicas:
        if replica.is_leaving and now_s - replica.since_s > replica.drain_timeout_s + KILL_MARGIN_S:
            yield KillReplica(replica.replica_id)
