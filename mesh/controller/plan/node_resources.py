"""The free resources of single nodes, and how replicas and placement groups take them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mesh.controller.desired.resource_request import Bundle, ResourceRequest
from mesh.controller.plan.cluster_picture import Node

_EPSILON = 1e-6


class NodeResources:
    """The resources of one node by name: CPU and GPU in units, memory in bytes."""

    __slots__ = ("free", "free_after_drain", "is_suspect", "node_id", "order", "replicas", "total")

    def __init__(self, node: Node, order: int, replicas: int, *, is_suspect: bool = False) -> None:
        """`order` decides between nodes that fit equally well. `is_suspect`: probably dead, so the last choice."""
        self.node_id = node.node_id
        self.order = order
        self.replicas = replicas
        self.is_suspect = is_suspect
        self.total = node.total
        self.free = dict(node.available)
        self.free_after_drain = dict(node.available)


def has_place(node: NodeResources, request: ResourceRequest, on: Counter[str], *, from_now: bool) -> bool:
    if request.per_node_max and on[node.node_id] >= request.per_node_max:
        return False
    return fits(node, request.whole, from_now=from_now)


def take_gangs(
    nodes: Sequence[NodeResources], request: ResourceRequest, count: int, *, from_now: bool, is_trial: bool = False
) -> Iterator[tuple[str, ...]]:
    """Placement groups. Ray decides where they really go; this says whether they can be placed."""
    for _ in range(count):
        ordered = sorted(nodes, key=lambda each: (each.is_suspect, each.replicas, each.order))
        taken = _take_gang(ordered, request, from_now=from_now)
        if len(taken) < len(request.bundles) or is_trial:
            for number, node in taken.items():
                _book_all(node, request.bundles[number], 1, from_now=from_now)
        if len(taken) < len(request.bundles):
            return
        if not is_trial:
            taken[0].replicas += 1
        yield tuple(taken[number].node_id for number in range(len(request.bundles)))


def _take_gang(nodes: Sequence[NodeResources], request: ResourceRequest, *, from_now: bool) -> dict[int, NodeResources]:
    """Nodes by number of the bundle. All of them where they fit."""
    if request.strategy in ("PACK", "STRICT_PACK"):
        whole = next((each for each in nodes if fits(each, request.whole, from_now=from_now)), None)
        if whole is not None:
            _book_all(whole, request.whole, -1, from_now=from_now)
            return dict.fromkeys(range(len(request.bundles)), whole)
        if request.strategy == "STRICT_PACK":
            return {}
    taken: dict[int, NodeResources] = {}
    for number in sorted(range(len(request.bundles)), key=lambda number: _size(request.bundles[number])):
        bundle = request.bundles[number]
        for node in _candidates(nodes, request.strategy, set(taken.values())):
            if fits(node, bundle, from_now=from_now):
                _book_all(node, bundle, -1, from_now=from_now)
                taken[number] = node
                break
        else:
            return taken
    return taken


def _candidates(nodes: Sequence[NodeResources], strategy: str, used: set[NodeResources]) -> list[NodeResources]:
    if strategy == "STRICT_SPREAD":
        return [each for each in nodes if each not in used]
    is_packed = strategy == "PACK"
    return sorted(nodes, key=lambda each: (each in used) != is_packed)


def _size(bundle: Bundle) -> tuple[float, ...]:
    """Sorts the largest bundle first."""
    amounts = dict(bundle)
    return (-amounts.get("GPU", 0.0), -amounts.get("CPU", 0.0), -amounts.get("memory", 0.0))


def fits(node: NodeResources, bundle: Bundle, *, from_now: bool) -> bool:
    """What is taken now is not free later either."""
    return _covers(node.free_after_drain, bundle) and (not from_now or _covers(node.free, bundle))


def _covers(view: dict[str, float], bundle: Bundle) -> bool:
    for name, amount in bundle:  # noqa: SIM110 - this is asked once per replica and node
        if view.get(name, 0.0) + _EPSILON < amount:
            return False
    return True


def book(view: dict[str, float], bundle: Bundle, sign: int) -> None:
    for name, amount in bundle:
        view[name] = view.get(name, 0.0) + sign * amount


def take(node: NodeResources, bundle: Bundle, *, from_now: bool) -> None:
    """For one replica."""
    _book_all(node, bundle, -1, from_now=from_now)
    node.replicas += 1


def give_back(node: NodeResources, bundle: Bundle, *, from_now: bool) -> None:
    """What a replica or one bundle of a placement group has taken; its owner is counted by the caller."""
    _book_all(node, bundle, 1, from_now=from_now)


def _book_all(node: NodeResources, bundle: Bundle, sign: int, *, from_now: bool) -> None:
    book(node.free_after_drain, bundle, sign)
    if from_now:
        book(node.free, bundle, sign)


def could_hold(request: ResourceRequest, nodes: Iterable[Node]) -> bool:
    """Whether a replica would find room if the nodes were empty."""
    empty = [NodeResources(node, 0, 0) for node in nodes]
    for node in empty:
        node.free_after_drain = dict(node.total)
    if len(request.bundles) > 1:
        return len(_take_gang(empty, request, from_now=False)) == len(request.bundles)
    return any(_covers(node.free_after_drain, request.whole) for node in empty)
