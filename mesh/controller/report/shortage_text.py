"""The text for users while replicas wait for resources: what they ask for and what the cluster has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mesh.controller.desired.desired_state import DeploymentTarget
from mesh.controller.desired.resource_request import ResourceRequest, resources_text
from mesh.controller.plan.cluster_picture import Node, Replica
from mesh.controller.plan.cluster_resources import ClusterResources, Pending
from mesh.controller.plan.node_resources import could_hold
from mesh.controller.plan.replica_placement import DeploymentPlacement


def room_shortage(target: DeploymentTarget, replicas: Sequence[Replica], resources: ClusterResources) -> str:
    """Empty when no replica waits for room."""
    waits = any(resources.is_unassigned(each) and each.stays_as(target.version) for each in replicas)
    if not target.request.is_bound and not waits:
        return ""
    with resources.trial():
        placement = DeploymentPlacement(resources, target.request, replicas, target.version)
        lacking = placement.reserve_for_waiting().lacking_resources
        if target.request.is_bound:
            # Replicas that have to run on certain nodes are not started before one has room.
            new = sum(each.stays_as(target.version) for each in replicas)
            starts = max(0, target.num_replicas - new)
            lacking += starts - len(placement.reserve(starts))
    if not lacking:
        return ""
    if target.request not in resources.notes:
        nodes = [node for node in resources.observed.nodes if node.takes_replicas]
        what_there_is = _what_there_is(target.request, nodes, resources)
        asks = f"each asks for {target.request.text}; " if target.request.whole else ""
        resources.notes[target.request] = asks + what_there_is
    return f"{lacking} of {target.num_replicas} replicas wait for room: {resources.notes[target.request]}"


def late_starts(target: DeploymentTarget, replicas: Sequence[Replica], resources: ClusterResources) -> str:
    """Empty when no replica waits long for its process."""
    in_time = (Pending.PLACED, Pending.ASSIGNED)
    late = sum(resources.pending_state(each) not in in_time and each.stays_as(target.version) for each in replicas)
    return f"{late} of {target.num_replicas} replicas wait for Ray to start their processes." if late else ""


def _what_there_is(request: ResourceRequest, nodes: Sequence[Node], resources: ClusterResources) -> str:
    if not nodes:
        return "no node takes new replicas."
    lacking = [name for name, _ in request.whole if not any(node.total.get(name) for node in nodes)]
    if lacking:
        return f"no node has any {' or '.join(lacking)}. Add one that has, or correct ray_actor_options."
    if not could_hold(request, nodes):
        return _never(request, nodes)
    limit = f", and max_replicas_per_node is {request.per_node_max}" if request.is_bound else ""
    takers = f"{len(nodes)} {'node takes' if len(nodes) == 1 else 'nodes take'} replicas{limit}"
    if not request.whole:
        return f"{takers}."
    free = {node_id: node.free for node_id, node in resources.nodes.items()}
    roomiest = max(nodes, key=lambda node: _share(request, free[node.node_id]))
    has, of = _of_asked(request, free[roomiest.node_id]), _of_asked(request, roomiest.total)
    text = f"the roomiest node has {has} free of {of}"
    return f"{text} ({takers})." if len(nodes) > 1 or limit else f"{text}."


def _never(request: ResourceRequest, nodes: Sequence[Node]) -> str:
    largest = max(nodes, key=lambda node: _share(request, node.total))
    has = f"the largest node has {_of_asked(request, largest.total)} in all"
    if len(request.bundles) > 1:
        return f"the {len(nodes)} nodes could not hold it even if they were empty; {has}. Add nodes or ask for less."
    return f"no node is that large: {has}. Add a larger node or ask for less."


def _share(request: ResourceRequest, resources: Mapping[str, float]) -> float:
    """How much of what is asked for the resources cover."""
    return min((resources.get(name, 0.0) / amount for name, amount in request.whole if amount), default=1.0)


def _of_asked(request: ResourceRequest, resources: Mapping[str, float]) -> str:
    """Only what matters here."""
    return resources_text({name: max(0.0, resources.get(name, 0.0)) for name, _ in request.whole})
