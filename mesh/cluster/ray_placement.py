"""Resources and drains of Ray's nodes, and placement groups."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import ray
from ray.core.generated import autoscaler_pb2, gcs_pb2
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table

from mesh.cluster.ray_core import HEAD_RESOURCE, NAMESPACE

_NODE_LABEL = "ray.io/node-id"
"""Ray gives it to every node."""
_NOT_THERE_YET = ("DEPENDENCIES_UNREADY", "PENDING_CREATION")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What a living node has and how long it stays."""

    node_id: str
    is_head: bool
    address: str
    """Address of the node's machine."""
    total: dict[str, float]
    available: dict[str, float]
    """As last reported; what is used up is missing."""
    ends_unix_s: float | None
    """It is being drained: when it ends, infinite where that is unknown. None: it stays."""


def list_node_states() -> list[NodeState]:
    """The living nodes. Two questions to Ray, a millisecond of time and less of processor."""
    client = ray._private.worker.global_worker.gcs_client
    reply = autoscaler_pb2.GetClusterResourceStateReply.FromString(client.get_cluster_resource_state())
    # The nodes' own statuses say the same, but later.
    ends_unix_ms: dict[str, int] = ray._private.state.state.get_draining_nodes()
    states = [(node.node_id.hex(), node) for node in reply.cluster_resource_state.node_states]
    return [
        NodeState(
            node_id=node_id,
            is_head=HEAD_RESOURCE in node.total_resources,
            address=node.node_ip_address,
            total=dict(node.total_resources),
            available=dict(node.available_resources),
            ends_unix_s=(ends_unix_ms[node_id] / 1000 or math.inf) if node_id in ends_unix_ms else None,
        )
        for node_id, node in states
        if node.status != autoscaler_pb2.NodeStatus.DEAD
    ]


def list_pending_actor_names() -> list[str]:
    """Named actors of the mesh that have no process yet: they wait for resources, or their process is being made."""
    return [name for state in _NOT_THERE_YET for name in list_actor_names(state)]


def list_actor_names(state: str) -> list[str]:
    """Named actors of the mesh in this state of Ray's."""
    accessor = ray._private.state.state._connect_and_get_accessor()
    actors = [gcs_pb2.ActorTableData.FromString(row) for row in accessor.get_actor_table(None, state)]
    return [actor.name for actor in actors if actor.name and actor.ray_namespace == NAMESPACE]


def list_memory_deaths(since_unix_s: float) -> dict[str, str]:
    """What Ray says of this job's actors of the mesh that it has killed since then for want of memory, by name."""
    job_id = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    rows = ray._private.state.state._connect_and_get_accessor().get_actor_table(job_id, "DEAD")
    actors = [gcs_pb2.ActorTableData.FromString(row) for row in rows]
    return {
        actor.name: actor.death_cause.oom_context.error_message
        for actor in actors
        if actor.name
        and actor.ray_namespace == NAMESPACE
        and actor.death_cause.HasField("oom_context")
        and actor.end_time / 1000 >= since_unix_s
    }


def create_placement_group(
    name: str, bundles: list[dict[str, float]], strategy: str, avoided_node_ids: Collection[str] = ()
) -> Any:
    """A placement group that outlives this process. Returns immediately; it is there when its resources are."""
    selector = not_on(avoided_node_ids)
    selectors = [selector] * len(bundles) if selector else None
    return placement_group(bundles, strategy=strategy, name=name, lifetime="detached", bundle_label_selector=selectors)


def not_on(node_ids: Collection[str]) -> dict[str, str]:
    """The label selector of Ray for all nodes but these."""
    return {_NODE_LABEL: f"!in({','.join(sorted(node_ids))})"} if node_ids else {}


def remove_placement_group(group: Any) -> None:
    """Ends what still runs in it."""
    ray.util.remove_placement_group(group)


def list_placement_groups() -> dict[str, Any]:
    """Named placement groups that exist, of any namespace."""
    if not ray.is_initialized():
        return {}  # asked without a cluster, Ray would start one
    return {
        group["name"]: PlacementGroup(ray.PlacementGroupID.from_hex(group_id))
        for group_id, group in placement_group_table().items()
        if group["name"] and group["state"] != "REMOVED"
    }


def bundle_nodes(group: Any) -> list[str]:
    """The nodes of its bundles, in order; empty before it is there."""
    nodes = placement_group_table(group).get("bundles_to_node_id", {})
    return [nodes[index] for index in sorted(nodes) if nodes[index]]


def own_bundle_nodes() -> list[str]:
    """Nodes of the placement group that this actor runs in, by bundle; empty without one."""
    # Asked without a cluster, Ray would start one.
    group = ray.util.get_current_placement_group() if ray.is_initialized() else None
    return [] if group is None else bundle_nodes(group)
