"""The status of nodes: which take replicas, and how far the drains of the others are. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mesh.controller.plan.cluster_picture import Node, Replica
from mesh.controller.report.mesh_picture import MeshPicture
from mesh.routing.snapshot import DeploymentKey
from mesh.status import NodeStatus
from mesh.v1 import control_pb2

_REASONS_MAX = 5
_REASON_MAX_CHARS = 400


def node_statuses(picture: MeshPicture) -> Iterator[control_pb2.NodeStatus]:
    """The statuses of all nodes that the controller knows, the head first."""
    replicas = Counter(node_id for each in picture.observed.replicas for node_id in _nodes_of(each))
    for node in sorted(picture.observed.nodes, key=lambda each: not each.is_head):
        yield _status(node, replicas[node.node_id], picture)


def node_status(node_id: str, picture: MeshPicture) -> control_pb2.NodeStatus | None:
    """None if the controller does not know the node."""
    return next((each for each in node_statuses(picture) if each.node_id == node_id), None)


def replicas_on(node_id: str, picture: MeshPicture) -> int:
    return sum(node_id in _nodes_of(replica) for replica in picture.observed.replicas)


def _status(node: Node, count: int, picture: MeshPicture) -> control_pb2.NodeStatus:
    status = control_pb2.NodeStatus(
        node_id=node.node_id,
        address=node.address,
        is_head=node.is_head,
        status=_word(node, picture),
        replicas=count,
    )
    if node.is_emptied:
        cordon = picture.desired.cordons.get(node.node_id, control_pb2.Cordon())
        status.replicas_to_move = max(cordon.replicas, count)
        status.moved_replicas = status.replicas_to_move - count
        status.message = "; ".join(each.removesuffix(".") for each in _obstacles(node.node_id, picture))
    return status


def _word(node: Node, picture: MeshPicture) -> NodeStatus:
    if node.is_emptied:
        return NodeStatus.DRAINED if picture.observed.is_free(node) else NodeStatus.DRAINING
    if node.ends_at_s is not None:
        return NodeStatus.LEAVING
    return NodeStatus.CORDONED if node.is_cordoned else NodeStatus.READY


def _obstacles(node_id: str, picture: MeshPicture) -> list[str]:
    """Why replicas of the node do not move, by deployment."""
    staying = [each for each in picture.observed.replicas if not each.is_leaving and node_id in _nodes_of(each)]
    keys = sorted({each.deployment for each in staying})
    found = [f"{key}: {reason[:_REASON_MAX_CHARS]}" for key in keys if (reason := _obstacle(key, picture))]
    more = [f"and {len(found) - _REASONS_MAX} more"] if len(found) > _REASONS_MAX else []
    return [*found[:_REASONS_MAX], *more]


def _obstacle(key: DeploymentKey, picture: MeshPicture) -> str:
    verdict = picture.verdicts.get(key)
    if verdict is None or verdict.target is None:
        return ""
    if verdict.is_given_up:
        return verdict.message.partition("\n")[0]
    if verdict.target.is_held and verdict.target.has_other_version_before:
        return f"its rollout is paused: `mesh resume {key.app}` lets it go on"
    return verdict.shortage


def _nodes_of(replica: Replica) -> set[str]:
    return set(replica.bundle_nodes) if replica.is_placed else set()
