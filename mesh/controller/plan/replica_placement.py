"""Where replicas go, and whether the cluster has the resources for them. Pure.

Theory of operation. `ClusterResources` has two views of every node that is not being drained:

- `free`: the smaller of what Ray reports as free and the node's total minus what our replicas hold. Ray's report lags
  behind replicas that just started; our own count does not know other users of the cluster;
- `free_after_drain`: the same once the replicas that are stopping have gone. What was held by replicas that have just
  gone counts as well while Ray may not have reported it yet.

A start is assigned a node by the first view, spread: the node with the fewest replicas of the deployment, then with the
fewest of all. Without such a node it waits in Ray's queue, where the cluster's autoscaler sees it. Only when the second
view has no room either is it unschedulable, and old replicas may be preempted for it: a report that lags must not cost
a replica.

Ray places actors; an assignment is only a wish. `Pending` says how long the planner relies on it.

One `ClusterResources` serves one turn of the planner. Deployments reserve from it one after the other: first for the
replicas that wait (`reserve_for_waiting`), then for the starts of this turn (`reserve`); what is preempted is released
last (`preempt`). These three methods change it, and nothing else does.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from mesh.controller.desired.resource_request import Bundle, ResourceRequest
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.plan.node_resources import NodeResources, book, has_place, take_gangs, take_singles
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
class NodeAssignment:
    """Where a replica is to run."""

    node_ids: tuple[str, ...] = ()
    """One per bundle; empty: wherever Ray finds room."""


ANYWHERE = NodeAssignment()


@dataclass(frozen=True, slots=True)
class Shortage:
    """Replicas of one deployment that cannot be scheduled."""

    unschedulable: int = 0
    lacking_resources: int = 0
    """Of these, the ones for which no node has the resources; the others wait too long for another reason."""


class ClusterResources:
    """The resources of all nodes while one plan is made."""

    def __init__(self, observed: Observed, now_s: float, limits: ControllerSettings | None = None) -> None:
        self.observed = observed
        self.now_s = now_s
        self.limits = limits or ControllerSettings()

    @cached_property
    def replicas_on(self) -> Counter[str]:
        """Replicas of any deployment that stay, by node."""
        return Counter(replica.node_id for replica in self.observed.replicas if not replica.is_leaving)

    @cached_property
    def head_ids(self) -> set[str]:
        return {node.node_id for node in self.observed.nodes if node.is_head}

    @cached_property
    def nodes(self) -> dict[str, NodeResources]:
        """The nodes that take new replicas. The head comes last among equals, because it runs the controller."""
        staying = [node for node in self.observed.nodes if node.ends_at_s is None]
        suspects = {node_id for each in self.observed.departed if each.is_node_lost for node_id in each.bundle_nodes}
        nodes = {
            node.node_id: NodeResources(
                node,
                (node.is_head, number),
                self.replicas_on[node.node_id],
                is_suspect=node.node_id in suspects,
            )
            for number, node in enumerate(staying)
        }
        self._subtract_replicas(nodes)
        return nodes

    def pending_state(self, replica: Replica) -> Pending:
        if replica.is_placed:
            return Pending.PLACED
        age_s = self.now_s - replica.created_at_s
        if age_s <= self.limits.assign_timeout_s:
            return Pending.ASSIGNED
        if age_s <= self.limits.environment_timeout_s and _environment(replica.spec).keys() - _QUICK_ENVIRONMENT:
            return Pending.PREPARING_ENVIRONMENT
        return Pending.STUCK if age_s > self.limits.unschedulable_after_s else Pending.EXPIRED

    def is_stuck(self, replica: Replica) -> bool:
        return self.pending_state(replica) is Pending.STUCK

    def is_unassigned(self, replica: Replica) -> bool:
        """It has no process, and no node that it is believed to get."""
        return not replica.is_placed and (replica.node_id not in self.nodes or self._has_expired(replica))

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


class DeploymentPlacement:
    """What the cluster has for one deployment."""

    def __init__(
        self, resources: ClusterResources, request: ResourceRequest, replicas: Sequence[Replica], version: str
    ) -> None:
        """`replicas`: all of the deployment, of any version."""
        self.resources = resources
        self._request = request
        self._replicas = replicas
        self._version = version

    def of_version(self, request: ResourceRequest, version: str) -> DeploymentPlacement:
        """The same for replicas of another version: they count on the same nodes."""
        other = DeploymentPlacement(self.resources, request, self._replicas, version)
        other._now_on, other._later_on = self._now_on, self._later_on
        return other

    # ---- Reserving: these change the resources ------------------------------------------------------------------

    def reserve_for_waiting(self) -> Shortage:
        """Reserve what will be free for replicas that wait without a node. The result: those that find nothing."""
        waiting = self._waiting()
        if not waiting:
            return Shortage()
        lacking = len(waiting) - sum(1 for _ in self._take(len(waiting), from_now=False))
        # A replica that requests nothing waits for its process, not for resources.
        stuck = sum(map(self.resources.is_stuck, waiting)) if self._request.whole else 0
        return Shortage(max(stuck, lacking), lacking)

    def reserve(self, starts: int) -> list[NodeAssignment]:
        """An assignment for each of `starts`, in order. May be shorter if the request is bound to a node."""
        if not starts:
            return []
        found = [NodeAssignment(node_ids) for node_ids in self._take(starts, from_now=True)]
        return found if self._request.is_bound else found + [ANYWHERE] * (starts - len(found))

    def preempt(self, preempted: Sequence[Replica], unschedulable: int) -> None:
        """Release what these replicas hold, and reserve it for those of the unschedulable ones that it lets start."""
        for replica in preempted:
            self._release([replica])
            if unschedulable:
                unschedulable -= sum(1 for _ in self._take(1, from_now=False))

    # ---- Asking: these leave the resources as they were ---------------------------------------------------------

    def is_stuck_on_node(self, replica: Replica) -> bool:
        """It may run on one node only and finds no room there: it has to be started again on another one."""
        return self._request.is_bound and self.resources.is_stuck(replica)

    def replicas_to_preempt(self, candidates: Sequence[Replica], most: int, unschedulable: int) -> list[Replica]:
        """Of `candidates`, at most `most` replicas to stop for those that are unschedulable.

        A replica stops only if that lets another one start.
        """
        chosen: list[Replica] = []
        helped = 0
        with self._trial() as taken:
            while len(chosen) < most and helped < unschedulable:
                left = [each for each in candidates if each not in chosen]
                group = self._smallest_group(left, most - len(chosen))
                if not group:
                    break
                self._release(group)
                taken.extend(self._take(1, from_now=False))
                chosen += group
                helped += 1
            self._take_back(chosen)
        return chosen

    def by_stop_preference(self, replicas: Iterable[Replica]) -> list[Replica]:
        """In the order in which they stop (item 191): off the head node, on nodes with the fewest replicas, newest.

        One node after the other, so that nodes become free. Labels, the contract's third rule, do not exist here.
        """
        ordered = sorted(replicas, key=lambda each: -each.created_at_s)
        newest: dict[str, int] = {}
        for number, replica in enumerate(ordered):
            newest.setdefault(replica.node_id, number)
        heads, count = self.resources.head_ids, self.resources.replicas_on
        return sorted(ordered, key=lambda each: (each.node_id in heads, count[each.node_id], newest[each.node_id]))

    # ---- Helpers ------------------------------------------------------------------------------------------------

    @cached_property
    def _now_on(self) -> Counter[str]:
        """Replicas of the deployment by node, those that are stopping too."""
        return Counter(each.node_id for each in self._replicas)

    @cached_property
    def _later_on(self) -> Counter[str]:
        is_unassigned = self.resources.is_unassigned
        return Counter(each.node_id for each in self._replicas if not each.is_leaving and not is_unassigned(each))

    def _waiting(self) -> list[Replica]:
        unplaced = (each for each in self._replicas if not each.is_placed and each.stays_as(self._version))
        return [each for each in unplaced if self.resources.is_unassigned(each)]

    def _take(self, count: int, *, from_now: bool) -> Iterator[tuple[str, ...]]:
        """Take resources for `count` replicas; yields the nodes of each that finds them."""
        nodes = self.resources.nodes.values()
        if len(self._request.bundles) > 1:
            return take_gangs(list(nodes), self._request, count, from_now=from_now)
        on = self._now_on if from_now else self._later_on
        return take_singles(nodes, self._request, count, on, from_now=from_now)

    @contextmanager
    def _trial(self) -> Iterator[list[tuple[str, ...]]]:
        """On exit, gives back everything that the caller has appended to the list."""
        taken: list[tuple[str, ...]] = []
        try:
            yield taken
        finally:
            for node_ids in taken:
                self._later_on[node_ids[0]] -= len(self._request.bundles) == 1
                self.resources.nodes[node_ids[0]].replicas -= 1
                for bundle, node_id in zip(self._request.bundles, node_ids, strict=True):
                    book(self.resources.nodes[node_id].free_after_drain, bundle, 1)

    def _smallest_group(self, candidates: Sequence[Replica], most: int) -> list[Replica]:
        """The smallest group on one node, or on any, whose stop lets one replica start; empty: there is none."""
        by_node: dict[str, list[Replica]] = defaultdict(list)
        for replica in candidates:
            by_node[replica.node_id].append(replica)
        groups = [*by_node.values()]
        if len(self._request.bundles) > 1:
            groups.append(list(candidates))
        for size in range(1, most + 1):
            for group in groups:
                if len(group) >= size and self._would_help(group[:size]):
                    return group[:size]
        return []

    def _would_help(self, stopping: Sequence[Replica]) -> bool:
        self._release(stopping)
        nodes = self.resources.nodes
        if len(self._request.bundles) > 1:
            trial = take_gangs(list(nodes.values()), self._request, 1, from_now=False, is_trial=True)
            helps = next(trial, None) is not None
        else:
            node = nodes.get(stopping[0].node_id)
            helps = node is not None and has_place(node, self._request, self._later_on, from_now=False)
        self._take_back(stopping)
        return helps

    def _release(self, replicas: Iterable[Replica]) -> None:
        self._book(replicas, 1)

    def _take_back(self, replicas: Iterable[Replica]) -> None:
        self._book(replicas, -1)

    def _book(self, replicas: Iterable[Replica], sign: int) -> None:
        for replica in replicas:
            self._later_on[replica.node_id] -= sign
            for bundle, node_id in zip(replica.bundles, replica.bundle_nodes, strict=False):
                if node := self.resources.nodes.get(node_id):
                    book(node.free_after_drain, bundle, sign)


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
