"""Where the replicas of one deployment go, and whether the cluster has the resources for them. Pure.

Theory of operation. A start is assigned a node that is free now, spread: the node with the fewest replicas of the
deployment, then with the fewest of all. Without such a node it waits in Ray's queue, where the cluster's autoscaler
sees it. Only when there is no room after all drains either is it unschedulable, and old replicas may be preempted for
it: a report of Ray that lags must not cost a replica.

One `ClusterResources` serves one turn of the planner. Deployments reserve from it one after the other: first for the
replicas that wait (`reserve_for_waiting`), then for the starts of this turn (`reserve`); what is preempted is released
last (`preempt`). These three methods change it, and nothing else does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from mesh.controller.desired.resource_request import ResourceRequest
from mesh.controller.plan.cluster_picture import Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.plan.node_resources import take_gangs
from mesh.controller.plan.preemption import Preemption


@dataclass(frozen=True, slots=True)
class NodeAssignment:
    """Where a replica is to run."""

    node_ids: tuple[str, ...] = ()
    """One per bundle; empty: wherever Ray finds room."""
    avoided: frozenset[str] = frozenset()
    """Where it must not come to, whatever Ray finds."""


ANYWHERE = NodeAssignment()


@dataclass(frozen=True, slots=True)
class Shortage:
    """Replicas of one deployment that cannot be scheduled."""

    unschedulable: int = 0
    lacking_resources: int = 0
    """Those for which no node has the resources. The others wait too long for another reason."""


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
        avoided = self.resources.cordoned_ids
        found = [NodeAssignment(node_ids, avoided) for node_ids in self._take(starts, from_now=True)]
        return found if self._request.is_bound else found + [NodeAssignment((), avoided)] * (starts - len(found))

    def preempt(self, preempted: Sequence[Replica], unschedulable: int) -> None:
        """Release what these replicas hold, and reserve it for those of the unschedulable ones that it lets start."""
        if preempted:
            self._preemption.carry_out(preempted, unschedulable)

    # ---- Asking: these leave the resources as they were ---------------------------------------------------------

    def is_stuck_on_node(self, replica: Replica) -> bool:
        """It may run on one node only and finds no room there: it has to be started again on another one."""
        return self._request.is_bound and self.resources.is_stuck(replica)

    def has_to_start_again(self, replica: Replica) -> bool:
        """It waits for a place that it does not find, or must not get any more."""
        return self.is_stuck_on_node(replica) or self.resources.waits_with_old_cordons(replica)

    def replicas_to_preempt(self, candidates: Sequence[Replica], most: int, unschedulable: int) -> list[Replica]:
        """Of `candidates`, at most `most` replicas to stop for those that are unschedulable.

        A replica stops only if that lets another one start.
        """
        return self._preemption.choose(candidates, most, unschedulable) if candidates and unschedulable else []

    def by_stop_preference(self, replicas: Iterable[Replica]) -> list[Replica]:
        """In the order in which they stop (item 191): off the head node, on nodes with the fewest replicas, newest.

        Before all others those on cordoned nodes, which operators want to be free. One node after the other, so
        that nodes become free. Labels, the contract's third rule, do not exist here.
        """
        ordered = sorted(replicas, key=lambda each: -each.created_at_s)
        newest: dict[str, int] = {}
        for number, replica in enumerate(ordered):
            newest.setdefault(replica.node_id, number)
        cordoned, heads, count = self.resources.cordoned_ids, self.resources.head_ids, self.resources.replicas_on

        def rank(each: Replica) -> tuple[bool, bool, int, int]:
            node_id = each.node_id
            return node_id not in cordoned, node_id in heads, count[node_id], newest[node_id]

        return sorted(ordered, key=rank)

    # ---- Helpers ------------------------------------------------------------------------------------------------

    @cached_property
    def _now_on(self) -> Counter[str]:
        """Replicas of the deployment by node, those that are stopping too."""
        return Counter(each.node_id for each in self._replicas)

    @cached_property
    def _later_on(self) -> Counter[str]:
        is_unassigned = self.resources.is_unassigned
        return Counter(each.node_id for each in self._replicas if not each.is_leaving and not is_unassigned(each))

    @property
    def _preemption(self) -> Preemption:
        return Preemption(self.resources, self._request, self._later_on)

    def _waiting(self) -> list[Replica]:
        unplaced = (each for each in self._replicas if not each.is_placed and each.stays_as(self._version))
        resources = self.resources
        return [
            each for each in unplaced if resources.is_unassigned(each) and not resources.waits_with_old_cordons(each)
        ]

    def _take(self, count: int, *, from_now: bool) -> Iterator[tuple[str, ...]]:
        """Take resources for `count` replicas; yields the nodes of each that finds them."""
        bundles = self._request.bundles
        if len(bundles) > 1:
            nodes = list(self.resources.nodes.values())
            found: Iterable[tuple[str, ...]] = take_gangs(nodes, self._request, count, from_now=from_now)
        else:
            on = self._now_on if from_now else self._later_on
            found = ((each,) for each in self.resources.spread.take(self._request, count, on, from_now=from_now))
        for node_ids in found:
            self.resources.note_taken(bundles, node_ids, from_now=from_now)
            yield node_ids
