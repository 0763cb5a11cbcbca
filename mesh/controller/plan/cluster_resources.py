"""The resources of all nodes while one plan is made, and how far replicas are on the way to theirs. Pure.

Theory of operation. `ClusterResources` has two views of every node that is neither cordoned nor being drained:

- `free`: the smaller of what Ray reports as free and the node's total minus what our replicas hold. Ray's report lags
  behind replicas that just started; our own count does not know other users of the cluster;
- `free_after_drain`: the same once the replicas that are stopping have gone. What was held by replicas that have just
  gone counts as well while Ray may not have reported it yet.

Ray places actors; an assignment is only a wish. `Pending` says how long the planner relies on it.

What is tried out, for a text or before a decision, is given back at the end of its `trial`.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from mesh.controller.desired.resource_request import Bundle, ResourceRequest
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.plan.node_resources import NodeResources, give_back
from mesh.controller.plan.spread_order import SpreadOrder
from mesh.defaults.control_settings import ControllerSettings
from mesh.v1 import control_pb2

_QUICK_ENVIRONMENT = {"env_vars"}


class Pending(Enum):
    """How far a replica is on the way to its process."""

    PLACED = auto()
    """It has a process."""
    ASSIGNED = auto()
    """It is believed to get the node it was assigned."""
    PREPARING_ENVIRONMENT = auto()
    """The same for longer: Ray may be creating its runtime environment, and keeps its resources meanwhile."""
    EXPIRED = auto()
    """It should have a process by now: its assignment is not believed any more."""
    STUCK = auto()
    """It has waited for longer than `unschedulable_after_s`."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """Resources of one replica, a node for each bundle."""

    bundles: tuple[Bundle, ...]
    node_ids: tuple[str, ...]
    from_now: bool


class ClusterResources:
    """The resources of all nodes while one plan is made."""

    def __init__(self, observed: Observed, now_s: float, limits: ControllerSettings | None = None) -> None:
        self.observed = observed
        self.now_s = now_s
        self.limits = limits or ControllerSettings()
        self.notes: dict[ResourceRequest, str] = {}
        """Texts about what the cluster has for a request, made once."""
        self._trial: list[_Taken] | None = None
        """What the trial that is going on has taken."""

    @cached_property
    def replicas_on(self) -> Counter[str]:
        """Replicas of any deployment that stay, by node."""
        return Counter(replica.node_id for replica in self.observed.replicas if not replica.is_leaving)

    @cached_property
    def head_ids(self) -> set[str]:
        return {node.node_id for node in self.observed.nodes if node.is_head}

    @cached_property
    def cordoned_ids(self) -> frozenset[str]:
        """Ray may know nodes that the last list lacks, and place on them what it places by itself."""
        return self.observed.cordoned_ids | {node.node_id for node in self.observed.nodes if node.is_cordoned}

    def may_move_slowly(self, replica: Replica) -> bool:
        """An operator drains its node, which stays until that is done."""
        return replica.node_ends_at_s == math.inf and not self._emptied_ids.isdisjoint(replica.bundle_nodes)

    @cached_property
    def taker_ids(self) -> Set[str]:
        """Of the nodes that take new replicas."""
        return {node.node_id for node in self.observed.nodes if node.takes_replicas}

    @cached_property
    def nodes(self) -> dict[str, NodeResources]:
        """The nodes that take new replicas. The head comes last among equals, because it runs the controller."""
        takers = sorted((each for each in self.observed.nodes if each.takes_replicas), key=lambda each: each.is_head)
        suspects = {node_id for each in self.observed.departed if each.is_node_lost for node_id in each.bundle_nodes}
        nodes = {
            node.node_id: NodeResources(
                node, number, self.replicas_on[node.node_id], is_suspect=node.node_id in suspects
            )
            for number, node in enumerate(takers)
        }
        self._subtract_replicas(nodes)
        return nodes

    @cached_property
    def spread(self) -> SpreadOrder:
        return SpreadOrder(self.nodes)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """On exit, what was taken since is given back. Trials are not nested."""
        trial = self._trial = []
        try:
            yield
        finally:
            self._trial = None
            for taken in trial:
                self.nodes[taken.node_ids[0]].replicas -= 1
                for bundle, node_id in zip(taken.bundles, taken.node_ids, strict=True):
                    give_back(self.nodes[node_id], bundle, from_now=taken.from_now)
                    self.spread.released(self.nodes[node_id])

    def note_taken(self, bundles: tuple[Bundle, ...], node_ids: tuple[str, ...], *, from_now: bool) -> None:
        """Resources were taken: a trial gives them back at its end."""
        if self._trial is not None:
            self._trial.append(_Taken(bundles, node_ids, from_now))

    def pending_state(self, replica: Replica) -> Pending:
        """How far it is on the way to its process."""
        if replica.is_placed:
            return Pending.PLACED
        age_s = self.now_s - replica.created_at_s
        if age_s <= self.limits.assign_timeout_s:
            return Pending.ASSIGNED
        if age_s <= self.limits.environment_timeout_s and _environment(replica.spec).keys() - _QUICK_ENVIRONMENT:
            return Pending.PREPARING_ENVIRONMENT
        return Pending.STUCK if age_s > self.limits.unschedulable_after_s else Pending.EXPIRED

    def is_stuck(self, replica: Replica) -> bool:
        """It has had no process for too long: it counts as unschedulable."""
        return self.pending_state(replica) is Pending.STUCK

    def is_unassigned(self, replica: Replica) -> bool:
        """It has no process, and no node that it is believed to get."""
        return not replica.is_placed and (replica.node_id not in self.taker_ids or self._has_expired(replica))

    def waits_with_old_cordons(self, replica: Replica) -> bool:
        """It waits in Ray's queue, and nodes were cordoned or uncordoned since: Ray may choose the wrong one."""
        if not self.is_unassigned(replica):
            return False
        avoided, cordoned = replica.avoided_nodes, self.cordoned_ids
        return avoided != cordoned and (not cordoned <= avoided or any(each in self.nodes for each in avoided))

    @cached_property
    def _emptied_ids(self) -> frozenset[str]:
        return frozenset(node.node_id for node in self.observed.nodes if node.is_emptied)

    def _has_expired(self, replica: Replica) -> bool:
        return self.pending_state(replica) in (Pending.EXPIRED, Pending.STUCK)

    def _subtract_replicas(self, nodes: dict[str, NodeResources]) -> None:
        staying: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        stopping: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        gone: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for replica in self.observed.replicas:
            if replica.is_leaving or not self._has_expired(replica):
                _add(stopping if replica.is_leaving else staying, replica.bundles, replica.bundle_nodes)
        for departed in self.observed.departed:
            if self.now_s - departed.at_s <= self.limits.resources_lag_s:
                _add(gone, departed.bundles, departed.bundle_nodes)
        for node_id, node in nodes.items():
            for name, total in node.total.items():
                available = node.free.get(name, 0.0)
                ours, ending = staying[node_id][name], stopping[node_id][name]
                node.free[name] = min(available, total - ours - ending)
                node.free_after_drain[name] = min(available + ending + gone[node_id][name], total - ours)


def _environment(spec: control_pb2.DeploymentSpec) -> dict[str, object]:
    """Empty where it cannot be read: one spec must not stop the planning of all."""
    try:
        environment = json.loads(spec.options.actor.runtime_env_json or "{}")
    except ValueError:
        return {}
    return environment if isinstance(environment, dict) else {}


def _add(amounts: dict[str, dict[str, float]], bundles: Sequence[Bundle], node_ids: Sequence[str]) -> None:
    for bundle, node_id in zip(bundles, node_ids, strict=False):
        for name, amount in bundle:
            amounts[node_id][name] += amount
