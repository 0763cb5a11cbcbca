"""Which nodes single replicas go to: spread over the emptiest ones. Pure.

Theory of operation. The next replica of a deployment goes to the node with the fewest replicas of that deployment, then
with the fewest of all. Nodes that have none of the deployment, nearly all of them, are in the same order for every
deployment, so that order is kept: a heap for each amount that replicas ask for. A node that has no room for the amount
leaves its heap, and comes back when something is released on it. So a plan of thousands of small deployments does not
look at every node for each of them.

An entry of a heap is out of date when its node has got more replicas since; it is put back when it comes up.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping

from mesh.controller.desired.resource_request import Bundle, ResourceRequest
from mesh.controller.plan.node_resources import NodeResources, fits, has_place, take

_Place = tuple[bool, int, int, int, NodeResources]


class SpreadOrder:
    """The order in which the nodes of one plan are filled."""

    def __init__(self, nodes: Mapping[str, NodeResources]) -> None:
        self._nodes = nodes
        self._heaps: dict[tuple[Bundle, bool], _NodeHeap] = {}

    def take(self, request: ResourceRequest, count: int, on: Counter[str], *, from_now: bool) -> list[str]:
        """Take resources for `count` replicas of one bundle; the node ids of those that find them.

        `on`: replicas of the deployment by node; counts those that are placed.
        """
        amount = request.whole
        spread = self._heap(amount, from_now=from_now)
        ours = [_place(self._nodes[node_id], on) for node_id, number in on.items() if number and node_id in self._nodes]
        heapq.heapify(ours)
        taken: list[str] = []
        aside: list[NodeResources] = []
        while len(taken) < count:
            other = spread.first(on, aside)
            # It has no replica of the deployment.
            if other is not None and not (ours and ours[0][:2] < (other.is_suspect, 0)):
                node = spread.pop()
                if not fits(node, amount, from_now=from_now):
                    continue
                aside.append(node)
            elif ours:
                node = heapq.heappop(ours)[-1]
                if not has_place(node, request, on, from_now=from_now):
                    continue
            else:
                break
            take(node, amount, from_now=from_now)
            on[node.node_id] += 1
            heapq.heappush(ours, _place(node, on))
            taken.append(node.node_id)
        for node in aside:
            spread.put(node)
        return taken

    def released(self, node: NodeResources) -> None:
        """The node has got more room, or fewer replicas."""
        for heap in self._heaps.values():
            heap.put(node)

    def _heap(self, amount: Bundle, *, from_now: bool) -> _NodeHeap:
        heap = self._heaps.get((amount, from_now))
        if heap is None:
            heap = self._heaps[amount, from_now] = _NodeHeap(self._nodes.values())
        return heap


class _NodeHeap:
    """The nodes that may have room for one amount, the emptiest first."""

    def __init__(self, nodes: Iterable[NodeResources]) -> None:
        self._number = 0
        self._numbers: dict[NodeResources, int] = {}
        """The number of each node's valid entry: a node may have earlier, outdated ones."""
        self._heap: list[tuple[bool, int, int, int, NodeResources]] = []
        for node in nodes:
            self.put(node)

    def put(self, node: NodeResources) -> None:
        self._number += 1
        self._numbers[node] = self._number
        heapq.heappush(self._heap, (node.is_suspect, node.replicas, node.order, self._number, node))

    def pop(self) -> NodeResources:
        """The node that `first` has returned."""
        node = heapq.heappop(self._heap)[-1]
        del self._numbers[node]
        return node

    def first(self, on: Counter[str], aside: list[NodeResources]) -> NodeResources | None:
        """The emptiest node without a replica counted in `on`. Nodes with one are moved to `aside`."""
        while self._heap:
            _, replicas, _, number, node = self._heap[0]
            if self._numbers.get(node) != number:
                heapq.heappop(self._heap)
            elif on.get(node.node_id):
                aside.append(self.pop())
            elif replicas != node.replicas:
                heapq.heappop(self._heap)
                self.put(node)
            else:
                return node
        return None


def _place(node: NodeResources, on: Counter[str]) -> _Place:
    return node.is_suspect, on[node.node_id], node.replicas, node.order, node
