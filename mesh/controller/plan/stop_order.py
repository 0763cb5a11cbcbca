"""The order in which unwanted deployments stop: callers before the deployments they call. Pure.

The callees of a deployment are known from its replicas: each carries the spec that it was started with. So the order
holds too while a version that is being replaced calls a deployment that the new version no longer calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mesh.controller.plan.cluster_picture import Replica
from mesh.routing.snapshot import DeploymentKey

_Calls = Mapping[DeploymentKey, set[DeploymentKey]]


def still_called(
    unwanted: Iterable[DeploymentKey], groups: Mapping[DeploymentKey, Sequence[Replica]], now_s: float
) -> set[DeploymentKey]:
    """Those of `unwanted` that may still be called.

    Deployments that call each other in a circle do not wait for each other. A caller that is overdue is not waited for,
    so each stage takes at most the drain timeout of its slowest replica and the margin.
    """
    callees = _callees(groups, now_s)
    callers = _reversed(callees)
    return {key for key in unwanted if _reachable(key, callers) - _reachable(key, callees) - {key}}


def is_overdue(replica: Replica, now_s: float) -> bool:
    return replica.is_leaving and replica.drain.is_overdue(replica.since_at_s, now_s)


def _callees(groups: Mapping[DeploymentKey, Sequence[Replica]], now_s: float) -> _Calls:
    """The deployments that are called by replicas which may still execute calls."""
    calls: dict[DeploymentKey, set[DeploymentKey]] = {}
    for key, replicas in groups.items():
        # Replicas of one version share their spec: looking at each version once is enough.
        specs = {replica.version: replica.spec for replica in replicas if _may_call(replica, now_s)}
        names = {name for spec in specs.values() for name in spec.callees}
        if names:
            calls[key] = {DeploymentKey(key.app, name) for name in names}
    return calls


def _may_call(replica: Replica, now_s: float) -> bool:
    return replica.is_serving or (replica.is_leaving and not is_overdue(replica, now_s))


def _reversed(calls: _Calls) -> _Calls:
    callers: dict[DeploymentKey, set[DeploymentKey]] = {}
    for caller, callees in calls.items():
        for callee in callees:
            callers.setdefault(callee, set()).add(caller)
    return callers


def _reachable(start: DeploymentKey, edges: _Calls) -> set[DeploymentKey]:
    found: set[DeploymentKey] = set()
    left = [start]
    while left:
        for key in edges.get(left.pop(), ()):
            if key not in found:
                found.add(key)
                left.append(key)
    return found
