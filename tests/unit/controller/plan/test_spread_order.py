"""mesh.controller.plan.spread_order: the same choice as looking at every node for every replica."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.desired.resource_request import ResourceRequest
from mesh.controller.plan.cluster_picture import Node
from mesh.controller.plan.node_resources import NodeResources, give_back, has_place, take
from mesh.controller.plan.spread_order import SpreadOrder

NAMES = [f"n{number}" for number in range(5)]
requests = st.builds(
    lambda amount, most: ResourceRequest(((("CPU", amount),) if amount else (),), per_node_max=most),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.sampled_from([0, 0, 1, 2]),
)
starts = st.tuples(requests, st.integers(0, 6), st.booleans(), st.lists(st.sampled_from(NAMES), max_size=4))
"""A request, for how many, whether from what is free now, and where the deployment has replicas."""
releases = st.sampled_from(NAMES)


def cluster(cpus: list[int], replicas: list[int]) -> dict[str, NodeResources]:
    """A node with 3 CPUs is suspected of being gone."""
    nodes = (Node(node_id=name, available={"CPU": cpu}) for name, cpu in zip(NAMES, cpus, strict=True))
    return {
        node.node_id: NodeResources(node, number or len(NAMES), count, is_suspect=node.available["CPU"] == 3)
        for number, (node, count) in enumerate(zip(nodes, replicas, strict=True))
    }


def take_by_looking_at_all(
    nodes: dict[str, NodeResources], request: ResourceRequest, count: int, on: Counter[str], *, from_now: bool
) -> list[str]:
    taken: list[str] = []
    for _ in range(count):
        fitting = [each for each in nodes.values() if has_place(each, request, on, from_now=from_now)]
        if not fitting:
            break
        best = min(fitting, key=lambda each: (each.is_suspect, on[each.node_id], each.replicas, each.order))
        take(best, request.whole, from_now=from_now)
        on[best.node_id] += 1
        taken.append(best.node_id)
    return taken


def give_one_back(nodes: dict[str, NodeResources], name: str) -> None:
    give_back(nodes[name], (("CPU", 1.0),), from_now=True)
    nodes[name].replicas = max(0, nodes[name].replicas - 1)


@given(
    st.lists(st.integers(0, 5), min_size=5, max_size=5),
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
    st.lists(st.one_of(starts, releases), max_size=12),
)
def test_the_kept_order_chooses_like_a_look_at_all_nodes(cpus: list[int], replicas: list[int], steps: list) -> None:  # type: ignore[type-arg]
    """Whatever was taken and released before, for the same amount or others."""
    ours, theirs = cluster(cpus, replicas), cluster(cpus, replicas)
    order = SpreadOrder(ours)
    for step in steps:
        if isinstance(step, str):
            give_one_back(ours, step)
            give_one_back(theirs, step)
            order.released(ours[step])
        else:
            request, count, from_now, where = step
            expected = take_by_looking_at_all(theirs, request, count, Counter(where), from_now=from_now)
            assert order.take(request, count, Counter(where), from_now=from_now) == expected
            assert [each.free for each in ours.values()] == [each.free for each in theirs.values()]
