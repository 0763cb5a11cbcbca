"""Old replicas that stop so that new ones find room: as few as possible, each only where that helps. Pure."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence

from mesh.controller.desired.resource_request import ResourceRequest
from mesh.controller.plan.cluster_picture import Replica
from mesh.controller.plan.cluster_resources import ClusterResources
from mesh.controller.plan.node_resources import book, has_place, take, take_gangs


class Preemption:
    """For replicas of one deployment."""

    def __init__(self, resources: ClusterResources, request: ResourceRequest, on: Counter[str]) -> None:
        """`on`: replicas of the deployment by node after all drains; counts what happens here."""
        self._resources = resources
        self._nodes = resources.nodes
        self._request = request
        self._on = on

    def carry_out(self, preempted: Sequence[Replica], unschedulable: int) -> None:
        """Release what these replicas hold, and reserve it for those of the unschedulable ones that it lets start."""
        for replica in preempted:
            self._release([replica])
            if unschedulable:
                unschedulable -= self._start_gang() if self._is_gang else self._start_on(replica.node_id)
            for node_id in replica.bundle_nodes:
                if node := self._nodes.get(node_id):
                    self._resources.spread.released(node)

    def choose(self, candidates: Sequence[Replica], most: int, unschedulable: int) -> list[Replica]:
        """Of `candidates`, at most `most` replicas to stop for those that are unschedulable. Changes no resources."""
        choose = self._choose_for_gangs if self._is_gang else self._choose_for_singles
        return choose(candidates, most, unschedulable)

    @property
    def _is_gang(self) -> bool:
        return len(self._request.bundles) > 1

    # ---- Replicas of one bundle: those that stop for one are on one node -----------------------------------------

    def _choose_for_singles(self, candidates: Sequence[Replica], most: int, unschedulable: int) -> list[Replica]:
        """The smallest group again and again, the first of equals. What one node gives changes nothing on another."""
        left: dict[str, deque[tuple[int, Replica]]] = defaultdict(deque)
        for position, replica in enumerate(candidates):
            left[replica.node_id].append((position, replica))
        groups = [group for node_id in left for group in self._smallest_group_on(node_id, left[node_id])]
        heapq.heapify(groups)
        chosen: list[Replica] = []
        started: list[str] = []
        while groups and len(started) < unschedulable and groups[0][0] <= most - len(chosen):
            size, _, node_id = heapq.heappop(groups)
            stopping = [left[node_id].popleft()[1] for _ in range(size)]
            self._release(stopping)
            self._start_on(node_id)
            started.append(node_id)
            chosen += stopping
            for group in self._smallest_group_on(node_id, left[node_id]):
                heapq.heappush(groups, group)
        for node_id in started:
            self._nodes[node_id].replicas -= 1
            self._on[node_id] -= 1
            book(self._nodes[node_id].free_after_drain, self._request.whole, 1)
        self._take_back(chosen)
        return chosen

    def _smallest_group_on(
        self, node_id: str, replicas: Sequence[tuple[int, Replica]]
    ) -> Iterator[tuple[int, int, str]]:
        """Size and first position of the group that lets one replica start; nothing where all of them do not."""
        node = self._nodes.get(node_id)
        if node is None:
            return
        stopping: list[Replica] = []
        helps = False
        for _, replica in replicas:
            self._release([replica])
            stopping.append(replica)
            if helps := has_place(node, self._request, self._on, from_now=False):
                break
        self._take_back(stopping)
        if helps:
            yield len(stopping), replicas[0][0], node_id

    def _start_on(self, node_id: str) -> bool:
        """Reserve room for a replica on that node, if it has any."""
        node = self._nodes.get(node_id)
        if node is None or not has_place(node, self._request, self._on, from_now=False):
            return False
        take(node, self._request.whole, from_now=False)
        self._on[node_id] += 1
        return True

    # ---- Placement groups: those that stop for one may be on any nodes -------------------------------------------

    def _choose_for_gangs(self, candidates: Sequence[Replica], most: int, unschedulable: int) -> list[Replica]:
        chosen: dict[str, Replica] = {}
        helped = 0
        with self._resources.trial():
            while len(chosen) < most and helped < unschedulable:
                left = [each for each in candidates if each.replica_id not in chosen]
                group = self._smallest_group(left, most - len(chosen))
                if not group:
                    break
                self._release(group)
                helped += self._start_gang()
                chosen |= {each.replica_id: each for each in group}
        self._take_back(chosen.values())
        return list(chosen.values())

    def _smallest_group(self, candidates: Sequence[Replica], most: int) -> list[Replica]:
        """On one node, or on any; empty: there is none."""
        by_node: dict[str, list[Replica]] = defaultdict(list)
        for replica in candidates:
            by_node[replica.node_id].append(replica)
        groups = [*by_node.values(), list(candidates)]
        for size in range(1, most + 1):
            for group in groups:
                if len(group) >= size and self._lets_gang_start(group[:size]):
                    return group[:size]
        return []

    def _lets_gang_start(self, stopping: Sequence[Replica]) -> bool:
        self._release(stopping)
        trial = take_gangs(list(self._nodes.values()), self._request, 1, from_now=False, is_trial=True)
        helps = next(trial, None) is not None
        self._take_back(stopping)
        return helps

    def _start_gang(self) -> bool:
        """Reserve room for a placement group, if there is any."""
        for node_ids in take_gangs(list(self._nodes.values()), self._request, 1, from_now=False):
            self._resources.note_taken(self._request.bundles, node_ids, from_now=False)
            return True
        return False

    def _release(self, replicas: Iterable[Replica]) -> None:
        """Count what the replicas hold as free."""
        self._book(replicas, 1)

    def _take_back(self, replicas: Iterable[Replica]) -> None:
        """Undo `_release`."""
        self._book(replicas, -1)

    def _book(self, replicas: Iterable[Replica], sign: int) -> None:
        for replica in replicas:
            self._on[replica.node_id] -= sign
            for bundle, node_id in zip(replica.bundles, replica.bundle_nodes, strict=False):
                if node := self._nodes.get(node_id):
                    book(node.free_after_drain, bundle, sign)
